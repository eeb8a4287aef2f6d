//! A model and a tokenizer to text: opening a run, sampling, streaming generation with a KV cache.
//!
//! Knows nothing of training: a run folder is all it needs.

mod beam;
mod error;
mod generate;
mod open;
mod sampler;

pub use beam::{BeamOptions, Hypothesis, beam_search};
pub use error::InferError;
pub use generate::{Generation, StopReason, generate, prompt_ids};
pub use open::{Opened, load_weights, open};
pub use sampler::Sampler;
