//! What the model promises beside parity with GPT-2, which `kindling-train` tests: the cache, the loss, the initial
//! weights, the file of weights.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{Dropout, ModelConfig, Seed};
use kindling_model::weights::{self, HostTensor, named_parameters, to_host};
use kindling_model::{DropoutKey, Gpt, ModelError, Pass, Sequence};

fn config() -> ModelConfig {
    ModelConfig {
        n_layers: 2,
        n_heads: 4,
        d_model: 32,
        d_ff: 64,
        context_len: 12,
        vocab_size: 29,
        bias: true,
        norm_eps: 1e-5,
        dropout: Dropout::NONE,
        n_classes: 0,
        pooling: kindling_config::Pooling::Last,
    }
}

/// A model whose attention is far from uniform, so that a wrong mask or position shows.
fn model() -> Gpt {
    let model = Gpt::new(&config(), Seed(4), &Device::flex());
    let scaled = named_parameters(&model).into_iter().map(|(name, mut tensor)| {
        let factor = if tensor.shape.len() == 2 { 10.0 } else { 1.0 };
        tensor.values.iter_mut().for_each(|value| *value *= factor);
        (name, tensor)
    });
    let scaled = scaled.collect();
    weights::with_parameters(model, scaled, std::path::Path::new("scaled")).unwrap()
}

fn ids(rows: &[Vec<i64>]) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(rows.concat(), [rows.len(), rows[0].len()]), &Device::flex())
}

fn row(n: usize, salt: i64) -> Vec<i64> {
    (0..n as i64).map(|i| (i * 7 + salt * 5 + i * i) % 29).collect()
}

