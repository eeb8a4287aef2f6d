//! Attention of new tokens to keys and values that are kept in slots, as f32 or bf16. Whole sequences are computed faster by
//! `attention.rs`.
//!
//! What comes out for a token depends on nothing but its query and the slots that it sees, in their order: not on the other tokens,
//! nor on the number of threads, down to the last bit.

use std::ops::{Deref, DerefMut};

use pulp::bytemuck::{self, Pod};
use rayon::prelude::*;

use super::arithmetic::bf16;
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::matmul::Matrix;
use super::tile::prefetch;

/// Slots of the tokens of a sequence, in order, of which the last are new.
#[derive(Clone, Copy, Debug)]
pub struct CachedRow<'a> {
    /// Of all its tokens.
    pub slots: &'a [u32],
    /// How many are new.
    pub n_new: usize,
}

/// How many runs of slots before it is read the beginning of one is asked for.
const RUNS_AHEAD: usize = 8;
/// Bytes that memory gives at once.
const LINE: usize = 64;
/// New tokens of a sequence that go over its slots together.
const TOKENS_AT_ONCE: usize = 16;
/// Slots of a block. Memory comes in blocks, so that nothing that is kept ever moves.
pub const BLOCK: usize = 1024;

/// How keys and values are kept.
pub trait Kept: Pod + Send + Sync {
    /// What is kept of a value.
    fn of(value: f32) -> Self;
    /// Four vectors of a head from the `first` on, filled up with zeros.
    fn vectors<S: Vector>(simd: S, kept: &[Self], first: usize) -> [S::f32s; 4];
    /// Where a value of a head is in these, counted from the first.
    fn place<S: Vector>(i: usize) -> usize;
}

/// As they are.
impl Kept for f32 {
    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn vectors<S: Vector>(simd: S, kept: &[Self], first: usize) -> [S::f32s; 4] {
        math::load_four(simd, &kept[kept.len().min(first * S::F32_LANES)..])
    }

    #[inline(always)]
    fn place<S: Vector>(i: usize) -> usize {
        i
    }
}

/// As the bits of the nearest bf16. Two neighbours are a word, and each is an upper half of an f32: a vector has those in even places, and the
/// next one the others.
impl Kept for u16 {
    #[inline(always)]
    fn of(value: f32) -> Self {
        (bf16(value) >> 16) as Self
    }

    #[inline(always)]
    fn vectors<S: Vector>(simd: S, kept: &[Self], first: usize) -> [S::f32s; 4] {
        let words = bytemuck::cast_slice::<Self, f32>(kept);
        let words = &words[words.len().min(first / 2 * S::F32_LANES)..];
        let two = match S::as_simd_f32s(words).0 {
            [a, b, ..] => [*a, *b],
            _ => [math::load(simd, words), math::load(simd, &words[words.len().min(S::F32_LANES)..])],
        };
        let [a, b] = [simd.transmute_u32s_f32s(two[0]), simd.transmute_u32s_f32s(two[1])];
        let (lower, upper) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        [
            simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(a, lower)),
            simd.transmute_f32s_u32s(simd.and_u32s(a, upper)),
            simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(b, lower)),
            simd.transmute_f32s_u32s(simd.and_u32s(b, upper)),
        ]
    }

    #[inline(always)]
    fn place<S: Vector>(i: usize) -> usize {
        let (lanes, is_high) = (S::F32_LANES, i % 2 == usize::from(cfg!(target_endian = "little")));
        i / (2 * lanes) * 2 * lanes + usize::from(is_high) * lanes + i / 2 % lanes
    }
}

/// Keys and values in blocks `[heads, BLOCK, E]`: what a token reads of a head lies together.
#[derive(Clone, Debug)]
pub struct Table<B> {
    /// In the order of their slots.
    pub blocks: Vec<B>,
    /// E, the values of a head.
    pub e: usize,
}

