//! Every fused operation equals its composed form, forward and backward, over random shapes and on every instruction set
//! that this processor has.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_kernels::cpu::attention::AttentionShape;
use kindling_kernels::{
    CachedRow, Dropout, Form, Isa, KvTables, LossTerms, Mask, Precision, attention, causal_attention, cross_entropy, dropout, embedding,
    gelu_linear, layer_norm, linear, linear_cross_entropy, linear_logits, linear_nats, stream, with_form,
};
use proptest::prelude::*;

/// The largest difference that is let through, relative to the largest value of a tensor. Measured over 2,000 cases an
/// operation: at most 1.2e-5 in layer norms of rows of two nearly equal values, where both forms lose digits, 8.5e-6 in
/// gradients of cross-entropies over a vocabulary of one, which are zero but for rounding, 4.5e-6 elsewhere.
const TOLERANCE: f32 = 5e-5;

/// Values between -1 and 1, the same for the same salt.
fn values(salt: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (stream(salt, &[i]) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

fn tensor<const D: usize>(salt: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values(salt, shape.iter().product()), shape), device)
}

fn ids(salt: u64, n: usize, below: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i64> = (0..n as u64).map(|i| (stream(salt, &[i]) % below as u64) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [n]), device)
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The output and the gradients of inputs of given shapes: matrices, then vectors.
type Computed = Vec<(String, Vec<f32>)>;

/// Computes `f` of random inputs on an autodiff device and differentiates a random weighting of its output.
fn computed<const O: usize>(
    matrices: &[[usize; 2]],
    vectors: &[usize],
    f: impl Fn(Vec<Tensor<2>>, Vec<Tensor<1>>, &Device) -> Tensor<O>,
) -> Computed {
    let device = Device::flex().autodiff();
    let matrices: Vec<_> = matrices.iter().enumerate().map(|(i, shape)| tensor(i as u64, *shape, &device).require_grad()).collect();
    let vectors: Vec<_> = vectors.iter().enumerate().map(|(i, n)| tensor(100 + i as u64, [*n], &device).require_grad()).collect();
    let out = f(matrices.clone(), vectors.clone(), &device);
    let weights = tensor(200, out.dims(), &device);
    let grads = (out.clone() * weights).sum().backward();
    let mut all = vec![("output".to_owned(), host(out.inner()))];
    all.extend(matrices.iter().enumerate().map(|(i, m)| (format!("gradient of matrix {i}"), host(m.grad(&grads).unwrap()))));
    all.extend(vectors.iter().enumerate().map(|(i, v)| (format!("gradient of vector {i}"), host(v.grad(&grads).unwrap()))));
    all
}

