//! What a step learns from a batch: its loss and the gradients of every parameter that is trained. Updates nothing.

use std::time::Instant;

use burn::module::Module;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::RunConfig;
use kindling_data::Batch;
use kindling_kernels::LossTerms;
use kindling_model::{DropoutKey, Gpt, Loss, Pass, Teacher};

use crate::TrainError;

/// The mean loss of a whole batch in nats a token, and its gradients, computed in micro-batches.
///
/// Each micro-batch's sum of nats is divided by the weight of the whole batch: so the gradients add up to those of the
/// batch computed at once, also where micro-batches hold unequal numbers of counted tokens.
///
/// # Errors
/// [`TrainError::NotFinite`] says which sequences gave a loss that is not a number.
pub fn gradients(model: &Gpt, batch: &Batch, config: &RunConfig, step: u64) -> Result<(f64, GradientsParams), TrainError> {
    timed_gradients(model, None, batch, config, step, &mut |_, _| {})
}

/// As [`gradients`], held to the base if there is a `teacher`; `span` hears of each `forward` and `backward` that is over, and when it began.
pub(crate) fn timed_gradients(
    model: &Gpt,
    teacher: Option<&Gpt>,
    batch: &Batch,
    config: &RunConfig,
    step: u64,
    span: &mut dyn FnMut(&'static str, Instant),
) -> Result<(f64, GradientsParams), TrainError> {
    let weight = batch.weight();
    let micro = config.train.micro_batch();
    let dropout = config.seed.stream("dropout");
    let mut accumulator = GradientsAccumulator::<Gpt>::new();
    let mut nats = 0.0;
    for first in (0..batch.n_rows).step_by(micro) {
        let last = (first + micro).min(batch.n_rows);
        let part = batch.rows(first, last);
        let mut pass = Pass {
            dropout: Some(DropoutKey { seed: dropout, step, first_row: first }),
            document_starts: part.document_starts.as_deref().map(Into::into),
            restart_positions: part.restart_positions,
            teacher: None,
            terms: LossTerms { label_smoothing: config.train.label_smoothing, z_loss: config.train.z_loss },
        };
        if let (Some(teacher), Some(distillation)) = (teacher, config.base.as_ref().and_then(|base| base.distillation)) {
            pass.teacher = Some(Teacher { logits: said(teacher, &part, &pass), distillation });
        }
        // A loss that is no number is not differentiated.
        let counted = |loss: &Loss| {
            let nats = f64::from(loss.nats.clone().into_scalar::<f32>());
            let bad = || TrainError::NotFinite { what: "the loss".into(), step, micro_batch: Some((first, last - 1)) };
            if nats.is_finite() { Ok(nats) } else { Err(bad()) }
        };
        let (micro_nats, grads) = if config.train.gradient_checkpointing {
            checkpointed(model, &part, &pass, weight, counted, span)?
        } else {
            whole(model, &part, &pass, weight, counted, span)?
        };
        nats += micro_nats;
        accumulator.accumulate(model, grads);
    }
    Ok((nats / weight, accumulator.grads()))
}

/// What the teacher says of a batch: logits `[N, V]` that are not tracked.
fn said(teacher: &Gpt, batch: &Batch, pass: &Pass) -> Tensor<2> {
    let ids = to_tensors(batch, &teacher.device()).0;
    let seen = Pass { document_starts: pass.document_starts.clone(), restart_positions: pass.restart_positions, ..Pass::default() };
    let logits = teacher.forward(ids, &seen);
    let [b, t, v] = logits.dims();
    Tensor::from_inner(logits.reshape([b * t, v]))
}

/// The nats of a batch, and the gradients of their sum divided by `weight`.
fn whole(
    model: &Gpt,
    batch: &Batch,
    pass: &Pass,
    weight: f64,
    counted: impl FnOnce(&Loss) -> Result<f64, TrainError>,
    span: &mut dyn FnMut(&'static str, Instant),
) -> Result<(f64, GradientsParams), TrainError> {
    let started = Instant::now();
    let (ids, targets, weights) = to_tensors(batch, &model.device());
    let loss = model.loss(ids, targets, weights, pass);
    // Reading the loss waits for it where the device computes beside us.
    let nats = counted(&loss)?;
    span("forward", started);
    let started = Instant::now();
    let grads = GradientsParams::from_grads((loss.nats / weight).backward(), model);
    span("backward", started);
    Ok((nats, grads))
}

/// The same with one block's activations at a time (Chen et al., arXiv:1604.06174): what enters each block is kept, and the
/// block is computed again when its gradients are due. Dropout follows from the pass, so both times the same is dropped.
fn checkpointed(
    model: &Gpt,
    batch: &Batch,
    pass: &Pass,
    weight: f64,
    counted: impl FnOnce(&Loss) -> Result<f64, TrainError>,
    span: &mut dyn FnMut(&'static str, Instant),
) -> Result<(f64, GradientsParams), TrainError> {
    let started = Instant::now();
    let (ids, targets, weights) = to_tensors(batch, &model.device());
    let n_rows = batch.n_rows;
    let mut accumulator = GradientsAccumulator::<Gpt>::new();
    let leaf = |x: Tensor<2>| Tensor::from_inner(x).require_grad();

    let untracked = model.valid();
    let mut x = untracked.enter(ids.clone().inner(), pass);
    let mut entered = Vec::new();
    for layer in 0..model.config().n_layers {
        let next = untracked.block(layer, x.clone(), n_rows, pass);
        entered.push(std::mem::replace(&mut x, next));
    }
    let x = leaf(x);
    let loss = model.leave(x.clone(), targets, weights, pass);
    let nats = counted(&loss)?;
    span("forward", started);
    let started = Instant::now();
    let grads = (loss.nats / weight).backward();
    let mut d_x = x.grad(&grads);
    accumulator.accumulate(model, GradientsParams::from_grads(grads, model));

    // The gradient of sum(y * d_y) is that of y, times d_y.
    let backward =
        |y: Tensor<2>, d_y: Option<Tensor<2>>| (y * Tensor::from_inner(d_y.expect("what enters a stage is tracked"))).sum().backward();
    for layer in (0..entered.len()).rev() {
        let x = leaf(entered.pop().expect("one for each layer"));
        let grads = backward(model.block(layer, x.clone(), n_rows, pass), d_x);
        d_x = x.grad(&grads);
        accumulator.accumulate(model, GradientsParams::from_grads(grads, model));
    }
    // Beside an adapter the embeddings are frozen.
    if model.adapter().is_none() {
        let grads = backward(model.enter(ids, pass), d_x);
        accumulator.accumulate(model, GradientsParams::from_grads(grads, model));
    }
    span("backward", started);
    Ok((nats, accumulator.grads()))
}

/// A batch as ids `[B, T]`, targets `[B, T]` and weights `[B, T]`.
pub fn to_tensors(batch: &Batch, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>, Tensor<2>) {
    let shape = [batch.n_rows, batch.row_len];
    let ints =
        |values: &[u32]| Tensor::from_data(TensorData::new(values.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(), shape), device);
    (ints(&batch.ids), ints(&batch.targets), Tensor::from_data(TensorData::new(batch.weights.clone(), shape), device))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use kindling_config::Seed;
    use kindling_model::weights::to_host;

    use super::*;

    #[test]
    fn the_teacher_sees_of_an_example_what_the_model_sees() {
        let overrides = ["n_layers=1", "n_heads=2", "d_model=16", "d_ff=32", "context_len=8", "vocab_size=50"];
        let overrides = overrides.map(|text| format!("model.{text}"));
        let config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).unwrap();
        let teacher = Gpt::new(&config.model, Seed(3), &Device::flex());
        let batch = Batch {
            n_rows: 1,
            row_len: 6,
            ids: vec![1, 2, 3, 1, 2, 3],
            targets: vec![0; 6],
            weights: vec![1.0; 6],
            document_starts: Some(vec![0, 0, 0, 3, 3, 3]),
            restart_positions: true,
        };
        let logits = |batch: &Batch| {
            let seen = Pass {
                document_starts: batch.document_starts.as_deref().map(Into::into),
                restart_positions: batch.restart_positions,
                ..Pass::default()
            };
            to_host(said(&teacher, batch, &seen)).values
        };
        // The same example twice.
        let twice = logits(&batch);
        let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference(&twice[..150], &twice[150..]) < 1e-6);
        let on = logits(&Batch { restart_positions: false, ..batch });
        assert!(difference(&on[..150], &on[150..]) > 1e-4);
    }
}