impl<T: Kept, B: Deref<Target = [T]>> Table<B> {
    /// Where in its block the values of a head begin that a slot has.
    #[inline(always)]
    fn place(&self, head: usize, slot: usize) -> usize {
        (head * BLOCK + slot % BLOCK) * self.e
    }

    /// What a run has of a head.
    #[inline(always)]
    fn of(&self, head: usize, run: Run) -> &[T] {
        &self.blocks[run.slot / BLOCK][self.place(head, run.slot)..][..run.len * self.e]
    }

    /// Asks memory for the beginning of a run: where that is the processor does not see by itself.
    #[inline(always)]
    fn ask_for(&self, head: usize, run: Option<&Run>) {
        let Some(run) = run else { return };
        for line in self.of(head, Run { len: 1, ..*run }).chunks(LINE / size_of::<T>()) {
            prefetch(line.as_ptr().cast());
        }
    }
}

/// Slots one behind the other in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    slot: usize,
    len: usize,
}

/// Slots as runs, in their order.
fn runs_of(slots: &[u32], out: &mut Vec<Run>) {
    out.clear();
    for slot in slots.iter().map(|slot| *slot as usize) {
        match out.last_mut() {
            Some(run) if run.slot + run.len == slot && !slot.is_multiple_of(BLOCK) => run.len += 1,
            _ => out.push(Run { slot, len: 1 }),
        }
    }
}

/// Writes new tokens, values `[N, ..]` with C of each from `col` on, into their slots.
///
/// # Panics
/// If the sizes do not fit, or there is no such slot.
pub fn write<T: Kept, B: DerefMut<Target = [T]>>(isa: Isa, table: &mut Table<B>, new: Matrix<'_>, col: usize, rows: &[CachedRow<'_>]) {
    let c = table.blocks.first().map_or(0, |block| block.len() / BLOCK);
    let slots = rows.iter().flat_map(|row| &row.slots[row.slots.len() - row.n_new..]);
    for (i, slot) in slots.enumerate() {
        for (head, new) in new.row(i)[col..][..c].chunks_exact(table.e).enumerate() {
            let (slot, place) = (*slot as usize, table.place(head, *slot as usize));
            dispatch(isa, Write { new, to: &mut table.blocks[slot / BLOCK][place..] });
        }
    }
}

struct Write<'a, T> {
    new: &'a [f32],
    to: &'a mut [T],
}

impl<T: Kept> Kernel for Write<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, _simd: S) {
        for (kept, value) in self.to.iter_mut().zip(self.new) {
            *kept = T::of(*value);
        }
    }
}

/// softmax(q·kᵀ / sqrt(E))·v of each head over the slots that a token sees: q the first C columns of `qkv` `[N, ..]`, of the new tokens of all
/// rows; out `[N, C]`. What is kept as bf16 has heads of an even number of values.
///
/// # Panics
/// If the sizes do not fit, or there is no such slot.
pub fn forward<T: Kept>(
    isa: Isa,
    qkv: Matrix<'_>,
    keys: &Table<&[T]>,
    values: &Table<&[T]>,
    n_heads: usize,
    rows: &[CachedRow<'_>],
) -> Vec<f32> {
    let (e, n) = (keys.e, rows.iter().map(|row| row.n_new).sum::<usize>());
    let c = n_heads * e;
    assert!(e > 0 && qkv.rows() == n && qkv.cols() >= c, "queries of {n_heads} heads of {e} values for each of {n} new tokens");
    assert!(size_of::<T>() == size_of::<f32>() || e.is_multiple_of(2), "{e} values of a head are whole words");
    let queries: Vec<f32> = (0..n).flat_map(|i| &qkv.row(i)[..c]).copied().collect();
    let mut out = vec![0.0; n * c];
    let mut work = Vec::new();
    let (mut outs, mut queries) = (out.as_mut_slice(), queries.as_slice());
    // Of one token, threads share the heads.
    let heads_together = if n == 1 { n_heads.div_ceil(rayon::current_num_threads()) } else { n_heads };
    for row in rows {
        let n_old = row.slots.len() - row.n_new;
        for from in (0..row.n_new).step_by(TOKENS_AT_ONCE) {
            let n_tokens = (row.n_new - from).min(TOKENS_AT_ONCE);
            let slots = &row.slots[..n_old + from + n_tokens];
            let heads_together = if n_tokens == 1 { heads_together } else { n_heads };
            for head in (0..n_heads).step_by(heads_together) {
                let len = n_tokens * (n_heads - head).min(heads_together) * e;
                let (out, query);
                (out, outs) = outs.split_at_mut(len);
                (query, queries) = queries.split_at(len);
                work.push((out, query, slots, n_tokens, head));
            }
        }
    }
    work.into_par_iter().for_each_init(Room::default, |room, (out, queries, slots, n_tokens, head)| {
        let seen = Seen { keys, values, slots };
        if n_tokens == 1 {
            dispatch(isa, Token { seen, head, query: queries, room, out });
        } else {
            dispatch(isa, Tokens { seen, n_tokens, queries, room, out });
        }
    });
    out
}

/// What a token sees.
#[derive(Clone, Copy)]
struct Seen<'a, T> {
    keys: &'a Table<&'a [T]>,
    values: &'a Table<&'a [T]>,
    slots: &'a [u32],
}

