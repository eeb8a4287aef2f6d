//! What the model promises beside parity with GPT-2, which `kindling-train` tests: the cache, the loss, the initial
//! weights, the file of weights.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{Dropout, ModelConfig, Seed};
use kindling_model::weights::{self, HostTensor, named_parameters, to_host};
use kindling_model::{DropoutKey, Gpt, ModelError, Pass};

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

/// The logits [V] after the last of `tokens`, computed at once.
fn after(model: &Gpt, tokens: &[i64]) -> HostTensor {
    let t = tokens.len();
    to_host(model.forward(ids(&[tokens.to_vec()]), &Pass::default()).slice([0..1, t - 1..t, 0..29]).reshape([29]))
}

#[test]
fn rows_of_different_lengths_step_together_as_if_alone() {
    let model = model();
    let rows = [row(12, 1), row(12, 2), row(12, 3)];
    // Tokens that each row gets in each step; the widest row sets the width, the others are padded with junk.
    let steps = [[5, 1, 3], [1, 1, 1], [2, 4, 1], [1, 3, 4], [3, 3, 3]];
    let (mut cache, mut seen) = (model.cache(3), [0usize; 3]);
    for n_new in steps {
        let width = *n_new.iter().max().unwrap();
        let padded: Vec<Vec<i64>> = (0..3)
            .map(|r| {
                let new = &rows[r][seen[r]..seen[r] + n_new[r]];
                new.iter().copied().chain(std::iter::repeat(28)).take(width).collect()
            })
            .collect();
        let logits = model.forward_cached(ids(&padded), &n_new, &mut cache);
        for r in 0..3 {
            seen[r] += n_new[r];
            let cached = to_host(logits.clone().slice([r..r + 1, 0..29]).reshape([29]));
            let difference = worst(&cached, &after(&model, &rows[r][..seen[r]]));
            // Measured at most 4.8e-7.
            assert!(difference < 5e-6, "row {r} after {} tokens differs by {difference:.1e}", seen[r]);
        }
        assert_eq!(cache.lengths(), seen);
    }
    assert_eq!(seen, [12, 12, 12], "up to the context's border");
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
    let (scored, _) = model.score(ids(&rows), ids(&targets), &masked);
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

    let (nats, best) = model.score(ids(&rows), ids(&targets), &Pass::default());
    assert!((nats.sum().into_scalar::<f32>() - all).abs() < 1e-3);
    let logits = to_host(model.forward(ids(&rows), &Pass::default()));
    let best: Vec<i64> = best.into_data().convert::<i64>().try_into_vec().unwrap();
    for (position, logits) in logits.values.chunks(29).enumerate() {
        assert!(logits.iter().all(|logit| *logit <= logits[best[position] as usize]));
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