fn worst(a: &HostTensor, b: &HostTensor) -> f32 {
    assert_eq!(a.shape, b.shape);
    a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Every place scored.
fn score(model: &Gpt, rows: &[Vec<i64>], targets: &[Vec<i64>], pass: &Pass) -> (Tensor<1>, Tensor<1, Int>) {
    let targets: Vec<u32> = targets.concat().into_iter().map(|id| id as u32).collect();
    model.score(ids(rows), &(0..targets.len()).collect::<Vec<_>>(), &targets, pass)
}

/// The logits [V] after the last of `tokens`, computed at once.
fn after(model: &Gpt, tokens: &[i64]) -> HostTensor {
    let t = tokens.len();
    to_host(model.forward(ids(&[tokens.to_vec()]), &Pass::default()).slice([0..1, t - 1..t, 0..29]).reshape([29]))
}

#[test]
fn rows_of_different_lengths_step_together_as_if_alone() {
    let model = model();
    let rows = [row(12, 1), row(12, 2), row(12, 3)];
    // Tokens that each row gets in each step.
    let steps = [[5, 1, 3], [1, 1, 1], [2, 4, 1], [1, 3, 4], [3, 3, 3]];
    let (mut cache, mut seen) = (model.cache(), [0usize; 3]);
    let mut sequences: [Sequence; 3] = std::array::from_fn(|_| Sequence::default());
    for n_new in steps {
        let new: Vec<Vec<u32>> = (0..3).map(|r| rows[r][seen[r]..seen[r] + n_new[r]].iter().map(|id| *id as u32).collect()).collect();
        let mut pairs: Vec<_> = sequences.iter_mut().zip(new.iter().map(Vec::as_slice)).collect();
        let logits = model.forward_cached(&mut pairs, &mut cache);
        for r in 0..3 {
            seen[r] += n_new[r];
            let cached = to_host(logits.clone().slice([r..r + 1, 0..29]).reshape([29]));
            let difference = worst(&cached, &after(&model, &rows[r][..seen[r]]));
            // Measured at most 4.8e-7.
            assert!(difference < 5e-6, "row {r} after {} tokens differs by {difference:.1e}", seen[r]);
        }
        assert_eq!(sequences.each_ref().map(Sequence::len), seen);
    }
    assert_eq!(seen, [12, 12, 12], "up to the context's border");
}

/// Rows of 2 to 40 tokens of a model that is large enough for products to be shared out among threads.
fn many_rows() -> (Gpt, Vec<Vec<u32>>) {
    let config = ModelConfig { d_model: 96, d_ff: 384, context_len: 48, vocab_size: 700, ..config() };
    let rows = (0..33).map(|row: u32| (0..2 + (row * 11) % 39).map(|i| (i * 37 + row * 101 + i * i) % 700).collect()).collect();
    (Gpt::new(&config, Seed(8), &Device::flex()), rows)
}

#[test]
fn a_row_has_the_same_bits_whatever_stands_beside_it() {
    let (model, rows) = many_rows();
    // Hidden states at the last token of each row, in batches of so many rows, each as long as its longest.
    let hidden = |n: usize| -> Vec<Vec<u32>> {
        let of_batch = |rows: &[Vec<u32>]| {
            let t = rows.iter().map(Vec::len).max().unwrap();
            let padded: Vec<Vec<i64>> =
                rows.iter().map(|row| row.iter().map(|id| i64::from(*id)).chain(std::iter::repeat(9)).take(t).collect()).collect();
            let all = to_host(model.forward(ids(&padded), &Pass::default())).values;
            let last = |(i, row): (usize, &Vec<u32>)| all[(i * t + row.len() - 1) * 700..][..700].iter().map(|x| x.to_bits()).collect();
            rows.iter().enumerate().map(last).collect::<Vec<_>>()
        };
        rows.chunks(n).flat_map(of_batch).collect()
    };
    let alone = hidden(1);
    for n in [2, 5, 12, 13, 33] {
        assert_eq!(hidden(n), alone, "{n} rows at once");
    }
}

#[test]
fn a_cached_row_has_the_same_bits_whatever_stands_beside_it() {
    let (model, rows) = many_rows();
    // Logits after every token but the first half, which is taken at once.
    let logits = |n: usize| -> Vec<Vec<Vec<u32>>> {
        let of_batch = |rows: &[Vec<u32>]| {
            let (mut cache, mut sequences) = (model.cache(), vec![Sequence::default(); rows.len()]);
            let mut found = vec![Vec::new(); rows.len()];
            for step in 0.. {
                let new = |row: &'_ Vec<u32>| if step == 0 { 0..row.len() / 2 } else { row.len() / 2 + step - 1..row.len() / 2 + step };
                let mut steps: Vec<(usize, &mut Sequence, &[u32])> =
                    sequences.iter_mut().enumerate().filter_map(|(i, sequence)| Some((i, sequence, rows[i].get(new(&rows[i]))?))).collect();
                if steps.is_empty() {
                    return found;
                }
                let which: Vec<usize> = steps.iter().map(|(i, ..)| *i).collect();
                let mut steps: Vec<_> = steps.drain(..).map(|(_, sequence, new)| (sequence, new)).collect();
                let out = to_host(model.forward_cached(&mut steps, &mut cache)).values;
                for (i, logits) in which.into_iter().zip(out.chunks(700)) {
                    found[i].push(logits.iter().map(|x| x.to_bits()).collect());
                }
            }
            unreachable!("rows end");
        };
        rows.chunks(n).flat_map(of_batch).collect()
    };
    let alone = logits(1);
    for n in [2, 7, 33] {
        assert_eq!(logits(n), alone, "{n} rows at once");
    }
}

#[test]
fn a_clone_of_a_sequence_goes_on_by_itself() {
    let model = model();
    let (mut cache, mut one) = (model.cache(), Sequence::default());
    let step = |sequence: &mut Sequence, new: &[u32], cache: &mut _| to_host(model.forward_cached(&mut [(sequence, new)], cache));
    step(&mut one, &[1, 2, 3], &mut cache);
    let mut other = one.clone();
    step(&mut one, &[4], &mut cache);
    let found = [step(&mut one, &[5], &mut cache), step(&mut other, &[5], &mut cache)];
    for (found, tokens) in found.iter().zip([&[1, 2, 3, 4, 5][..], &[1, 2, 3, 5]]) {
        let expected = after(&model, tokens);
        assert!(found.values.iter().zip(&expected.values).all(|(a, b)| (a - b).abs() < 5e-6), "{tokens:?}");
    }
}

#[test]
fn a_token_never_sees_a_later_one() {
    let model = model();
    let (a, mut b) = (row(12, 1), row(12, 1));
    b[7] = (b[7] + 1) % 29;
    let logits = |tokens: &[i64]| to_host(model.forward(ids(&[tokens.to_vec()]), &Pass::default()));
    let (a, b) = (logits(&a), logits(&b));
    assert_eq!(a.values[..7 * 29], b.values[..7 * 29]);
    assert_ne!(a.values[7 * 29..8 * 29], b.values[7 * 29..8 * 29]);
}

#[test]
fn a_token_sees_its_own_document_alone_where_it_is_told() {
    let model = model();
    // Documents of 5 and 7 tokens in the first row, and one in the second.
    let rows = [row(12, 1), row(12, 2)];
    let starts: Arc<[u32]> = [[0; 5].as_slice(), &[5; 7], &[0; 12]].concat().into();
    let masked = Pass { document_starts: Some(starts), ..Pass::default() };
    let logits = |rows: &[Vec<i64>], pass: &Pass| to_host(model.forward(ids(rows), pass)).values;
    let mut changed = rows.clone();
    changed[0][..5].copy_from_slice(&row(5, 3));
    let (first, second) = (0..5 * 29, 5 * 29..12 * 29);
    let [with, with_changed] = [&rows, &changed].map(|rows| logits(rows, &masked));
    let [without, without_changed] = [&rows, &changed].map(|rows| logits(rows, &Pass::default()));
    assert_eq!(with[second.clone()], with_changed[second.clone()]);
    assert_ne!(without[second.clone()], without_changed[second.clone()]);
    // What has nothing before it is as if there were no mask.
    assert_eq!((&with[first.clone()], &with[12 * 29..]), (&without[first], &without[12 * 29..]));
    assert_ne!(with[second.clone()], without[second]);

    // The loss is that of the documents apart, each where it stands: positions go on.
    let (targets, flex) = ([row(12, 3), row(12, 4)], Device::flex());
    let nats = |counted: std::ops::Range<usize>, rows: &[Vec<i64>], pass: &Pass| {
        let weights: Vec<f32> = (0..24).map(|i| f32::from(counted.contains(&i))).collect();
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [2, 12]), &flex);
        model.loss(ids(rows), ids(&targets), weights, pass).nats.into_scalar::<f32>()
    };
    let all = nats(0..24, &rows, &masked);
    let apart = nats(0..5, &rows, &Pass::default()) + nats(5..12, &changed, &masked) + nats(12..24, &rows, &Pass::default());
    // 97 nats, 0.6 more or less without the mask. Measured: no difference.
    assert!((all - apart).abs() < 1e-4, "{all} and {apart}");
    assert!((all - nats(0..24, &rows, &Pass::default())).abs() > 1e-2);
    let (scored, _) = score(&model, &rows, &targets, &masked);
    assert!((scored.sum().into_scalar::<f32>() - all).abs() < 1e-3);
}

