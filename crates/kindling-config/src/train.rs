//! How a model is trained: steps, optimizer, schedule, and how often to look. Says nothing of the model.

use serde::{Deserialize, Serialize};

use crate::model::check_size;
use crate::run::invalid;
use crate::{ConfigError, ModelConfig};

/// Steps, learning rate, optimizer, and how often to look.
///
/// Keys that are newer than the first runs are left out of a file where they have their default: programs from before them
/// read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimizer steps in all, unless a budget is used up before.
    pub steps: usize,
    /// Sequences a step.
    pub batch_size: usize,
    /// Sequences that are computed at once; 0 means all of `batch_size`. Changes memory, not the mathematics.
    pub micro_batch_size: usize,
    /// What makes a step of gradients.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optimizer: Optimizer,
    /// How the learning rate goes on behind the warmup.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: Schedule,
    /// Peak learning rate.
    pub lr: f64,
    /// The learning rate at the end of `cosine`, `linear` and `wsd`.
    pub min_lr: f64,
    /// Steps of linear warmup.
    pub warmup_steps: usize,
    /// The last share of the steps, in which `wsd` decays.
    #[serde(default = "decay_fraction", skip_serializing_if = "is_decay_fraction")]
    pub decay_fraction: f64,
    /// Decay of the first moment of `adamw`; of `lion`, its share in the update.
    pub beta_1: f64,
    /// Decay of the second moment of `adamw`; of `lion`, of its momentum.
    pub beta_2: f64,
    /// Decay of the momentum of `muon` and `sgd`.
    #[serde(default = "momentum", skip_serializing_if = "is_momentum")]
    pub momentum: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, on matrices only: never on norms and biases.
    pub weight_decay: f64,
    /// The global norm that gradients are clipped to; 0 turns clipping off.
    pub grad_clip: f64,
    /// Share of the probability that targets give to the whole vocabulary (Szegedy et al., arXiv:1512.00567). Training losses have
    /// it in them, validation losses have not; the same goes for `z_loss`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub label_smoothing: f64,
    /// What (ln Z)² counts in the loss, Z being the sum that softmax divides by (PaLM, arXiv:2204.02311, section 5, has 1e-4).
    #[serde(default, skip_serializing_if = "is_default")]
    pub z_loss: f64,
    /// Decay of an exponential moving average of the weights, which validation, samples and the best checkpoint then take; 0
    /// turns it off. In its first steps the average forgets faster: its decay is at most `(1 + step) / (10 + step)`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ema: f64,
    /// What the factors of matrix products are rounded to. Weights, optimizer and sums are f32 in any case.
    #[serde(default)]
    pub precision: Precision,
    /// Keep only what enters each block, and compute the block again for its gradients (Chen et al., arXiv:1604.06174): less
    /// memory, about a third more arithmetic. Does not change the mathematics.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// The training ends with the step that reaches so many tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    /// The training ends with the step that reaches so many floating point operations, by [`ModelConfig::flops_per_token`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_flops: Option<f64>,
    /// The training ends with the step that reaches so many hours of training, those before a resume included. The learning
    /// rate knows nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_hours: Option<f64>,
    /// The training ends when so many evaluations in a row were no better than the best before; 0 turns it off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub patience: usize,
    /// Steps between two logged losses.
    pub log_every: usize,
    /// Steps between two evaluations of the whole validation split.
    pub eval_every: usize,
    /// Steps between two printed samples; 0 prints none before the end.
    pub sample_every: usize,
    /// Steps between two checkpoints.
    pub checkpoint_every: usize,
    /// How many of the last checkpoints are kept, beside the best.
    pub keep_checkpoints: usize,
    /// Checkpoints of steps that this divides are kept for good; 0 keeps none so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_every: usize,
    /// What is done when the loss jumps; nothing by default, and a loss that is no number then ends the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spike_guard: Option<SpikeGuard>,
}

/// What is done when the loss of a step lies far above those of the steps before, or is no number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpikeGuard {
    /// What is done.
    pub action: SpikeAction,
    /// How many standard deviations above their mean.
    pub sigmas: f64,
}

/// What a spike leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpikeAction {
    /// The step is not taken; the next goes on with the next batch.
    Skip,
    /// The run goes on from its last checkpoint, and leaves out the batches that led to the spike (PaLM, arXiv:2204.02311, 5.1).
    Rollback,
}

/// What makes a step of gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Loshchilov and Hutter, arXiv:1711.05101.
    #[default]
    AdamW,
    /// Orthogonal steps of the matrices inside of blocks (Jordan et al. 2024), as long as AdamW's (Liu et al.,
    /// arXiv:2502.16982), so that its learning rates can be used; AdamW for all else.
    Muon,
    /// Signs of an interpolated momentum (Chen et al., arXiv:2302.06675). It wants a learning rate of a third to a tenth of AdamW's.
    Lion,
    /// Gradient descent with momentum.
    Sgd,
}

