//! Matrix products against sums in f64, AdamW against Burn's, numbers that are none, and what is dropped.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use kindling_kernels::cpu::cross_entropy::{Targets, Wanted, linear as cross_entropy_of_rows};
use kindling_kernels::cpu::matmul::{Matrix, Nothing, matmul, matmul_add};
use kindling_kernels::{
    Dropout, Form, Isa, LossTerms, Mask, Precision, adamw, adamw_step, causal_attention, gelu_linear, layer_norm, linear,
    linear_cross_entropy, stream, sum_of_squares, with_form,
};
use proptest::prelude::*;

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

fn values(salt: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (stream(salt, &[i]) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn matrix_products(m in 0usize..170, n in 0usize..170, k in 0usize..600, a_turned: bool, b_turned: bool) {
        let (a, b) = (values(1, m * k), values(2, k * n));
        let a_at = |i: usize, p: usize| if a_turned { a[p * m + i] } else { a[i * k + p] };
        let b_at = |p: usize, j: usize| if b_turned { b[j * k + p] } else { b[p * n + j] };
        let left = if a_turned { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
        let right = if b_turned { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
        for isa in available() {
            let c = matmul(isa, Precision::F32, left, right, Nothing, &Nothing);
            let mut twice = c.clone();
            matmul_add(isa, Precision::F32, left, right, &mut twice);
            // Some elements, near the borders of tiles and blocks.
            for (i, j) in (0..m).step_by(7).chain(m.checked_sub(1)).flat_map(|i| (0..n).step_by(11).chain(n.checked_sub(1)).map(move |j| (i, j))) {
                let expected: f64 = (0..k).map(|p| f64::from(a_at(i, p)) * f64::from(b_at(p, j))).sum();
                // Measured at most 1.4e-5 over 1,000 cases.
                prop_assert!((f64::from(c[i * n + j]) - expected).abs() < 5e-5, "{isa} ({i}, {j}): {} for {expected}", c[i * n + j]);
                prop_assert!((f64::from(twice[i * n + j]) - 2.0 * expected).abs() < 1e-4, "{isa} ({i}, {j}), added");
            }
        }
    }

    #[test]
    fn adamw_is_burns(n in 1usize..40_000, steps in 1usize..4, weight_decay in prop_oneof![Just(0.0), Just(0.1)], grad_scale in prop_oneof![Just(1.0), Just(0.3)]) {
        let device = Device::flex();
        let tensor = |salt| Tensor::<1>::from_data(TensorData::new(values(salt, n), [n]), &device);
        let run = || {
            let (mut parameter, mut moments) = (tensor(0), None);
            for time in 1..=steps {
                let step = adamw::Step { lr: 0.01, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8, weight_decay, time, grad_scale };
                let (next, then) = adamw_step(parameter, tensor(time as u64), moments, &step);
                (parameter, moments) = (next, Some(then));
            }
            parameter
        };
        let expected = with_form(Form::Composed, run);
        for isa in available() {
            let found = with_form(Form::Fused(isa), run);
            // Measured at most 1.8e-7 over 1,000 cases, of parameters up to 1.
            prop_assert!((found - expected.clone()).abs().max().into_scalar::<f32>() < 3e-6, "{isa}");
        }
    }
}

/// Computes on every instruction set and gives the output's values.
fn outputs<const D: usize>(compute: impl Fn() -> Tensor<D>) -> Vec<Vec<f32>> {
    available().map(|isa| with_form(Form::Fused(isa), || compute().into_data().try_to_vec().unwrap())).collect()
}

#[test]
fn what_is_no_number_passes_as_such() {
    let device = Device::flex();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let with_bad = |rows: usize, cols: usize| {
            let mut values = values(1, rows * cols);
            values[cols + 2] = bad;
            Tensor::<2>::from_data(TensorData::new(values, [rows, cols]), &device)
        };
        let w = || Tensor::<2>::from_data(TensorData::new(values(2, 24 * 24), [24, 24]), &device);
        // Row 1 of the input is bad, and of the output row 1 alone.
        let check = |name: &str, outputs: Vec<Vec<f32>>, cols: usize| {
            for out in outputs {
                for (i, row) in out.chunks(cols).enumerate() {
                    assert_eq!(row.iter().all(|value| value.is_finite()), i != 1, "{name} of {bad}, row {i}: {row:?}");
                }
            }
        };
        // The negative infinity of GELU is 0 times infinity, as in PyTorch.
        check("gelu_linear", outputs(|| gelu_linear(with_bad(3, 24), w(), None, Precision::F32)), 24);
        check("layer_norm", outputs(|| layer_norm(with_bad(3, 24), Tensor::ones([24], &device), None, 1e-5)), 24);
        // Of two sequences of one token the second is bad.
        check("attention", outputs(|| causal_attention(with_bad(2, 3), 2, 1, &Mask::default())), 1);
        for out in outputs(|| {
            let targets = Tensor::from_data([0, 1, 2], &device);
            linear_cross_entropy(with_bad(3, 24), w(), targets, Tensor::ones([3], &device), LossTerms::default(), Precision::F32)
        }) {
            assert!(!out[0].is_finite(), "cross-entropy of {bad}: {out:?}");
        }
    }
}

#[test]
fn a_logit_that_is_no_number_makes_the_loss_none() {
    let device = Device::flex();
    let nats = outputs(|| {
        // The second of three logits, and not the target: what is taken of it is its exponential alone.
        let table = Tensor::<2>::from_floats([[0.5], [f32::NAN], [-0.5]], &device);
        let x = Tensor::<2>::from_floats([[1.0]], &device);
        linear_cross_entropy(x, table, Tensor::from_data([0], &device), Tensor::ones([1], &device), LossTerms::default(), Precision::F32)
    });
    assert!(nats.iter().all(|nats| nats[0].is_nan()), "{nats:?}");
}

#[test]
fn scores_beyond_all_exponentials_still_give_probabilities() {
    let device = Device::flex();
    for out in outputs(|| {
        causal_attention(Tensor::<2>::from_data(TensorData::new(values(1, 64 * 48), [64, 48]), &device) * 1e9, 2, 2, &Mask::default())
    }) {
        assert!(out.iter().all(|value| value.is_finite()), "{out:?}");
    }
}

#[test]
fn exponentials_are_right_to_the_last_places() {
    // The cross-entropy of two logits, 0 and x, with the first as the target: ln(1 + e^x).
    let device = Device::flex();
    for x in (-800..880).map(|x| x as f32 / 10.0) {
        let nats = outputs(|| {
            let input = Tensor::<2>::from_floats([[1.0]], &device);
            let table = Tensor::<2>::from_floats([[0.0], [x]], &device);
            linear_cross_entropy(
                input,
                table,
                Tensor::from_data([0], &device),
                Tensor::ones([1], &device),
                LossTerms::default(),
                Precision::F32,
            )
        });
        let expected = f64::from(x).exp().ln_1p();
        for nats in nats {
            assert!((f64::from(nats[0]) - expected).abs() <= 2e-7 * expected.max(1.0), "{x}: {} for {expected}", nats[0]);
        }
    }
}

#[test]
fn the_share_dropped_is_p_and_the_mean_is_one() {
    for p in [0.1, 0.5] {
        let dropout = Dropout { p, one_mask: false, streams: (0..10).map(|i| stream(1, &[i])).collect() };
        let rows: Vec<Vec<f32>> = available()
            .map(|isa| (0..10).flat_map(|s| (0..20).flat_map(|r| dropout.row(isa, s, r, 1000)).collect::<Vec<_>>()).collect())
            .collect();
        assert!(rows.iter().all(|row| *row == rows[0]), "every instruction set drops the same");
        let dropped = rows[0].iter().filter(|factor| **factor == 0.0).count() as f64 / rows[0].len() as f64;
        // 200,000 draws: standard deviation below 0.0012.
        assert!((dropped - p).abs() < 0.005, "{dropped}");
        let mean = rows[0].iter().map(|factor| f64::from(*factor)).sum::<f64>() / rows[0].len() as f64;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
    }
}

#[test]
fn rows_sequences_and_streams_drop_apart() {
    let dropout = Arc::new(Dropout { p: 0.5, one_mask: false, streams: vec![stream(1, &[0]), stream(1, &[1])] });
    let row = |sequence, row| dropout.row(Isa::Portable, sequence, row, 4096);
    for other in [row(0, 1), row(1, 0), row(1, 1)] {
        let equal = row(0, 0).iter().zip(&other).filter(|(a, b)| a == b).count() as f64 / 4096.0;
        // Independent draws agree in half of the places, with a standard deviation of 0.0078.
        assert!((equal - 0.5).abs() < 0.04, "{equal}");
    }
}

#[test]
fn a_long_sum_comes_out_the_same_each_time() {
    let n = 5_000_000;
    let tensor = Tensor::<1>::from_data(TensorData::new(values(3, n), [n]), &Device::flex());
    let first = sum_of_squares(tensor.clone());
    assert!((first / n as f64 - 1.0 / 3.0).abs() < 1e-3, "{first}");
    for _ in 0..5 {
        assert_eq!(sum_of_squares(tensor.clone()), first);
    }
}

#[test]
fn one_mask_is_the_same_in_every_row() {
    for one_mask in [true, false] {
        let dropout = Dropout { p: 0.5, one_mask, streams: vec![stream(1, &[0]), stream(1, &[1])] };
        let row = |sequence, row| dropout.row(Isa::detect(), sequence, row, 64);
        assert_eq!(row(0, 0) == row(0, 7), one_mask);
        assert_ne!(row(0, 0), row(1, 0), "sequences differ");
    }
}

#[test]
fn the_z_loss_is_the_square_of_ln_z() {
    let device = Device::flex();
    let terms = LossTerms { label_smoothing: 0.0, z_loss: 0.1 };
    // All of 50 logits are 0: Z is 50.
    for form in [Form::Composed, Form::Fused(Isa::detect())] {
        let nats = with_form(form, || {
            let (x, table) = (Tensor::zeros([3, 8], &device), Tensor::ones([50, 8], &device));
            linear_cross_entropy(x, table, Tensor::from_data([0, 1, 2], &device), Tensor::ones([3], &device), terms, Precision::F32)
        });
        let ln_z = 50f32.ln();
        let expected = 3.0 * (ln_z + 0.1 * ln_z * ln_z);
        assert!((nats.into_scalar::<f32>() - expected).abs() < 1e-4);
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_changes_no_other() {
    let device = Device::flex().autodiff();
    let matrix = |n: usize, m: usize, salt: usize| {
        let values = (0..n * m).map(|i| ((i * 37 + salt * 11) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
        Tensor::<2>::from_data(TensorData::new(values, [n, m]), &device)
    };
    let loss_of = |x: Tensor<2>, table: Tensor<2>| {
        let (targets, weights) = (Tensor::from_data([0, 5, 2], &device), Tensor::ones([3], &device));
        linear_cross_entropy(x, table, targets, weights, LossTerms { label_smoothing: 0.1, z_loss: 0.01 }, Precision::F32)
    };
    type Operation<'a> = &'a dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>;
    let operations: [(&str, [usize; 2], Operation<'_>); 3] = [
        ("linear", [8, 6], &|x, w| linear(x, w, None, Precision::F32).square().sum()),
        ("gelu_linear", [8, 6], &|x, w| gelu_linear(x, w, None, Precision::F32).square().sum()),
        ("cross-entropy", [6, 8], &loss_of),
    ];
    for form in [Form::Composed, Form::Fused(Isa::detect())] {
        for (name, [n, m], operation) in operations {
            let gradients = |is_frozen: bool| {
                let (x, w) = (matrix(3, 8, 1).require_grad(), matrix(n, m, 2).set_require_grad(!is_frozen));
                let grads = with_form(form, || operation(x.clone(), w.clone()).backward());
                (x.grad(&grads).unwrap().into_data(), w.grad(&grads))
            };
            let ((d_x, d_w), (d_x_alone, frozen)) = (gradients(false), gradients(true));
            assert!(d_w.is_some() && frozen.is_none(), "{name}");
            assert_eq!(d_x, d_x_alone, "{name}");
        }
    }
    // Asked for no gradient of the table, none is computed.
    let (x, table, targets) = ([0.5f32; 6], [0.25f32; 8], Targets { ids: &[0, 1, 2], weights: &[1.0; 3], terms: LossTerms::default() });
    let (x, table) = (Matrix::new(&x, 3, 2), Matrix::new(&table, 4, 2));
    let (_, gradients) = cross_entropy_of_rows(Isa::detect(), Precision::F32, x, table, targets, Wanted::X);
    assert!(gradients.is_some_and(|(d_x, d_table)| d_x.len() == 6 && d_table.is_none()));
}
