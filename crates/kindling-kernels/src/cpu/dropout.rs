//! Which activations a training step drops, as a function of keys and places. Keeps no generator state.

use rayon::prelude::*;

use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::rows::rows_per_task;

/// The constant by which Weyl sequences advance: 2^64 over the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit.
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A stream of its own for each of `parts`.
pub fn stream(key: u64, parts: &[u64]) -> u64 {
    parts.iter().fold(mix(key ^ GOLDEN), |key, part| mix(key ^ part.wrapping_mul(GOLDEN)))
}

/// Activations that are dropped with probability `p`; the others are multiplied by 1 / (1 - p).
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Probability, from 0 to below 1.
    pub p: f64,
    /// Drops the same in every row of a sequence (Gal and Ghahramani, arXiv:1512.05287).
    pub one_mask: bool,
    /// The stream of each sequence of the batch, so that a sequence drops the same in any batch.
    pub streams: Vec<u64>,
}

impl Dropout {
    /// The factors, 0 or 1 / (1 - p), of the first `n` activations in row `row` of sequence `sequence`.
    pub fn row(&self, isa: Isa, sequence: usize, row: u64, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        dispatch(isa, Row { dropout: self, sequence, row, out: &mut out });
        out
    }

    /// Drops activations of `x` `[N, C]`, whose rows are those of the sequences, one sequence behind the other.
    ///
    /// # Panics
    /// If the sizes do not fit.
    pub fn apply(&self, isa: Isa, x: &mut [f32], c: usize) {
        if x.is_empty() {
            return;
        }
        let n = x.len() / c;
        assert!(n * c == x.len() && n.is_multiple_of(self.streams.len()), "{n} rows are of {} sequences", self.streams.len());
        let rows = rows_per_task(n, c);
        let tasks = x.par_chunks_mut(rows * c).enumerate();
        tasks.for_each(|(i, x)| dispatch(isa, Apply { dropout: self, first: i * rows, rows_of_sequence: n / self.streams.len(), x, c }));
    }

    /// What the values that stay are multiplied by.
    pub(crate) fn keep(&self) -> f32 {
        (1.0 / (1.0 - self.p)) as f32
    }

    /// A draw of 31 bits below this drops.
    fn threshold(&self) -> u32 {
        (self.p * f64::from(1u32 << 31)) as u32
    }

    /// The factors, 0 or 1 / (1 - p), of row `row` of sequence `sequence`.
    #[inline(always)]
    pub(crate) fn factors<S: Vector>(&self, simd: S, sequence: usize, row: u64, out: &mut [f32]) {
        let row = if self.one_mask { 0 } else { row };
        let key = mix(self.streams[sequence].wrapping_add(row.wrapping_mul(GOLDEN)));
        let (low, high) = (simd.splat_u32s(key as u32), simd.splat_u32s((key >> 32) as u32));
        let (threshold, keep) = (simd.splat_u32s(self.threshold()), simd.splat_f32s(self.keep()));
        let xor_shift = |x, n| simd.xor_u32s(x, simd.wrapping_dyn_shr_u32s(x, simd.splat_u32s(n)));
        let lanes = S::F32_LANES;
        for (i, chunk) in out.chunks_mut(lanes).enumerate() {
            let mut index = simd.splat_u32s((i * lanes) as u32);
            for (lane, value) in pulp::bytemuck::cast_slice_mut::<S::u32s, u32>(std::slice::from_mut(&mut index)).iter_mut().enumerate() {
                *value += lane as u32;
            }
            // lowbias32 (Wellons 2018), with half of the key before it and half in the middle.
            let x = simd.xor_u32s(index, low);
            let x = simd.mul_u32s(xor_shift(x, 16), simd.splat_u32s(0x7feb_352d));
            let x = simd.mul_u32s(xor_shift(simd.xor_u32s(x, high), 15), simd.splat_u32s(0x846c_a68b));
            let draw = simd.wrapping_dyn_shr_u32s(xor_shift(x, 16), simd.splat_u32s(1));
            let factor = simd.select_f32s(simd.less_than_u32s(draw, threshold), simd.splat_f32s(0.0), keep);
            simd.partial_store_f32s(chunk, factor);
        }
    }
}

struct Row<'a> {
    dropout: &'a Dropout,
    sequence: usize,
    row: u64,
    out: &'a mut [f32],
}

impl Kernel for Row<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        self.dropout.factors(simd, self.sequence, self.row, self.out);
    }
}

struct Apply<'a> {
    dropout: &'a Dropout,
    first: usize,
    rows_of_sequence: usize,
    x: &'a mut [f32],
    c: usize,
}

impl Kernel for Apply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let mut factors = vec![0.0; self.c];
        for (i, x) in self.x.chunks_exact_mut(self.c).enumerate() {
            let row = self.first + i;
            self.dropout.factors(simd, row / self.rows_of_sequence, (row % self.rows_of_sequence) as u64, &mut factors);
            math::mul(simd, x, &factors);
        }
    }
}