/// How the learning rate goes on behind the warmup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine down to `min_lr` (Loshchilov and Hutter, arXiv:1608.03983).
    #[default]
    Cosine,
    /// A straight line down to `min_lr`.
    Linear,
    /// It stays.
    Constant,
    /// Warmup, stable, decay (Hu et al., arXiv:2404.06395): it stays, and falls in a straight line to `min_lr` in the last
    /// `decay_fraction` of the steps. A run that goes on from before the decay is as if more steps had been asked for at first.
    Wsd,
}

/// What the factors of matrix products are rounded to in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// bf16 where the processor has instructions for it, f32 where not.
    Bf16,
    /// bf16 on every processor, by the instructions for f32 where it has no others: what bf16 does to a model can be seen anywhere.
    Bf16Emulated,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn decay_fraction() -> f64 {
    0.2
}

fn is_decay_fraction(value: &f64) -> bool {
    *value == decay_fraction()
}

fn momentum() -> f64 {
    0.95
}

fn is_momentum(value: &f64) -> bool {
    *value == momentum()
}

impl TrainConfig {
    /// Sequences computed at once.
    pub fn micro_batch(&self) -> usize {
        if self.micro_batch_size == 0 { self.batch_size } else { self.micro_batch_size.min(self.batch_size) }
    }

    /// The last step by `steps` and the budgets of tokens and operations; the clock and `patience` can end a run before it.
    pub fn last_step(&self, model: &ModelConfig) -> u64 {
        let step_tokens = (self.batch_size * model.context_len) as u64;
        let by_tokens = self.max_tokens.map(|tokens| tokens.div_ceil(step_tokens));
        let by_flops = self.max_flops.map(|flops| (flops / (model.flops_per_token() * step_tokens as f64)).ceil() as u64);
        by_tokens.into_iter().chain(by_flops).fold(self.steps as u64, u64::min).max(1)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        check_size("train.steps", self.steps, 1 << 40)?;
        check_size("train.batch_size", self.batch_size, 1 << 20)?;
        check_size("train.log_every", self.log_every, 1 << 40)?;
        check_size("train.eval_every", self.eval_every, 1 << 40)?;
        check_size("train.checkpoint_every", self.checkpoint_every, 1 << 40)?;
        check_size("train.keep_checkpoints", self.keep_checkpoints, 1 << 20)?;
        if !(self.lr > 0.0 && self.lr.is_finite()) {
            return Err(invalid("train.lr", self.lr.to_string(), "a number above 0"));
        }
        if !(0.0..=self.lr).contains(&self.min_lr) {
            return Err(invalid("train.min_lr", self.min_lr.to_string(), &format!("a number from 0 to `train.lr`, {}", self.lr)));
        }
        if !(self.decay_fraction > 0.0 && self.decay_fraction <= 1.0) {
            return Err(invalid("train.decay_fraction", self.decay_fraction.to_string(), "a share above 0 and at most 1"));
        }
        for (key, beta) in [("train.beta_1", self.beta_1), ("train.beta_2", self.beta_2), ("train.momentum", self.momentum)] {
            // As the optimizer computes with it: a decay that rounds to 1 in f32 forgets nothing.
            if !(0.0..1.0).contains(&(beta as f32)) {
                return Err(invalid(key, beta.to_string(), "at least 0 and below 1"));
            }
        }
        for (key, value) in [("train.weight_decay", self.weight_decay), ("train.grad_clip", self.grad_clip), ("train.z_loss", self.z_loss)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(invalid(key, value.to_string(), "0 or a number above it"));
            }
        }
        if !(self.epsilon as f32 > 0.0 && self.epsilon.is_finite()) {
            return Err(invalid("train.epsilon", self.epsilon.to_string(), "a number above 0"));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(invalid("train.label_smoothing", self.label_smoothing.to_string(), "at least 0 and below 1"));
        }
        if !((0.0..1.0).contains(&self.ema) && (self.ema as f32) < 1.0) {
            return Err(invalid("train.ema", self.ema.to_string(), "at least 0 and below 1"));
        }
        if let Some(guard) = self.spike_guard
            && !(guard.sigmas > 0.0 && guard.sigmas.is_finite())
        {
            return Err(invalid("train.spike_guard.sigmas", guard.sigmas.to_string(), "a number above 0, such as 6"));
        }
        if self.max_tokens == Some(0) {
            return Err(invalid("train.max_tokens", "0".into(), "a number above 0, or none"));
        }
        for (key, value) in [("train.max_flops", self.max_flops), ("train.max_hours", self.max_hours)] {
            match value {
                Some(value) if !(value > 0.0 && value.is_finite()) => {
                    return Err(invalid(key, value.to_string(), "a number above 0, or none"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}
