//! Panels of bf16 for matrix products: a word holds two values of k that lie half of the depth apart.
//!
//! Which values share a word does not matter as long as it is the same in A and in B. Half of the depth apart, a run along k
//! becomes words by reading two runs, and rows of B become words by reading two rows: nothing needs to be turned.
#![allow(unsafe_code, reason = "panels are not initialised twice, and rows are read through pointers")]

use pulp::Simd as _;

use super::arithmetic::{Pairs, PairsKernel, Words};
use super::math::load;
use super::matmul::interleave;
use super::tile::tile_cols;

/// Words of two runs of values, as many as `low` has. `high` may be one shorter; zero is then taken.
pub(crate) struct Pair<'a> {
    pub(crate) low: &'a [f32],
    pub(crate) high: &'a [f32],
    /// Room for the words.
    pub(crate) out: *mut f32,
}

impl PairsKernel for Pair<'_> {
    type Output = ();
    #[inline(always)]
    fn run<P: Pairs>(self, pairs: P) {
        // SAFETY: whoever made this vouches for the room.
        unsafe { pair(pairs, self.low, self.high, self.out) };
    }
}

/// # Safety
/// `out` must have room for as many words as `low` has values.
#[inline(always)]
unsafe fn pair<P: Pairs>(pairs: P, low: &[f32], high: &[f32], out: *mut f32) {
    let (simd, lanes) = (pairs.simd(), <P::Simd as pulp::Simd>::F32_LANES);
    for i in (0..low.len()).step_by(lanes) {
        let words = pairs.pair(load(simd, &low[i..]), load(simd, &high[i.min(high.len())..]));
        let n = (low.len() - i).min(lanes);
        // SAFETY: the caller vouches for the room.
        unsafe {
            if n == lanes {
                out.add(i).cast::<Words<P>>().write_unaligned(words);
            } else {
                simd.mask_store_ptr_f32s(simd.mask_between_m32s(0, n as u32), out.add(i), words);
            }
        }
    }
}

/// Where `depth` rows of at most a panel's columns of B are.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) pointer: *const f32,
    /// Values from a run to the next.
    pub(crate) stride: usize,
    /// Whether a run is a column, and not a row.
    pub(crate) columns: bool,
}

/// Packs one panel of B, of which the columns that are missing become zero.
pub(crate) struct PackB {
    pub(crate) from: Runs,
    pub(crate) depth: usize,
    pub(crate) cols: usize,
    /// Room for a panel's words, which nobody reads afterwards.
    pub(crate) scratch: *mut f32,
    /// Room for the panel.
    pub(crate) out: *mut f32,
}

impl PairsKernel for PackB {
    type Output = ();
    #[inline(always)]
    fn run<P: Pairs>(self, pairs: P) {
        let Self { from: Runs { pointer, stride, columns }, depth, cols, scratch, out } = self;
        let (words, width) = (depth.div_ceil(2), tile_cols::<P::Simd>());
        // SAFETY: the runs are all there, and the panel and the scratch have room for `words` rows of `width` words.
        unsafe {
            let run = |i: usize, from: usize, to: usize| std::slice::from_raw_parts(pointer.add(i * stride + from), to - from);
            if cols < width {
                out.write_bytes(0, words * width);
            }
            if columns {
                for j in 0..cols {
                    pair(pairs, run(j, 0, words), run(j, words, depth), scratch.add(j * words));
                }
                interleave(pairs.simd(), scratch, words, cols, words, out, width);
            } else {
                for i in 0..words {
                    let high = if words + i < depth { run(words + i, 0, cols) } else { &[] };
                    pair(pairs, run(i, 0, cols), high, out.add(i * width));
                }
            }
        }
    }
}