/// Both computed on every instruction set, and compared.
fn check(fused: impl Fn() -> Computed, composed: impl Fn() -> Computed) -> Result<(), TestCaseError> {
    let expected = composed();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let found = with_form(Form::Fused(isa), &fused);
        prop_assert_eq!(found.len(), expected.len());
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            prop_assert_eq!(found.len(), expected.len());
            // A tenth at least: where the exact value is zero, as with a vocabulary of one, all that is left is rounding.
            let largest = expected.iter().fold(0.1f32, |largest, value| largest.max(value.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / largest).fold(0.0, |a: f32, b| if b <= a { a } else { b });
            prop_assert!(worst <= TOLERANCE, "{} differs by {:.1e} with {}", name, worst, isa);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn linear_layers(n in 1usize..150, i in 1usize..80, o in 1usize..150, bias: bool, gelu: bool) {
        let vectors = if bias { vec![o] } else { vec![] };
        let compute = |f: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>| computed(&[[n, i], [i, o]], &vectors, |m, v, _| {
            // GELU bends between -3 and 3.
            f(m[0].clone() * 3.0, m[1].clone(), v.first().cloned())
        });
        if gelu {
            check(|| compute(|x, w, bias| gelu_linear(x, w, bias, Precision::F32)), || compute(linear::composed_gelu))?;
        } else {
            check(|| compute(|x, w, bias| linear(x, w, bias, Precision::F32)), || compute(linear::composed))?;
        }
    }

    #[test]
    fn layer_norms(n in 1usize..200, c in 2usize..200, bias: bool) {
        let vectors = if bias { vec![c, c] } else { vec![c] };
        let compute = |f: fn(Tensor<2>, Tensor<1>, Option<Tensor<1>>, f64) -> Tensor<2>| computed(&[[n, c]], &vectors, |m, v, _| {
            f(m[0].clone() * 2.0 + 0.7, v[0].clone(), v.get(1).cloned(), 1e-5)
        });
        check(|| compute(layer_norm), || compute(layer_norm::composed))?;
    }

    #[test]
    fn attentions(b in 1usize..4, t in 1usize..140, h in 1usize..4, e in 1usize..50, p in prop_oneof![Just(0.0), Just(0.3)], documents in 0u64..3) {
        let shape = AttentionShape { n_seqs: b, len: t, n_heads: h, head_dim: e };
        let streams = (0..b as u64).map(|i| stream(9, &[i])).collect();
        // Documents of some 20 tokens, of which some begin with padding that sees nothing.
        let first = |i: usize| {
            let (t, begin) = ((i % t) as u64, (i % t / 20 * 20) as u64);
            if documents == 2 && t < begin + 3 { t as u32 + 1 } else { begin as u32 }
        };
        let mask = Mask {
            first: (documents > 0).then(|| (0..b * t).map(first).collect()),
            dropout: (p > 0.0).then(|| Arc::new(Dropout { p, one_mask: false, streams })),
        };
        let compute = |f: &dyn Fn(Tensor<2>) -> Tensor<2>| computed(&[[b * t, 3 * h * e]], &[], |m, _, _| f(m[0].clone() * 3.0));
        check(|| compute(&|x| causal_attention(x, b, h, &mask)), || compute(&|x| attention::composed(x, shape, &mask)))?;
    }

    #[test]
    fn cross_entropies(n in 1usize..100, c in 1usize..60, v in 1usize..150, smoothing in prop_oneof![Just(0.0), Just(0.1)], z_loss in prop_oneof![Just(0.0), Just(0.02)], ignored: bool) {
        let terms = LossTerms { label_smoothing: smoothing, z_loss };
        let compute = |f: fn(Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>, LossTerms) -> Tensor<1>| computed(&[[n, c], [v, c]], &[], |m, _, device| {
            let weights = (0..n).map(|i| if ignored && i % 3 == 0 { 0.0 } else { 1.0 + i as f32 / n as f32 }).collect::<Vec<f32>>();
            let weights = Tensor::from_data(TensorData::new(weights, [n]), device);
            f(m[0].clone() * 2.0, m[1].clone() * 2.0, ids(5, n, v, device), weights, terms)
        });
        check(|| compute(|x, table, ids, weights, terms| linear_cross_entropy(x, table, ids, weights, terms, Precision::F32)), || compute(cross_entropy::composed))?;
    }

    #[test]
    fn nats_and_ranks(n in 1usize..100, c in 1usize..60, v in 1usize..150, all_alike: bool) {
        let device = Device::flex();
        let factor = if all_alike { 0.0 } else { 1.0 };
        let compute = || linear_nats(tensor(1, [n, c], &device) * factor, tensor(2, [v, c], &device), ids(5, n, v, &device));
        let (expected, ranks) = with_form(Form::Composed, compute);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let (found, found_ranks) = with_form(Form::Fused(isa), compute);
            prop_assert!((found - expected.clone()).abs().max().into_scalar::<f32>() < 1e-5);
            let found_ranks: Vec<i64> = found_ranks.into_data().iter::<i64>().collect();
            prop_assert_eq!(&found_ranks, &ranks.to_data().iter::<i64>().collect::<Vec<_>>());
            if all_alike {
                // The first of those that are as likely is ahead of the others.
                prop_assert_eq!(found_ranks, ids(5, n, v, &device).into_data().iter::<i64>().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn embeddings(n in 1usize..200, c in 1usize..80, v in 1usize..60) {
        let compute = |f: fn(Tensor<2>, Tensor<1, Int>) -> Tensor<2>| computed(&[[v, c]], &[], |m, _, device| f(m[0].clone(), ids(3, n, v, device)));
        check(|| compute(embedding), || compute(embedding::composed))?;
    }

    #[test]
    fn dropouts(b in 1usize..5, t in 1usize..60, c in 1usize..90, p in 0.0f64..0.95, one_mask: bool) {
        let dropped = Arc::new(Dropout { p, one_mask, streams: (0..b as u64).map(|i| stream(1, &[i])).collect() });
        let compute = |f: &dyn Fn(Tensor<2>) -> Tensor<2>| computed(&[[b * t, c]], &[], |m, _, _| f(m[0].clone()));
        check(|| compute(&|x| dropout(x, &dropped)), || compute(&|x| dropout::composed(x, &dropped)))?;
    }
}

/// Wider than what is copied of B at once, and of few rows, where threads share out the columns: biases and derivatives must
/// meet their own columns.
#[test]
fn wide_layers() {
    for (n, i, o) in [(3, 90, 7000), (150, 9, 7000), (3, 7000, 90), (150, 7000, 9)] {
        let compute = |f: fn(Tensor<2>, Tensor<2>, Option<Tensor<1>>) -> Tensor<2>| {
            computed(&[[n, i], [i, o]], &[o], |m, v, _| f(m[0].clone() * 3.0, m[1].clone(), v.first().cloned()))
        };
        check(|| compute(|x, w, bias| gelu_linear(x, w, bias, Precision::F32)), || compute(linear::composed_gelu)).unwrap();
        check(|| compute(|x, w, bias| linear(x, w, bias, Precision::F32)), || compute(linear::composed)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn attention_to_slots(
        lens in prop::collection::vec((1usize..70, 0usize..70), 1..6), e in 1usize..40, n_heads in 1usize..4, is_bf16: bool, in_order: bool, salt: u64
    ) {
        let (device, c) = (Device::flex(), e * n_heads);
        let precision = if is_bf16 { Precision::Bf16 } else { Precision::F32 };
        // On both sides of the border of a block.
        let known: Vec<u32> = (980..1070).collect();
        // Slots in any order, or one behind the other, some of them shared.
        let slot = |row: u64, i: u64| {
            let place = if in_order { 17 * row + i } else { stream(salt, &[row, i]) };
            known[(place % known.len() as u64) as usize]
        };
        let slots: Vec<Vec<u32>> =
            lens.iter().enumerate().map(|(row, (new, seen))| (0..(new + seen) as u64).map(|i| slot(row as u64, i)).collect()).collect();
        let rows: Vec<CachedRow<'_>> = slots.iter().zip(&lens).map(|(slots, (new, _))| CachedRow { slots, n_new: *new }).collect();
        let first: Vec<CachedRow<'_>> = known.chunks(1).map(|slots| CachedRow { slots, n_new: 1 }).collect();
        let n = lens.iter().map(|(new, _)| new).sum::<usize>();
        let on = |device: &Device, form: Option<Form>, precision: Precision| {
            let compute = || {
                let mut tables = KvTables::new(2, n_heads, c, precision, device);
                for n_slots in [700, 1070] {
                    tables.grow(n_slots);
                }
                // In another layer is something else.
                let out = [(0, 1), (1, 2), (0, 3)].map(|(layer, salt)| {
                    let (rows, n) = if salt == 3 { (&rows, n) } else { (&first, first.len()) };
                    host(tables.attend(layer, tensor::<2>(salt, [n, 3 * c], device) * 2.0, rows))
                });
                ["first", "other layer", "output"].into_iter().map(str::to_owned).zip(out).collect()
            };
            form.map_or_else(compute, |form| with_form(form, compute))
        };
        check(|| on(&device, None, precision), || on(&device, Some(Form::Composed), precision))?;
        // As devices without kernels have them: in one piece that grows, and in f32.
        check(|| on(&device, None, Precision::F32), || on(&device.clone().autodiff(), None, precision))?;
    }

    #[test]
    fn logits_of_rows(n in 1usize..60, c in 1usize..60, v in 1usize..150) {
        let device = Device::flex();
        let (x, table) = (tensor(1, [n, c], &device), tensor(2, [v, c], &device));
        let of = |form: Option<Form>| {
            let compute = || host(linear_logits(x.clone(), table.clone()));
            vec![("output".to_owned(), form.map_or_else(compute, |form| with_form(form, compute)))]
        };
        check(|| of(None), || of(Some(Form::Composed)))?;
    }
}
