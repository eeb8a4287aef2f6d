//! Pretraining: the step loop, the optimizer, checkpoints, resume. Reads no text and prints nothing.
//!
//! [`train`] is the loop; read `pretrain.rs` from top to bottom. It reports [`TrainEvent`]s to [`Listener`]s, of which
//! [`RunLog`], which writes `metrics.jsonl` and `samples.md`, is one and a terminal another.

mod error;
mod event;
mod gradients;
mod memory;
mod optimizer;
pub mod parity;
mod precision;
mod pretrain;
mod run_log;
mod schedule;
mod state;

pub use error::TrainError;
pub use event::{Listener, TrainEvent};
pub use gradients::{gradients, to_tensors};
pub use memory::{check_memory, peak_memory_bytes};
pub use optimizer::{AdamW, NotFinite};
pub use precision::TrainingPrecision;
pub use pretrain::{Outcome, Training, check_resumable, document_token, fit_vocabulary, train};
pub use run_log::RunLog;
pub use schedule::lr_at;
pub use state::TrainState;
