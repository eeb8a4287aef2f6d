//! What can stop a training.

use std::path::PathBuf;

use kindling_data::DataError;
use kindling_infer::InferError;
use kindling_model::ModelError;
use kindling_runs::RunsError;
use thiserror::Error;

const GIB: f64 = (1u64 << 30) as f64;

/// A training that cannot begin or go on.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The run folder.
    #[error(transparent)]
    Runs(#[from] RunsError),
    /// The weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A sample could not be drawn.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The configured vocabulary has no room for the tokenizer's ids.
    #[error("`model.vocab_size` is {model}, expected at least the tokenizer's {tokenizer}")]
    Vocabulary {
        /// Rows of the model's embedding.
        model: usize,
        /// Tokens of the tokenizer.
        tokenizer: usize,
    },
    /// Documents cannot be told apart.
    #[error("`data.document_mask` is true, and the tokenizer has no end-of-text token that documents begin with")]
    NoDocumentToken,
    /// A loss or gradient became NaN or infinite. The weights are those of before the step.
    #[error("{what} is not finite at step {step}{}", .micro_batch.map_or(String::new(), |i| format!(", sequences {} to {} of its batch", i.0, i.1)))]
    NotFinite {
        /// `the loss`, `the gradient of …`, `the validation loss`.
        what: String,
        /// Steps taken before.
        step: u64,
        /// First and last sequence of the micro-batch.
        micro_batch: Option<(usize, usize)>,
    },
    /// Spike after spike.
    #[error("the loss is {loss:.4} at step {step}, and neither skipping nor going back has brought it down")]
    Diverged {
        /// Steps taken before.
        step: u64,
        /// Of the last batch.
        loss: f64,
    },
    /// A checkpoint's state that does not fit the run.
    #[error("`{}`: {what}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// More memory than there is.
    #[error("training this model takes at least {:.1} GiB, and {:.1} GiB are available", needed / GIB, *available as f64 / GIB)]
    Memory {
        /// Bytes, estimated from below.
        needed: f64,
        /// Bytes that the system has.
        available: u64,
    },
    /// More disk than there is.
    #[error("the checkpoints of this run take {:.1} GiB more, and {:.1} GiB are free where `{}` lies", needed / GIB, *available as f64 / GIB, dir.display())]
    Disk {
        /// Bytes, beside those that lie there already.
        needed: f64,
        /// Bytes that are free.
        available: u64,
        /// Where they are written.
        dir: PathBuf,
    },
    /// Fewer steps than were taken.
    #[error("`train.steps` and budgets leave {steps} steps, expected at least {taken}, which the run has taken")]
    StepsTaken {
        /// Asked for.
        steps: u64,
        /// Taken.
        taken: u64,
    },
    /// Something that changes the mathematics differs from when the run began.
    #[error("cannot resume: {what} is {found}, expected {expected} as when the run began")]
    Changed {
        /// The part that differs.
        what: String,
        /// Now.
        found: String,
        /// Then.
        expected: String,
    },
}

impl TrainError {
    /// Advice that goes beside the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data(error) => error.hint(),
            Self::Runs(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Infer(error) => error.hint(),
            Self::Vocabulary { tokenizer, .. } => {
                Some(format!("leave `model.vocab_size` out, or set it to {} (a multiple of 64)", tokenizer.next_multiple_of(64)))
            }
            Self::NoDocumentToken => {
                Some("leave `data.document_mask` out, or take a tokenizer that has `<|endoftext|>`, such as one of kind `bpe`".into())
            }
            Self::NotFinite { .. } | Self::Diverged { .. } => Some(
                "checkpoints are as they were; train a new run with a lower `train.lr`, a longer `train.warmup_steps` or a smaller `train.grad_clip`".into(),
            ),
            Self::State { .. } => Some("restore the file, or delete its checkpoint's folder, so that the one before is used".into()),
            Self::Memory { .. } => {
                Some("lower `train.micro_batch_size`, which changes only memory, or `model.context_len`, `model.d_model` or `model.n_layers`".into())
            }
            Self::Disk { .. } => {
                Some("keep fewer, by `train.keep_checkpoints` and `train.keep_every`, make room, or choose another disk with `--runs-dir`".into())
            }
            Self::StepsTaken { .. } => Some("resume it with more of what `--set` has lowered, or without it".into()),
            Self::Changed { .. } => Some("restore it, or train a new run".into()),
        }
    }
}
