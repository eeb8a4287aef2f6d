//! The one way from a run folder to something that can be used.

use std::path::Path;

use burn::tensor::Device;
use kindling_model::{Gpt, weights};
use kindling_runs::Run;
use kindling_tokenizer::Tokenizer;

use crate::InferError;

/// A run, ready for inference.
#[derive(Debug)]
pub struct Opened {
    /// The model with the weights of the best checkpoint.
    pub model: Gpt,
    /// The tokenizer that it was trained with.
    pub tokenizer: Tokenizer,
    /// The folder they come from.
    pub run: Run,
    /// The step of the checkpoint.
    pub step: u64,
    /// Checkpoints that were passed over because they do not verify, in words.
    pub rejected: Vec<String>,
}

/// Opens the run in the folder `dir` with its best checkpoint, everything verified.
///
/// # Errors
/// A folder that is no run, damaged files, or weights and tokenizer that do not belong together.
pub fn open(dir: &Path, device: &Device) -> Result<Opened, InferError> {
    let run = Run::open(dir)?;
    let tokenizer = Tokenizer::load(&run.tokenizer_path()?)?;
    let config = &run.config().model;
    if tokenizer.vocab_size() > config.vocab_size {
        return Err(InferError::Vocabulary { tokenizer: tokenizer.vocab_size(), model: config.vocab_size });
    }
    let (checkpoint, rejected) = run.best_checkpoint()?;
    let model = weights::load(&checkpoint.weights(), config, device)?;
    let rejected = rejected.iter().map(ToString::to_string).collect();
    Ok(Opened { model, tokenizer, step: checkpoint.step, run, rejected })
}