#[test]
fn a_document_whose_positions_restart_is_as_in_a_row_of_its_own() {
    let model = model();
    let (first, second) = (row(5, 1), row(7, 2));
    let packed = Pass { document_starts: Some([[0; 5].as_slice(), &[5; 7]].concat().into()), restart_positions: true, ..Pass::default() };
    let logits = |row: &[i64], pass: &Pass| to_host(model.forward(ids(&[row.to_vec()]), pass)).values;
    let together = logits(&[first.clone(), second.clone()].concat(), &packed);
    let apart = [logits(&first, &Pass::default()), logits(&second, &Pass::default())].concat();
    let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Logits are around 1. Measured: no difference, and 0.2 where positions go on.
    assert!(difference(&together, &apart) < 1e-5);
    let on = logits(&[first, second].concat(), &Pass { restart_positions: false, ..packed });
    assert!(difference(&on, &apart) > 1e-2);
}

#[test]
fn only_counted_targets_count_and_a_row_does_not_depend_on_its_batch() {
    let model = model();
    let rows = [row(12, 1), row(12, 2)];
    let targets = [row(12, 3), row(12, 4)];
    let loss = |rows: &[Vec<i64>], targets: &[Vec<i64>], weights: Vec<f32>| {
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [rows.len(), 12]), &Device::flex());
        let loss = model.loss(ids(rows), ids(targets), weights, &Pass::default());
        (loss.nats.into_scalar::<f32>(), loss.weight.into_scalar::<f32>())
    };
    let (all, weight) = loss(&rows, &targets, vec![1.0; 24]);
    assert_eq!(weight, 24.0);
    let one_by_one: f32 = (0..24).map(|i| loss(&rows, &targets, (0..24).map(|j| f32::from(i == j)).collect()).0).sum();
    let row_by_row: f32 = (0..2).map(|r| loss(&rows[r..=r], &targets[r..=r], vec![1.0; 12]).0).sum();
    // 96 nats. Measured: one unit in the last place, 8e-6, apart.
    assert!((all - one_by_one).abs() < 1e-4 && (all - row_by_row).abs() < 1e-4, "{all}, {one_by_one}, {row_by_row}");

    let (nats, ranks) = score(&model, &rows, &targets, &Pass::default());
    assert!((nats.sum().into_scalar::<f32>() - all).abs() < 1e-3);
    let logits = to_host(model.forward(ids(&rows), &Pass::default()));
    let ranks: Vec<i64> = ranks.into_data().convert::<i64>().try_into_vec().unwrap();
    for ((logits, rank), target) in logits.values.chunks(29).zip(ranks).zip(targets.concat()) {
        assert_eq!(logits.iter().filter(|logit| **logit > logits[target as usize]).count() as i64, rank);
    }
}