/// What a thread keeps from one piece of work to the next.
#[derive(Default)]
struct Room {
    /// The slots.
    runs: Vec<Run>,
    /// What slots weigh, of each token.
    scores: Vec<f32>,
    /// A head of the query of each token, as [`Kept::vectors`] has it.
    queries: Vec<f32>,
    /// What a slot has of a head, as well.
    opened: Vec<f32>,
    /// Sums of what slots have of a head, of each token, as well.
    sums: Vec<f32>,
}

impl Room {
    /// Makes room for some tokens, and gives how many values a head takes.
    #[inline(always)]
    fn make<S: Vector>(&mut self, slots: &[u32], n_tokens: usize, e: usize) -> usize {
        let width = e.next_multiple_of(4 * S::F32_LANES);
        runs_of(slots, &mut self.runs);
        for (values, n) in [
            (&mut self.scores, n_tokens * slots.len()),
            (&mut self.queries, n_tokens * width),
            (&mut self.sums, n_tokens * width),
            (&mut self.opened, width),
        ] {
            values.clear();
            values.resize(n, 0.0);
        }
        width
    }
}

/// One new token, and its heads from one on.
struct Token<'a, T> {
    seen: Seen<'a, T>,
    head: usize,
    query: &'a [f32],
    room: &'a mut Room,
    out: &'a mut [f32],
}

// Loops, and no closures: these would be compiled without the vectors, and call each of their instructions.
impl<T: Kept> Kernel for Token<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { seen: Seen { keys, values, slots }, head, query, room, out } = self;
        let (e, scale) = (keys.e, (keys.e as f32).sqrt().recip());
        let width = room.make::<S>(slots, 1, e);
        let Room { runs, scores, queries, sums, .. } = room;
        for ((i, query), out) in query.chunks_exact(e).enumerate().zip(out.chunks_exact_mut(e)) {
            let head = head + i;
            place::<S, T>(query, queries);
            let mut s = 0;
            for (r, run) in runs.iter().enumerate() {
                keys.ask_for(head, runs.get(r + RUNS_AHEAD));
                for kept in keys.of(head, *run).chunks_exact(e) {
                    scores[s] = dot(simd, queries, kept) * scale;
                    s += 1;
                }
            }
            let weight = weigh(simd, scores);
            // As many as registers hold.
            for first in (0..width / S::F32_LANES).step_by(4) {
                let (mut sum, mut s) = ([simd.splat_f32s(0.0); 4], 0);
                for (r, run) in runs.iter().enumerate() {
                    values.ask_for(head, runs.get(r + RUNS_AHEAD));
                    for kept in values.of(head, *run).chunks_exact(e) {
                        let (weight, values) = (simd.splat_f32s(scores[s]), T::vectors(simd, kept, first));
                        for i in 0..4 {
                            sum[i] = simd.fma(weight, values[i], sum[i]);
                        }
                        s += 1;
                    }
                }
                for i in 0..4 {
                    math::store(simd, &mut sums[(first + i) * S::F32_LANES..], sum[i]);
                }
            }
            take::<S, T>(sums, weight.recip(), out);
        }
    }
}

