//! A model and a tokenizer to text: opening a run, sampling, an engine that writes many texts at once, beam search.
//!
//! Knows nothing of training: a run folder is all it needs.

mod batches;
mod beam;
mod chat;
mod constraint;
mod draft;
mod embed;
mod engine;
mod error;
mod generate;
mod open;
mod sampler;
mod stop;

pub use batches::{ComputeFn, in_batches, truncate};
pub use beam::{BeamOptions, Hypothesis, beam_search};
pub use chat::{ChatTemplate, Message};
pub use constraint::{Constraint, Grammar, Grammars};
pub use embed::{Neighbour, embed, nearest, token_vectors};
pub use engine::{Border, Engine, EngineLimits, Event, Request, RequestId, StopReason, TokenScore};
pub use error::InferError;
pub use generate::{Generation, generate, prompt_ids, write};
pub use open::{Opened, load_weights, open};
pub use sampler::{Distribution, Sampler, Sampling};
pub use stop::StopText;