#[test]
fn a_fresh_model_is_gpt2s() {
    let config = ModelConfig { n_layers: 8, d_model: 64, d_ff: 256, vocab_size: 500, ..config() };
    let model = Gpt::new(&config, Seed(9), &Device::flex());
    let parameters = named_parameters(&model);
    assert_eq!(parameters.iter().map(|(_, tensor)| tensor.values.len()).sum::<usize>(), config.n_params());
    for (name, HostTensor { values, shape }) in &parameters {
        let n = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let std = (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let expected = match name {
            name if name.ends_with("attn.proj.weight") || name.ends_with("mlp.down.weight") => 0.02 / 4.0, // sqrt(2·8)
            name if name.ends_with("weight") => 0.02,
            _ => 0.0,
        };
        // A sample's standard deviation varies by a factor of 1 ± 1/sqrt(2n), n at least 768 here: four of those are 10 %.
        assert!((std - expected).abs() <= 0.1 * expected, "{name} {shape:?}: standard deviation {std}, expected {expected}");
        let centre = if name.ends_with("gamma") { 1.0 } else { 0.0 };
        assert!((mean - centre).abs() <= 5.0 * expected / n.sqrt(), "{name}: mean {mean}");
    }
    let targets = ids(&[row(12, 2)]);
    let loss = model.loss(ids(&[row(12, 1)]), targets, Tensor::ones([1, 12], &Device::flex()), &Pass::default());
    let mean = loss.nats.into_scalar::<f32>() / 12.0;
    assert!((mean - 500f32.ln()).abs() < 0.2, "the loss of a fresh model is near ln(vocabulary): {mean}");
    assert_eq!(parameters, named_parameters(&Gpt::new(&config, Seed(9), &Device::flex())), "weights follow from the seed");
}

#[test]
fn dropout_acts_only_with_a_key_and_at_each_of_its_places() {
    let dropped = |dropout: Dropout, key| {
        let model = Gpt::new(&ModelConfig { dropout, ..config() }, Seed(4), &Device::flex());
        to_host(model.forward(ids(&[row(12, 1)]), &Pass { dropout: key, ..Pass::default() }))
    };
    let key = Some(DropoutKey { seed: 1, step: 2, first_row: 0 });
    let without = dropped(Dropout::NONE, key);
    for dropout in [
        Dropout { embedding: 0.3, ..Dropout::NONE },
        Dropout { attention: 0.3, ..Dropout::NONE },
        Dropout { residual: 0.3, ..Dropout::NONE },
        Dropout { word: 0.3, ..Dropout::NONE },
    ] {
        assert_ne!(dropped(dropout, key), without, "{dropout:?}");
        assert_eq!(dropped(dropout, None), without, "{dropout:?}");
        assert_eq!(dropped(dropout, key), dropped(dropout, key), "{dropout:?}");
    }
}

#[test]
fn saved_weights_are_loaded_and_damaged_or_foreign_ones_refused() {
    let dir = std::env::temp_dir().join(format!("kindling-weights-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("model.safetensors");
    let model = model();
    weights::save(&model, &path).unwrap();
    let load = |config: &ModelConfig| weights::load(&path, config, &Device::flex());
    assert_eq!(named_parameters(&load(&config()).unwrap()), named_parameters(&model));
    for other in [
        ModelConfig { n_layers: 1, ..config() },
        ModelConfig { n_layers: 3, ..config() },
        ModelConfig { vocab_size: 30, ..config() },
        ModelConfig { bias: false, ..config() },
    ] {
        assert!(matches!(load(&other), Err(ModelError::Tensor { .. })), "{other:?}");
    }
    let bytes = std::fs::read(&path).unwrap();
    for len in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(matches!(load(&config()), Err(ModelError::Format { .. })), "{len} bytes");
    }
    assert!(matches!(weights::load(&dir.join("none"), &config(), &Device::flex()), Err(ModelError::Io { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}
