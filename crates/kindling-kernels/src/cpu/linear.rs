//! Linear layers with bias, and with GELU before them, forward and backward.

use rayon::prelude::*;

use super::arithmetic::Precision;
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::matmul::{Epilogue, Matrix, Nothing, Prologue, matmul, matmul_packed};
use super::packed::Packed;
use super::rows::{VALUES_PER_TASK, rows_per_task};

/// GPT-2's GELU on the way into a product: its values never lie in memory.
#[derive(Clone, Copy, Debug)]
pub struct Gelu;

impl Prologue for Gelu {
    fn apply(self, isa: Isa, values: &mut [f32]) {
        dispatch(isa, GeluOf(values));
    }
}

struct GeluOf<'a>(&'a mut [f32]);

impl Kernel for GeluOf<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        math::map!(simd, self.0, |v| math::gelu(simd, v));
    }
}

/// Adds a bias to each row.
struct AddBias<'a>(&'a [f32]);

impl Epilogue for AddBias<'_> {
    fn apply(&self, isa: Isa, _row: usize, col: usize, values: &mut [f32]) {
        dispatch(isa, Add(values, &self.0[col..]));
    }
}

struct Add<'a>(&'a mut [f32], &'a [f32]);

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        math::add(simd, self.0, self.1);
    }
}

/// Multiplies each row by the derivative of GELU at the values of another matrix.
struct GeluBackward<'a> {
    at: &'a [f32],
    cols: usize,
}

impl Epilogue for GeluBackward<'_> {
    fn apply(&self, isa: Isa, row: usize, col: usize, values: &mut [f32]) {
        dispatch(isa, TimesDerivative(values, &self.at[row * self.cols + col..]));
    }
}

struct TimesDerivative<'a>(&'a mut [f32], &'a [f32]);

impl Kernel for TimesDerivative<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        math::zip!(simd, self.0, self.1, |d, x| simd.mul_f32s(d, math::gelu_derivative(simd, x)));
    }
}

/// `f(x)·w + bias` with f the identity or GELU: `x` `[N, I]`, `w` `[I, O]`, `bias` `[O]`, out `[N, O]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn forward(isa: Isa, precision: Precision, x: Matrix<'_>, w: Matrix<'_>, bias: Option<&[f32]>, gelu: bool) -> Vec<f32> {
    assert!(bias.is_none_or(|bias| bias.len() == w.cols()), "a bias of {} values", w.cols());
    match (gelu, bias) {
        (false, None) => matmul(isa, precision, x, w, Nothing, &Nothing),
        (false, Some(bias)) => matmul(isa, precision, x, w, Nothing, &AddBias(bias)),
        (true, None) => matmul(isa, precision, x, w, Gelu, &Nothing),
        (true, Some(bias)) => matmul(isa, precision, x, w, Gelu, &AddBias(bias)),
    }
}

/// Multiplies each column by a scale, and adds a bias, where there are such.
struct ScaleAndAdd<'a> {
    scales: &'a [f32],
    bias: &'a [f32],
}

impl Epilogue for ScaleAndAdd<'_> {
    fn apply(&self, isa: Isa, _row: usize, col: usize, values: &mut [f32]) {
        if !self.scales.is_empty() {
            dispatch(isa, Times(values, &self.scales[col..]));
        }
        if !self.bias.is_empty() {
            dispatch(isa, Add(values, &self.bias[col..]));
        }
    }
}

struct Times<'a>(&'a mut [f32], &'a [f32]);

impl Kernel for Times<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        math::zip!(simd, self.0, self.1, |value, factor| simd.mul_f32s(value, factor));
    }
}

/// [`forward`] with packed weights.
///
/// # Panics
/// If the sizes do not fit.
pub fn forward_packed(isa: Isa, x: Matrix<'_>, w: Packed<'_>, bias: Option<&[f32]>, gelu: bool) -> Vec<f32> {
    assert!(bias.is_none_or(|bias| bias.len() == w.n), "a bias of {} values", w.n);
    let after = ScaleAndAdd { scales: w.scales, bias: bias.unwrap_or_default() };
    if gelu { matmul_packed(isa, x, w, Gelu, &after) } else { matmul_packed(isa, x, w, Nothing, &after) }
}

/// The gradient of `x` `[N, I]` from that of the output, `[N, O]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn backward_x(isa: Isa, precision: Precision, dy: Matrix<'_>, w: Matrix<'_>, gelu_at: Option<&[f32]>) -> Vec<f32> {
    match gelu_at {
        None => matmul(isa, precision, dy, w.transposed(), Nothing, &Nothing),
        Some(at) => {
            assert_eq!(at.len(), dy.rows() * w.rows(), "as many values as the gradient has");
            matmul(isa, precision, dy, w.transposed(), Nothing, &GeluBackward { at, cols: w.rows() })
        }
    }
}

/// The gradient of `w` `[I, O]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn backward_w(isa: Isa, precision: Precision, x: Matrix<'_>, dy: Matrix<'_>, gelu: bool) -> Vec<f32> {
    if gelu {
        matmul(isa, precision, x.transposed(), dy, Gelu, &Nothing)
    } else {
        matmul(isa, precision, x.transposed(), dy, Nothing, &Nothing)
    }
}

/// The sum of the rows of `x` `[N, C]`, the same for any number of threads: the gradient of a bias.
pub fn sum_rows(isa: Isa, x: &[f32], c: usize) -> Vec<f32> {
    let mut sum = vec![0.0; c];
    if x.is_empty() {
        return sum;
    }
    let rows = rows_per_task(x.len() / c, c);
    let parts: Vec<Vec<f32>> = x.par_chunks(rows * c).map(|x| dispatch(isa, SumRows(x, c))).collect();
    parts.iter().for_each(|part| sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part));
    sum
}

struct SumRows<'a>(&'a [f32], usize);

impl Kernel for SumRows<'_> {
    type Output = Vec<f32>;
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) -> Vec<f32> {
        let mut sum = vec![0.0; self.1];
        for row in self.0.chunks_exact(self.1) {
            math::add(simd, &mut sum, row);
        }
        sum
    }
}

/// Multiplies all values by a factor.
pub fn scale(isa: Isa, x: &mut [f32], factor: f32) {
    x.par_chunks_mut(VALUES_PER_TASK).for_each(|x| dispatch(isa, Scale(x, factor)));
}

struct Scale<'a>(&'a mut [f32], f32);

impl Kernel for Scale<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        math::scale(simd, self.0, self.1);
    }
}
