//! Attention of new tokens to keys and values that are kept in slots, a token at a time. Whole sequences are computed faster by
//! `attention.rs`.
//!
//! What comes out for a token depends on nothing but its query and the slots that it sees, in their order: not on the other tokens,
//! nor on the number of threads, down to the last bit.

use rayon::prelude::*;

use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::tile::prefetch;

/// Slots of the tokens of a sequence, in order, of which the last are new.
#[derive(Clone, Copy, Debug)]
pub struct CachedRow<'a> {
    /// Of all its tokens.
    pub slots: &'a [u32],
    /// How many are new.
    pub n_new: usize,
}

/// How many slots before it is read a slot is asked for.
const SLOTS_AHEAD: usize = 4;
/// Values that memory gives at once.
const LINE: usize = 16;
/// New tokens of a sequence that go over its slots together.
const TOKENS_AT_ONCE: usize = 16;

/// softmax(q·kᵀ / sqrt(E))·v of each head over the slots that a token sees: `queries` `[N, C]`, those of the new tokens of all rows,
/// `keys` and `values` `[slots, C]`, out `[N, C]`.
///
/// # Panics
/// If the sizes do not fit, or there is no such slot.
pub fn forward(isa: Isa, queries: &[f32], keys: &[f32], values: &[f32], c: usize, n_heads: usize, rows: &[CachedRow<'_>]) -> Vec<f32> {
    assert!(c > 0 && n_heads > 0 && c.is_multiple_of(n_heads), "{c} columns are of {n_heads} heads");
    let n: usize = rows.iter().map(|row| row.n_new).sum();
    assert_eq!(queries.len(), n * c, "a query for each new token");
    assert_eq!(keys.len(), values.len(), "a value for each key");
    let e = c / n_heads;
    let mut out = vec![0.0; n * c];
    let mut work = Vec::new();
    let (mut outs, mut queries) = (out.as_mut_slice(), queries);
    // Of one token, threads share the heads.
    let heads_together = if n == 1 { n_heads.div_ceil(rayon::current_num_threads()) } else { n_heads };
    for row in rows {
        let n_old = row.slots.len() - row.n_new;
        for from in (0..row.n_new).step_by(TOKENS_AT_ONCE) {
            let n_tokens = (row.n_new - from).min(TOKENS_AT_ONCE);
            let slots = &row.slots[..n_old + from + n_tokens];
            let width = if n_tokens == 1 { heads_together * e } else { c };
            for col in (0..c).step_by(width) {
                let len = (n_tokens * c - col).min(n_tokens * width);
                let (out, query);
                (out, outs) = outs.split_at_mut(len);
                (query, queries) = queries.split_at(len);
                work.push((out, query, slots, n_tokens, col));
            }
        }
    }
    work.into_par_iter().for_each_init(Vec::new, |scores, (out, queries, slots, n_tokens, col)| {
        let table = Table { keys, values, slots, c, e };
        if n_tokens == 1 {
            dispatch(isa, Token { table, col, query: queries, scores, out });
        } else {
            dispatch(isa, Tokens { table, queries, scores, out });
        }
    });
    out
}

/// What is seen.
#[derive(Clone, Copy)]
struct Table<'a> {
    keys: &'a [f32],
    values: &'a [f32],
    slots: &'a [u32],
    c: usize,
    /// Values of a head.
    e: usize,
}

/// One new token, and some of its heads: each slot is read once, from its beginning to its end.
struct Token<'a> {
    table: Table<'a>,
    /// Where the heads begin in a slot.
    col: usize,
    query: &'a [f32],
    /// Room for what slots weigh.
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

