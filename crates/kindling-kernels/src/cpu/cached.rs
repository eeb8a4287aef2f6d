//! Attention of new tokens to keys and values that are kept in slots, a token at a time. Whole sequences are computed faster by
//! `attention.rs`.
//!
//! What comes out for a token depends on nothing but its query and the slots that it sees, in their order: not on the other tokens,
//! nor on the number of threads, down to the last bit.

use rayon::prelude::*;

use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;

/// Slots of the tokens of a sequence, in order, of which the last are new.
#[derive(Clone, Copy, Debug)]
pub struct CachedRow<'a> {
    /// Of all its tokens.
    pub slots: &'a [u32],
    /// How many are new.
    pub n_new: usize,
}

impl<'a> CachedRow<'a> {
    /// The slots that each new token sees: those before it, and its own.
    fn seen(self) -> impl Iterator<Item = &'a [u32]> {
        let Self { slots, n_new } = self;
        (slots.len() - n_new..slots.len()).map(|token| &slots[..=token])
    }
}

/// softmax(q·kᵀ / sqrt(E))·v of each head over the slots that a token sees: `queries` `[N, C]`, those of the new tokens of all rows,
/// `keys` and `values` `[slots, C]`, out `[N, C]`.
///
/// # Panics
/// If the sizes do not fit, or there is no such slot.
pub fn forward(isa: Isa, queries: &[f32], keys: &[f32], values: &[f32], c: usize, n_heads: usize, rows: &[CachedRow<'_>]) -> Vec<f32> {
    assert!(c > 0 && n_heads > 0 && c.is_multiple_of(n_heads), "{c} columns are of {n_heads} heads");
    let seen: Vec<&[u32]> = rows.iter().flat_map(|row| row.seen()).collect();
    assert_eq!(queries.len(), seen.len() * c, "a query for each new token");
    assert_eq!(keys.len(), values.len(), "a value for each key");
    let mut out = vec![0.0; queries.len()];
    let tokens = out.par_chunks_mut(c).zip(queries.par_chunks(c)).zip(seen);
    tokens.for_each_init(Vec::new, |scores, ((out, query), slots)| {
        dispatch(isa, Token { query, keys, values, slots, head_dim: c / n_heads, scores, out });
    });
    out
}

/// One new token.
struct Token<'a> {
    query: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    slots: &'a [u32],
    head_dim: usize,
    /// Room for what slots weigh.
    scores: &'a mut Vec<f32>,
    out: &'a mut [f32],
}

impl Kernel for Token<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { query, keys, values, slots, head_dim: e, scores, out } = self;
        let (c, scale) = (query.len(), (e as f32).sqrt().recip());
        let at = |slot: u32, head: usize| slot as usize * c + head * e;
        for (head, (query, out)) in query.chunks_exact(e).zip(out.chunks_exact_mut(e)).enumerate() {
            scores.clear();
            scores.extend(slots.iter().map(|slot| math::dot(simd, query, &keys[at(*slot, head)..][..e]) * scale));
            let largest = simd.splat_f32s(math::max(simd, scores));
            math::map!(simd, scores, |score| math::exp(simd, simd.sub_f32s(score, largest)));
            let sum = math::sum!(simd, scores, |p| p);
            out.fill(0.0);
            for (p, slot) in scores.iter().zip(slots) {
                let p = simd.splat_f32s(*p);
                math::zip!(simd, out, &values[at(*slot, head)..][..e], |out, value| simd.fma(p, value, out));
            }
            math::scale(simd, out, sum.recip());
        }
    }
}
