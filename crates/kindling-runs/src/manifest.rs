//! What a run was made from, and what came of it: the two JSON documents of a run folder.

use serde::{Deserialize, Serialize};

/// `manifest.json`: written once, when the run begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always `kindling-run`.
    pub format: String,
    /// Version of the run folder's layout.
    pub version: u32,
    /// The run's name.
    pub name: String,
    /// Milliseconds since 1970, UTC.
    pub created_unix_ms: i64,
    /// Version of the program.
    pub kindling: String,
    /// Version of Burn.
    pub burn: String,
    /// XXH3-128 of the executable.
    pub code_hash: String,
    /// XXH3-128 of the lock file that the executable was built from.
    pub lock_hash: String,
    /// Name of the device.
    pub device: String,
    /// Threads of the pool.
    pub threads: usize,
    /// What the factors of matrix products were rounded to when the run began, which is `f32` where the machine lacked what
    /// the configuration asks for.
    #[serde(default = "f32_name")]
    pub precision: String,
    /// Trained parameters: of a run that trains adapters, theirs.
    pub n_params: usize,
    /// The data it learns from.
    pub data: DataRef,
}

/// What runs were computed in before there was a choice.
fn f32_name() -> String {
    "f32".into()
}

/// Which data a run learns from: hashes say which, the path says where it lay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRef {
    /// Folder of the prepared shards.
    pub dir: String,
    /// Hash over tokenizer and shards.
    pub data_hash: String,
    /// Hash of the text.
    pub corpus_hash: String,
    /// XXH3-128 of `tokenizer.json`.
    pub tokenizer_hash: String,
}

/// `summary.json`: written when the run has reached its last step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Optimizer steps taken.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Final loss on the validation split, nats a token.
    pub validation_loss: f64,
    /// `exp` of it, where that is a number.
    pub perplexity: Option<f64>,
    /// Bits a byte, where tokens determine the text.
    pub bits_per_byte: Option<f64>,
    /// Share of next tokens that were the model's likeliest.
    pub accuracy: f64,
    /// Lowest validation loss seen, and its step.
    pub best: (f64, u64),
    /// Tokens a second of training, evaluation and checkpoints left out; of the last stretch, if the run was resumed.
    pub tokens_per_s: f64,
    /// Model FLOPs utilisation at that speed, from 0 to 1: a share of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The best speed of matrix products that was seen on the device when the last stretch began, in FLOP/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matmul_peak_flops_per_s: Option<f64>,
    /// Seconds in all, of the last stretch if the run was resumed.
    pub elapsed_s: f64,
    /// Largest resident memory in bytes, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Why it ended with that step.
    #[serde(default)]
    pub ended: Ended,
    /// Of its last sample, the longest run of tokens that stands in the training data too.
    #[serde(default)]
    pub memorised: Option<MemorisedText>,
    /// What a run that began with a base has learned and forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgetting: Option<Forgetting>,
}

/// Validation losses before and after a fine-tuning.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forgetting {
    /// Of the text that the base was trained on; none where its prepared data are gone.
    pub old: Option<Change>,
    /// Of the new text.
    pub new: Change,
}

/// A validation loss, nats a token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Of the weights that the run began with.
    pub before: f64,
    /// Of its best weights.
    pub after: f64,
}

/// A run of tokens of a sample that stands in the training data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemorisedText {
    /// How many tokens.
    pub n_tokens: usize,
    /// Tokens of the whole sample, its prompt left out.
    pub n_sampled: usize,
    /// The text of the tokens.
    pub text: String,
}

/// Why a run has taken its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// It has taken all its steps, as many as its budgets of tokens and operations leave.
    #[default]
    Steps,
    /// Its hours are over.
    Hours,
    /// It has not become better for so many evaluations.
    Patience,
}
