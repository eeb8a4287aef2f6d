//! Products of factors rounded to bf16: against sums in f64 of the rounded factors, and operations against the same in f32. On
//! every instruction set that this processor has: those without instructions for bf16 emulate them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_kernels::cpu::matmul::{Matrix, Nothing, matmul, matmul_add};
use kindling_kernels::{Form, Isa, LossTerms, Precision, gelu_linear, linear, linear_cross_entropy, stream, with_form};
use proptest::prelude::*;

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn values(salt: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (stream(salt, &[i]) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// The nearest bf16, by a search: bf16 is what the upper half of an f32 can say.
fn rounded(x: f32) -> f32 {
    let below = f32::from_bits(x.to_bits() & 0xffff_0000);
    let above = f32::from_bits((x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
    let [to_below, to_above] = [below, above].map(|y| (f64::from(y) - f64::from(x)).abs());
    let below_is_even = below.to_bits() & 0x1_0000 == 0;
    if to_below < to_above || to_below == to_above && below_is_even { below } else { above }
}

fn product(isa: Isa, x: f32, y: f32) -> f32 {
    let c = matmul(isa, Precision::Bf16, Matrix::new(&[x], 1, 1), Matrix::new(&[y], 1, 1), Nothing, &Nothing);
    c[0]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_of_rounded_factors(m in 0usize..170, n in 0usize..170, k in 0usize..1100, a_turned: bool, b_turned: bool) {
        let (a, b) = (values(1, m * k), values(2, k * n));
        let [a_rounded, b_rounded] = [&a, &b].map(|values| values.iter().map(|value| f64::from(rounded(*value))).collect::<Vec<_>>());
        let a_at = |i: usize, p: usize| a_rounded[if a_turned { p * m + i } else { i * k + p }];
        let b_at = |p: usize, j: usize| b_rounded[if b_turned { j * k + p } else { p * n + j }];
        let left = if a_turned { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
        let right = if b_turned { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
        for isa in available() {
            let c = matmul(isa, Precision::Bf16, left, right, Nothing, &Nothing);
            let mut twice = c.clone();
            matmul_add(isa, Precision::Bf16, left, right, &mut twice);
            // Some elements, near the borders of tiles and blocks.
            for (i, j) in (0..m).step_by(7).chain(m.checked_sub(1)).flat_map(|i| (0..n).step_by(11).chain(n.checked_sub(1)).map(move |j| (i, j))) {
                let expected: f64 = (0..k).map(|p| a_at(i, p) * b_at(p, j)).sum();
                // Unrounded factors would differ by some 1e-2.
                prop_assert!((f64::from(c[i * n + j]) - expected).abs() < 1e-4, "{isa} ({i}, {j}): {} for {expected}", c[i * n + j]);
                prop_assert!((f64::from(twice[i * n + j]) - 2.0 * expected).abs() < 2e-4, "{isa} ({i}, {j}), added");
            }
        }
    }

    #[test]
    fn values_round_to_the_nearest(bits: u32) {
        let x = f32::from_bits(bits);
        // What rounds to infinity is tested below, and what is too small for a normal number counts as zero on some processors.
        prop_assume!(x.is_normal() && x.abs() < 3e38);
        for isa in available() {
            prop_assert_eq!(product(isa, x, 1.0), rounded(x), "{}", isa);
            prop_assert_eq!(product(isa, 1.0, x), rounded(x), "{}", isa);
        }
    }

    /// Of enough rows and columns for one of them to hold a sum that does not cancel out.
    #[test]
    fn gradients_are_near_those_of_f32(n in 8usize..150, i in 8usize..80, o in 8usize..150, gelu: bool) {
        let layer = if gelu { gelu_linear } else { linear };
        compare(|precision| {
            let device = Device::flex().autodiff();
            let (x, w) = (tensor(1, [n, i], &device).require_grad(), tensor(2, [i, o], &device).require_grad());
            let bias = Tensor::<1>::from_data(TensorData::new(values(3, o), [o]), &device).require_grad();
            let y = layer(x.clone() * 3.0, w.clone(), Some(bias.clone()), precision);
            let grads = (y.clone() * tensor(4, [n, o], &device)).sum().backward();
            vec![host(y.inner()), host(x.grad(&grads).unwrap()), host(w.grad(&grads).unwrap()), host(bias.grad(&grads).unwrap())]
        })?;
    }

    /// As a trained model has them: rows of about unit values, and logits of a few nats.
    #[test]
    fn losses_are_near_those_of_f32(n in 8usize..100, c in 8usize..60, v in 8usize..150) {
        compare(|precision| {
            let device = Device::flex().autodiff();
            let (x, table) = (tensor(1, [n, c], &device).require_grad(), tensor(2, [v, c], &device).require_grad());
            let targets: Vec<i64> = (0..n as u64).map(|i| (stream(5, &[i]) % v as u64) as i64).collect();
            let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), &device);
            let nats = linear_cross_entropy(x.clone(), table.clone() * 0.3, targets, Tensor::ones([n], &device), LossTerms::default(), precision);
            let grads = nats.clone().backward();
            vec![host(nats.inner()), host(x.grad(&grads).unwrap()), host(table.grad(&grads).unwrap())]
        })?;
    }
}

fn tensor<const D: usize>(salt: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values(salt, shape.iter().product()), shape), device)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// Computes in both precisions and compares, relative to the largest value of each tensor.
///
/// The bound is 1 %. Measured over 2,000 cases an operation: at most 0.5 %.
fn compare(compute: impl Fn(Precision) -> Vec<Vec<f32>>) -> Result<(), TestCaseError> {
    let expected = with_form(Form::Composed, || compute(Precision::F32));
    for isa in available() {
        let found = with_form(Form::Fused(isa), || compute(Precision::Bf16));
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let largest = expected.iter().fold(0.1f32, |largest, value| largest.max(value.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest).fold(0.0, |a: f32, b| if b <= a { a } else { b });
            prop_assert!(worst <= 0.01, "tensor {} differs by {:.1e} with {}", i, worst, isa);
        }
    }
    Ok(())
}

#[test]
fn what_is_no_number_passes_as_such() {
    for isa in available() {
        for nan in [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
            assert!(product(isa, nan, 1.0).is_nan() && product(isa, 1.0, nan).is_nan(), "{isa}");
        }
        assert_eq!(product(isa, f32::INFINITY, -1.0), f32::NEG_INFINITY, "{isa}");
        // Nearer to 2^128 than to the largest bf16.
        assert_eq!(product(isa, f32::MAX, 1.0), f32::INFINITY, "{isa}");
        // Ties, to even: 1 + 2^-8 and 1 + 3·2^-8.
        assert_eq!(product(isa, 1.0 + 1.0 / 256.0, 1.0), 1.0, "{isa}");
        assert_eq!(product(isa, 1.0 + 3.0 / 256.0, 1.0), 1.015_625, "{isa}");
    }
}

/// Nothing is near f32 because it is f32: outputs and gradients differ by what rounding to 8 bits does.
#[test]
fn every_product_is_rounded() {
    let device = Device::flex().autodiff();
    let computed = |precision| {
        let (x, w) = (tensor(1, [40, 30], &device).require_grad(), tensor(2, [30, 50], &device).require_grad());
        let y = linear(x.clone(), w.clone(), None, precision);
        let grads = (y.clone() * tensor(4, [40, 50], &device)).sum().backward();
        let targets = Tensor::<1, Int>::zeros([40], &device);
        let nats =
            linear_cross_entropy(x.clone(), w.clone().transpose(), targets, Tensor::ones([40], &device), LossTerms::default(), precision);
        let of_loss = nats.clone().backward();
        let gradients = [x.grad(&grads), w.grad(&grads), x.grad(&of_loss), w.grad(&of_loss)];
        let mut all = vec![host(y.inner()), host(nats.inner())];
        all.extend(gradients.map(|gradient| host(gradient.unwrap())));
        all
    };
    for isa in available() {
        let [found, exact] = [Precision::Bf16, Precision::F32].map(|precision| with_form(Form::Fused(isa), || computed(precision)));
        for (i, (found, exact)) in found.iter().zip(&exact).enumerate() {
            let worst = found.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst > 1e-4, "tensor {i} is in f32 with {isa}: {worst:.1e}");
        }
    }
}
