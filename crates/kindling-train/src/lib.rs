//! Pretraining: the step loop, the optimizer, checkpoints, resume. Reads no text and prints nothing.
//!
//! [`train`] is the loop; read `pretrain.rs` from top to bottom. It reports [`TrainEvent`]s to [`Listener`]s, of which
//! [`RunLog`], which writes `metrics.jsonl`, `samples.md` and TensorBoard's files, is one and a terminal another.

mod disk;
pub mod doctor;
mod ema;
mod error;
mod event;
mod find_lr;
mod finetune;
mod gradients;
mod judge;
mod memory;
mod merge;
mod optimizer;
pub mod parity;
mod peak;
mod precision;
mod pretrain;
mod profile;
mod resume;
mod run_log;
mod schedule;
mod speed;
mod spike;
mod state;

pub use disk::check_disk;
pub use ema::Ema;
pub use error::TrainError;
pub use event::{Listener, TrainEvent};
pub use find_lr::{LrCurve, LrPoint, find_lr};
pub use finetune::finetune_config;
pub use gradients::{gradients, to_tensors};
pub use judge::judge;
pub use memory::{check_memory, peak_memory_bytes, resident_memory_bytes};
pub use merge::{base_weights, merge};
pub use optimizer::{NotFinite, Optimizer};
pub use peak::{matmul_peak, mfu};
pub use precision::TrainingPrecision;
pub use pretrain::{Outcome, Training, document_token, fit_prompt, fit_vocabulary, sampler, train};
pub use profile::Profile;
pub use resume::check_resumable;
pub use run_log::RunLog;
pub use schedule::lr_at;
pub use speed::Speed;
pub use spike::RecentLosses;
pub use state::TrainState;
