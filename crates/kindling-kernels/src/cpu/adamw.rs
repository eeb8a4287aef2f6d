//! One step of AdamW in place, and the norm that gradients are clipped by.

use rayon::prelude::*;

use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::rows::VALUES_PER_TASK;

/// The numbers of a step of AdamW (Loshchilov and Hutter, arXiv:1711.05101).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps taken, with this one: from 1.
    pub time: usize,
    /// What the gradient is multiplied by before anything else.
    pub grad_scale: f64,
}

/// Updates a parameter and its moments from its gradient.
///
/// # Panics
/// If the sizes differ.
pub fn step(isa: Isa, parameter: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: Step) {
    let n = parameter.len();
    assert!(gradient.len() == n && first.len() == n && second.len() == n, "moments and gradient of {n} values");
    let chunks = parameter.par_chunks_mut(VALUES_PER_TASK).zip(gradient.par_chunks(VALUES_PER_TASK));
    let moments = first.par_chunks_mut(VALUES_PER_TASK).zip(second.par_chunks_mut(VALUES_PER_TASK));
    let update = |((parameter, gradient), (first, second))| dispatch(isa, Update { parameter, gradient, first, second, step });
    if n <= VALUES_PER_TASK {
        return dispatch(isa, Update { parameter, gradient, first, second, step });
    }
    chunks.zip(moments).for_each(update);
}

struct Update<'a> {
    parameter: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    step: Step,
}

impl Kernel for Update<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { parameter, gradient, first, second, step } = self;
        let splat = |value: f64| simd.splat_f32s(value as f32);
        let time = i32::try_from(step.time).unwrap_or(i32::MAX);
        let scale = splat(step.grad_scale);
        let (beta_1, rest_1) = (splat(step.beta_1), splat(1.0 - step.beta_1));
        let (beta_2, rest_2) = (splat(step.beta_2), splat(1.0 - step.beta_2));
        math::zip!(simd, first, gradient, |m, g| simd.fma(beta_1, m, simd.mul_f32s(rest_1, simd.mul_f32s(g, scale))));
        math::zip!(simd, second, gradient, |v, g| {
            let g = simd.mul_f32s(g, scale);
            simd.fma(beta_2, v, simd.mul_f32s(rest_2, simd.mul_f32s(g, g)))
        });
        let (keep, lr) = (splat(1.0 - step.lr * step.weight_decay), splat(step.lr / (1.0 - step.beta_1.powi(time))));
        let (correction, epsilon) = (splat((1.0 - step.beta_2.powi(time)).recip()), splat(step.epsilon));
        math::zip_with!(simd, parameter, first, second, |p, m, v| {
            let root = simd.add_f32s(simd.sqrt_f32s(simd.mul_f32s(v, correction)), epsilon);
            simd.sub_f32s(simd.mul_f32s(p, keep), simd.div_f32s(simd.mul_f32s(lr, m), root))
        });
    }
}

/// The sum of squares, the same for any number of threads.
pub fn sum_of_squares(isa: Isa, values: &[f32]) -> f64 {
    let part = |values: &[f32]| dispatch(isa, Squares(values));
    if values.len() <= VALUES_PER_TASK {
        return part(values);
    }
    let parts: Vec<f64> = values.par_chunks(VALUES_PER_TASK).map(part).collect();
    parts.iter().sum()
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) -> f64 {
        f64::from(math::dot(simd, self.0, self.0))
    }
}
