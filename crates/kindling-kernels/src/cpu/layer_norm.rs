//! Layer normalisation (Ba, Kiros and Hinton, arXiv:1607.06450) of rows, forward and backward.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::buffer::{filled, initialised};
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::rows::rows_per_task;

/// `(x - mean) / sqrt(variance + eps) * gamma + beta` of every row of `x` `[N, C]`, and `[N, 2]`: each row's mean and
/// reciprocal standard deviation.
///
/// # Panics
/// If the sizes do not fit.
#[allow(unsafe_code, reason = "the output is not written twice")]
pub fn forward(isa: Isa, x: &[f32], gamma: &[f32], beta: Option<&[f32]>, eps: f32) -> (Vec<f32>, Vec<f32>) {
    let c = gamma.len();
    assert!(c > 0 && x.len().is_multiple_of(c) && beta.is_none_or(|beta| beta.len() == c), "rows of {c} values");
    let n = x.len() / c;
    let rows = rows_per_task(n, c);
    let mut stats = vec![0.0; 2 * n];
    // SAFETY: every task writes all values of its rows.
    let y = unsafe {
        filled(x.len(), |y: &mut [MaybeUninit<f32>]| {
            let tasks = y.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c)).zip(stats.par_chunks_mut(rows * 2));
            tasks.for_each(|((y, x), stats)| dispatch(isa, Forward { x, gamma, beta, eps, y, stats }));
        })
    };
    (y, stats)
}

struct Forward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    eps: f32,
    y: &'a mut [MaybeUninit<f32>],
    stats: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { x, gamma, beta, eps, y, stats } = self;
        let c = gamma.len();
        let inverse = (c as f32).recip();
        for ((x, y), stats) in x.chunks_exact(c).zip(y.chunks_exact_mut(c)).zip(stats.chunks_exact_mut(2)) {
            let y = initialised(y, x);
            let mean = math::sum!(simd, x, |v| v) * inverse;
            let mean_v = simd.splat_f32s(mean);
            // The mean is taken out first: the mean of squares less the square of the mean would cancel.
            math::map!(simd, y, |v| simd.sub_f32s(v, mean_v));
            let variance = math::sum!(simd, y, |v| simd.mul_f32s(v, v)) * inverse;
            let rstd = (variance + eps).sqrt().recip();
            let rstd_v = simd.splat_f32s(rstd);
            math::zip!(simd, y, gamma, |v, g| simd.mul_f32s(simd.mul_f32s(v, rstd_v), g));
            if let Some(beta) = beta {
                math::add(simd, y, beta);
            }
            stats.copy_from_slice(&[mean, rstd]);
        }
    }
}

/// The gradients of gamma and beta, both `[C]`. That of `x` takes the place of `dy` `[N, C]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn backward(isa: Isa, x: &[f32], gamma: &[f32], stats: &[f32], dy: &mut [f32]) -> (Vec<f32>, Vec<f32>) {
    let c = gamma.len();
    assert!(c > 0 && dy.len() == x.len() && stats.len() * c == 2 * x.len(), "rows of {c} values");
    let rows = rows_per_task(x.len() / c, c);
    let tasks = dy.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c)).zip(stats.par_chunks(rows * 2));
    let parts: Vec<Vec<f32>> = tasks.map(|((dy, x), stats)| dispatch(isa, Backward { x, gamma, stats, dy })).collect();
    let mut sum = vec![0.0; 2 * c];
    parts.iter().for_each(|part| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part));
    let beta = sum.split_off(c);
    (sum, beta)
}

struct Backward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    stats: &'a [f32],
    dy: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    /// `[2, C]`: the rows' part of the gradients of gamma and beta.
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) -> Vec<f32> {
        let Self { x, gamma, stats, dy } = self;
        let c = gamma.len();
        let mut out = vec![0.0; 2 * c];
        let (d_gamma, d_beta) = out.split_at_mut(c);
        let mut normed = vec![0.0; c];
        let inverse = (c as f32).recip();
        for ((x, dy), stats) in x.chunks_exact(c).zip(dy.chunks_exact_mut(c)).zip(stats.chunks_exact(2)) {
            let (mean, rstd) = (simd.splat_f32s(stats[0]), simd.splat_f32s(stats[1]));
            normed.copy_from_slice(x);
            math::map!(simd, &mut normed, |v| simd.mul_f32s(simd.sub_f32s(v, mean), rstd));
            math::add(simd, d_beta, dy);
            math::add_products(simd, d_gamma, dy, &normed);
            math::mul(simd, dy, gamma);
            let mean_dy = simd.splat_f32s(math::sum!(simd, dy, |v| v) * inverse);
            let mean_product = simd.splat_f32s(math::dot(simd, dy, &normed) * inverse);
            math::zip!(simd, dy, &normed, |d, n| {
                simd.mul_f32s(rstd, simd.sub_f32s(simd.sub_f32s(d, mean_dy), simd.mul_f32s(n, mean_product)))
            });
        }
        out
    }
}
