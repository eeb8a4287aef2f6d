//! The one way from a run folder to something that can be used.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use kindling_model::{Gpt, weights};
use kindling_runs::{Run, RunsError, hash_file};
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
    /// The file of its weights, or of its adapter.
    pub weights: PathBuf,
    /// Checkpoints that were passed over because they do not verify, in words.
    pub rejected: Vec<String>,
}

impl Opened {
    /// The same model with another run's adapter, or one in a file, beside its weights, which are shared.
    ///
    /// # Errors
    /// A file that is damaged or no adapter, or one that was trained on other weights than these.
    pub fn with_adapter(&self, adapter: &Path) -> Result<Gpt, InferError> {
        if self.model.adapter().is_some() {
            return Err(InferError::Adapted(self.run.name().to_owned()));
        }
        let file = if adapter.is_dir() {
            let run = Run::open(adapter)?;
            if run.config().lora().is_none() {
                return Err(InferError::NoAdapter(run.name().to_owned()));
            }
            run.best_checkpoint()?.0.weights()
        } else {
            adapter.to_owned()
        };
        let base_hash = hash_file(&self.weights).map_err(RunsError::Io)?;
        Ok(self.model.with_adapter(weights::load_adapter(&file, &base_hash, self.model.config(), &self.model.device())?))
    }
}

/// The model of a run with the weights in `file`, which one of its checkpoints has. Of a run that trains adapters it is an adapter, and
/// is put beside the weights that the run began with.
///
/// # Errors
/// Damaged files, or an adapter for other weights.
pub fn load_weights(run: &Run, file: &Path, device: &Device) -> Result<Gpt, InferError> {
    let model = &run.config().model;
    match run.config().base.as_ref().filter(|base| base.lora.is_some()) {
        None => Ok(weights::load(file, model, device)?),
        Some(base) => {
            let adapter = weights::load_adapter(file, &base.weights_hash, model, device)?;
            Ok(weights::load(&run.base_path(base)?, model, device)?.with_adapter(adapter))
        }
    }
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
    let model = load_weights(&run, &checkpoint.weights(), device)?;
    let rejected = rejected.iter().map(ToString::to_string).collect();
    Ok(Opened { model, tokenizer, step: checkpoint.step, weights: checkpoint.weights(), run, rejected })
}
