//! One decoder-only transformer in one file, [`gpt`], and its weights on disk. Knows nothing of text, data or training loops.
//!
//! Read `gpt.rs` from top to bottom: it is the whole model.

mod cache;
mod dropout;
mod error;
pub mod gpt;
mod init;
mod lora;
mod packed;
pub mod weights;

pub use cache::{KvCache, Sequence};
pub use dropout::DropoutKey;
pub use error::ModelError;
pub use gpt::{Gpt, Loss, Pass, Teacher};
pub use kindling_kernels::WeightFormat;
pub use lora::Adapter;
