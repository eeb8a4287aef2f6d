//! Does a device compute what another does? Forward, backward and three training steps of a tiny model on both.
//! One body for the tests and for `kindling devices --check`.

use burn::tensor::{Device, Tensor};
use kindling_config::{Dropout, ModelConfig, Precision, Schedule, Seed, TrainConfig};
use kindling_data::Batch;
use kindling_model::weights::{HostTensor, named_parameters, to_host};
use kindling_model::{DropoutKey, Gpt, Pass};
use serde::Serialize;

use crate::{Optimizer, to_tensors};

/// The largest differences between two devices, each relative to the largest value of its tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parity {
    /// Logits of a forward pass.
    pub logits: f64,
    /// Gradients, the worst over all parameters.
    pub gradients: f64,
    /// Losses before each of three steps, and after them.
    pub losses: f64,
    /// Weights after three steps, the worst over all parameters.
    pub weights: f64,
}

/// What a difference may be for devices to count as equal.
///
/// Measured on ndarray against flex: logits 9.5e-8, gradients 8.1e-7, losses 1.1e-7, weights 5.1e-6.
pub const TOLERANCE: Parity = Parity { logits: 1e-4, gradients: 1e-3, losses: 1e-4, weights: 1e-3 };

impl Parity {
    /// Whether every difference is within `tolerance`; one that is not a number is not.
    pub fn within(&self, tolerance: &Self) -> bool {
        let pairs = [
            (self.logits, tolerance.logits),
            (self.gradients, tolerance.gradients),
            (self.losses, tolerance.losses),
            (self.weights, tolerance.weights),
        ];
        pairs.iter().all(|(found, bound)| found <= bound)
    }
}

/// What one device computes.
struct Computed {
    logits: HostTensor,
    gradients: Vec<HostTensor>,
    losses: HostTensor,
    weights: Vec<HostTensor>,
}

/// Computes the same on both devices, given without autodiff, and compares.
///
/// # Panics
/// If a device fails to compute at all.
pub fn compare(device: &Device, reference: &Device) -> Parity {
    let (a, b) = (compute(device), compute(reference));
    let worst = |a: &[HostTensor], b: &[HostTensor]| a.iter().zip(b).map(|(a, b)| difference(a, b)).fold(0.0, worse);
    Parity {
        logits: difference(&a.logits, &b.logits),
        gradients: worst(&a.gradients, &b.gradients),
        losses: difference(&a.losses, &b.losses),
        weights: worst(&a.weights, &b.weights),
    }
}

/// `f64::max`, except that NaN wins.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn difference(a: &HostTensor, b: &HostTensor) -> f64 {
    let largest = b.values.iter().map(|value| f64::from(value.abs())).fold(f64::MIN_POSITIVE, f64::max);
    a.values.iter().zip(&b.values).map(|(a, b)| f64::from((a - b).abs()) / largest).fold(0.0, worse)
}

fn compute(device: &Device) -> Computed {
    let config = ModelConfig {
        n_layers: 2,
        n_heads: 2,
        d_model: 32,
        d_ff: 128,
        context_len: 16,
        vocab_size: 67,
        bias: true,
        norm_eps: 1e-5,
        dropout: Dropout { embedding: 0.1, attention: 0.1, residual: 0.1, variational: false, word: 0.1 },
        n_classes: 0,
        pooling: kindling_config::Pooling::Last,
    };
    let train = TrainConfig {
        steps: 3,
        batch_size: 3,
        micro_batch_size: 0,
        optimizer: kindling_config::Optimizer::AdamW,
        schedule: Schedule::Cosine,
        lr: 1e-2,
        min_lr: 1e-2,
        warmup_steps: 0,
        decay_fraction: 0.2,
        beta_1: 0.9,
        beta_2: 0.95,
        momentum: 0.95,
        // Large beside the gradients' rounding errors: the moments divide by little else where a gradient is zero.
        epsilon: 1e-4,
        weight_decay: 0.1,
        grad_clip: 1.0,
        precision: Precision::F32,
        gradient_checkpointing: false,
        max_tokens: None,
        max_flops: None,
        max_hours: None,
        patience: 0,
        log_every: 1,
        eval_every: 1,
        sample_every: 0,
        checkpoint_every: 1,
        keep_checkpoints: 1,
        keep_every: 0,
        spike_guard: None,
        ema: 0.0,
        label_smoothing: 0.0,
        z_loss: 0.0,
    };
    let n = 3 * config.context_len;
    let batch = Batch {
        n_rows: 3,
        row_len: config.context_len,
        ids: (0..n as u32).map(|i| (i * 31 + 7) % 67).collect(),
        targets: (0..n as u32).map(|i| (i * 17 + 3) % 67).collect(),
        weights: (0..n).map(|i| if i % 5 == 0 { 0.0 } else { 1.0 }).collect(),
        // In the first row documents begin at 0, 5 and 10; the others are one document each.
        document_starts: Some((0..n as u32).map(|i| if i < 16 { i / 5 * 5 } else { 0 }).collect()),
        restart_positions: false,
    };
    let weight = batch.weight();
    let autodiff = device.clone().autodiff();
    let mut model = Gpt::new(&config, Seed(1337), &autodiff);
    let mut pass = Pass { dropout: None, document_starts: batch.document_starts.as_deref().map(Into::into), ..Pass::default() };
    let logits: Tensor<3> = burn::module::Module::valid(&model).forward(to_tensors(&batch, device).0, &pass);
    let mut optimizer = Optimizer::new(&train);
    let (mut losses, mut gradients) = (Vec::new(), Vec::new());
    for step in 0..=3 {
        let (ids, targets, weights) = to_tensors(&batch, &autodiff);
        pass.dropout = Some(DropoutKey { seed: 1, step, first_row: 0 });
        let loss = model.loss(ids, targets, weights, &pass).nats / weight;
        losses.push(loss.clone().into_scalar::<f32>());
        if step == 3 {
            break;
        }
        let grads = burn::optim::GradientsParams::from_grads(loss.backward(), &model);
        if step == 0 {
            gradients = collect_gradients(&model, &grads);
        }
        let (next, norm) = optimizer.step(train.lr, model, grads);
        norm.expect("gradients are finite");
        model = next;
    }
    Computed {
        logits: to_host(logits),
        gradients,
        losses: HostTensor { shape: vec![losses.len()], values: losses },
        weights: named_parameters(&model).into_iter().map(|(_, tensor)| tensor).collect(),
    }
}

fn collect_gradients(model: &Gpt, grads: &burn::optim::GradientsParams) -> Vec<HostTensor> {
    use burn::module::{Module, ModuleVisitor, Param};
    struct Collect<'a>(&'a burn::optim::GradientsParams, Vec<HostTensor>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.extend(self.0.get::<D>(param.id).map(to_host));
        }
    }
    let mut collect = Collect(grads, Vec::new());
    model.visit(&mut collect);
    collect.1
}