/// Several new tokens of a sequence, head by head: what a slot has of a head is read once for all of them.
struct Tokens<'a, T> {
    seen: Seen<'a, T>,
    n_tokens: usize,
    queries: &'a [f32],
    room: &'a mut Room,
    out: &'a mut [f32],
}

impl<T: Kept> Kernel for Tokens<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { seen: Seen { keys, values, slots }, n_tokens, queries: given, room, out } = self;
        let (e, c, n, scale) = (keys.e, given.len() / n_tokens, slots.len(), (keys.e as f32).sqrt().recip());
        // The first token sees all slots but those of the others, and each one more than the one before.
        let n_first = n + 1 - n_tokens;
        let width = room.make::<S>(slots, n_tokens, e);
        let Room { runs, scores, queries, opened, sums } = room;
        for (head, col) in (0..c).step_by(e).enumerate() {
            for t in 0..n_tokens {
                place::<S, T>(&given[t * c + col..][..e], &mut queries[t * width..]);
            }
            let mut s: usize = 0;
            for run in runs.iter() {
                for kept in keys.of(head, *run).chunks_exact(e) {
                    open(simd, kept, opened);
                    for t in (s + 1).saturating_sub(n_first)..n_tokens {
                        scores[t * n + s] = dot(simd, &queries[t * width..][..width], opened) * scale;
                    }
                    s += 1;
                }
            }
            let mut weights = [0.0; TOKENS_AT_ONCE];
            for t in 0..n_tokens {
                weights[t] = weigh(simd, &mut scores[t * n..][..n_first + t]);
            }
            sums.fill(0.0);
            let mut s: usize = 0;
            for run in runs.iter() {
                for kept in values.of(head, *run).chunks_exact(e) {
                    open(simd, kept, opened);
                    for t in (s + 1).saturating_sub(n_first)..n_tokens {
                        add_weighed(simd, scores[t * n + s], opened, &mut sums[t * width..][..width]);
                    }
                    s += 1;
                }
            }
            for t in 0..n_tokens {
                take::<S, T>(&sums[t * width..][..width], weights[t].recip(), &mut out[t * c + col..][..e]);
            }
        }
    }
}

/// A head as [`Kept::vectors`] has it.
#[inline(always)]
fn place<S: Vector, T: Kept>(from: &[f32], to: &mut [f32]) {
    for (i, value) in from.iter().enumerate() {
        to[T::place::<S>(i)] = *value;
    }
}

/// The other way, times a factor.
#[inline(always)]
fn take<S: Vector, T: Kept>(from: &[f32], factor: f32, to: &mut [f32]) {
    for (i, value) in to.iter_mut().enumerate() {
        *value = from[T::place::<S>(i)] * factor;
    }
}

/// What is kept of a head, as f32.
#[inline(always)]
fn open<S: Vector, T: Kept>(simd: S, kept: &[T], out: &mut [f32]) {
    for first in (0..out.len() / S::F32_LANES).step_by(4) {
        let four = T::vectors(simd, kept, first);
        for i in 0..4 {
            math::store(simd, &mut out[(first + i) * S::F32_LANES..], four[i]);
        }
    }
}

/// The product of a head with a kept one.
#[inline(always)]
fn dot<S: Vector, T: Kept>(simd: S, query: &[f32], kept: &[T]) -> f32 {
    let mut sums = [simd.splat_f32s(0.0); 4];
    for (chunk, query) in query.chunks_exact(4 * S::F32_LANES).enumerate() {
        let (query, kept) = (math::load_four(simd, query), T::vectors(simd, kept, 4 * chunk));
        for i in 0..4 {
            sums[i] = simd.fma(query[i], kept[i], sums[i]);
        }
    }
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])))
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