// Loops, and no closures: these would be compiled without the vectors, and call each of their instructions.
impl Kernel for Token<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { table: Table { keys, values, slots, c, e }, col, query, scores, out } = self;
        let (n, n_heads, width, scale) = (slots.len(), query.len() / e, query.len(), (e as f32).sqrt().recip());
        scores.clear();
        scores.resize(n_heads * (n + 1), 0.0);
        for (s, slot) in slots.iter().enumerate() {
            ask_for(keys, slots.get(s + SLOTS_AHEAD), c, col, width);
            let keys = &keys[*slot as usize * c + col..][..width];
            for head in 0..n_heads {
                scores[head * n + s] = math::dot(simd, &query[head * e..][..e], &keys[head * e..][..e]) * scale;
            }
        }
        // The sums of weights stand behind them.
        for head in 0..n_heads {
            scores[n_heads * n + head] = weigh(simd, &mut scores[head * n..][..n]);
        }
        out.fill(0.0);
        for (s, slot) in slots.iter().enumerate() {
            ask_for(values, slots.get(s + SLOTS_AHEAD), c, col, width);
            let values = &values[*slot as usize * c + col..][..width];
            for head in 0..n_heads {
                add_weighed(simd, scores[head * n + s], &values[head * e..][..e], &mut out[head * e..][..e]);
            }
        }
        for (out, sum) in out.chunks_exact_mut(e).zip(&scores[n_heads * n..]) {
            math::scale(simd, out, sum.recip());
        }
    }
}

/// Asks memory for a slot that is read soon: the processor does not see by itself where the next one is.
#[inline(always)]
fn ask_for(table: &[f32], slot: Option<&u32>, c: usize, col: usize, width: usize) {
    let Some(slot) = slot else { return };
    for line in table[*slot as usize * c + col..][..width].chunks(LINE) {
        prefetch(line.as_ptr());
    }
}

/// Several new tokens of a sequence, head by head: what a slot holds of a head is read once for all of them.
struct Tokens<'a> {
    table: Table<'a>,
    queries: &'a [f32],
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl Kernel for Tokens<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { table: Table { keys, values, slots, c, e }, queries, scores, out } = self;
        let (n, n_tokens, scale) = (slots.len(), queries.len() / c, (e as f32).sqrt().recip());
        // The first token sees all slots but those of the others, and each one more than the one before.
        let n_first = n + 1 - n_tokens;
        scores.clear();
        scores.resize(n_tokens * n, 0.0);
        for col in (0..c).step_by(e) {
            for (s, slot) in slots.iter().enumerate() {
                let keys = &keys[*slot as usize * c + col..][..e];
                for t in (s + 1).saturating_sub(n_first)..n_tokens {
                    scores[t * n + s] = math::dot(simd, &queries[t * c + col..][..e], keys) * scale;
                }
            }
            let mut sums = [0.0; TOKENS_AT_ONCE];
            for t in 0..n_tokens {
                sums[t] = weigh(simd, &mut scores[t * n..][..n_first + t]);
                out[t * c + col..][..e].fill(0.0);
            }
            for (s, slot) in slots.iter().enumerate() {
                let values = &values[*slot as usize * c + col..][..e];
                for t in (s + 1).saturating_sub(n_first)..n_tokens {
                    add_weighed(simd, scores[t * n + s], values, &mut out[t * c + col..][..e]);
                }
            }
            for t in 0..n_tokens {
                math::scale(simd, &mut out[t * c + col..][..e], sums[t].recip());
            }
        }
    }
}

/// Scores to weights, which are not yet divided by their sum; that is given back.
#[inline(always)]
fn weigh<S: Vector>(simd: S, scores: &mut [f32]) -> f32 {
    let largest = simd.splat_f32s(math::max(simd, scores));
    math::map!(simd, scores, |score| math::exp(simd, simd.sub_f32s(score, largest)));
    math::sum!(simd, scores, |p| p)
}

#[inline(always)]
fn add_weighed<S: Vector>(simd: S, weight: f32, values: &[f32], out: &mut [f32]) {
    let weight = simd.splat_f32s(weight);
    math::zip!(simd, out, values, |out, value| simd.fma(weight, value, out));
}
