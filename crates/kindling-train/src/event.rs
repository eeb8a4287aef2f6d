//! What a training tells its listeners. Knows nothing of terminals or files.

use std::path::Path;
use std::time::{Duration, Instant};

use kindling_config::RunConfig;
use kindling_metrics::Nll;

use crate::TrainError;

/// Something that happened in the loop.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TrainEvent<'a> {
    /// The loop begins.
    Started {
        /// Steps taken before, by the run that is resumed; 0 for a new one.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// What is trained.
        config: &'a RunConfig,
        /// The best speed of matrix products that was seen on the device, in FLOP/s.
        matmul_peak: f64,
    },
    /// Something was computed, as a part of what the next event tells.
    Span {
        /// `data`, `forward`, `backward`, `optimizer`, `evaluation`, `checkpoint` or `sample`.
        name: &'static str,
        /// When it began.
        started: Instant,
        /// How long it took.
        took: Duration,
        /// Steps taken before.
        step: u64,
    },
    /// A checkpoint was passed over because it does not verify.
    CheckpointRejected {
        /// Which, and why.
        message: &'a str,
    },
    /// An optimizer step was taken.
    Step {
        /// Steps taken, this one included.
        step: u64,
        /// Mean loss of the step's batch, nats a token.
        loss: f64,
        /// Learning rate of the step.
        lr: f64,
        /// Global norm of the gradient before clipping.
        grad_norm: f64,
        /// Tokens trained on so far.
        tokens: u64,
        /// Seconds that the step took.
        step_s: f64,
    },
    /// A step was not taken, because its loss is a spike.
    Skipped {
        /// Steps passed, this one included.
        step: u64,
        /// Mean loss of the step's batch; not finite if it was none.
        loss: f64,
        /// Tokens so far, those of this batch included.
        tokens: u64,
        /// Seconds that it took.
        step_s: f64,
    },
    /// A spike led back to the last checkpoint; the batches from there to the spike are left out.
    RolledBack {
        /// Steps taken before the spike.
        from: u64,
        /// Steps taken now.
        to: u64,
        /// Mean loss of the spike; not finite if it was none.
        loss: f64,
    },
    /// Some windows of the validation split were computed.
    Validating {
        /// Done.
        done: u64,
        /// In all.
        total: u64,
    },
    /// The validation split was evaluated.
    Validated {
        /// Steps taken.
        step: u64,
        /// Over the whole split.
        nll: Nll,
        /// Standard error of its loss, where it has more than one window.
        standard_error: Option<f64>,
        /// Whether it is the lowest loss so far.
        is_best: bool,
    },
    /// Text was drawn.
    Sample {
        /// Steps taken.
        step: u64,
        /// What it began with.
        prompt: &'a str,
        /// What the model wrote.
        text: &'a str,
    },
    /// A checkpoint is complete on disk.
    Saved {
        /// Steps taken.
        step: u64,
        /// Its folder.
        dir: &'a Path,
    },
}

/// Hears what happens in the loop. An error ends the training.
pub trait Listener {
    /// Called once for each event, in order.
    ///
    /// # Errors
    /// Whatever keeps the listener from recording it.
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<(), TrainError>;
}

impl<F: FnMut(&TrainEvent<'_>)> Listener for F {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<(), TrainError> {
        self(event);
        Ok(())
    }
}
