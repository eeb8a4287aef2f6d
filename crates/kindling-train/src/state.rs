//! What a checkpoint holds beside weights and moments: where the run stands.

use std::path::Path;

use kindling_config::Seed;
use kindling_runs::RunsError;
use serde::{Deserialize, Serialize};

use crate::{RecentLosses, TrainError};

/// `state.json` of a checkpoint. What is newer than the first ones has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Steps taken. The schedule and the dropout masks follow from it.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds that steps took.
    #[serde(default)]
    pub seconds: f64,
    /// Lowest validation loss so far, and the step it was seen at.
    pub best: Option<(f64, u64)>,
    /// Evaluations since then.
    #[serde(default)]
    pub stalled: usize,
    /// Batches that were left out because they led to a spike: the batch of a step is that of `step + left_out`.
    #[serde(default)]
    pub left_out: u64,
    /// How often the run went back to a checkpoint.
    #[serde(default)]
    pub rollbacks: u64,
    /// Steps in a row up to now that were not taken.
    #[serde(default)]
    pub skipped: u64,
    /// The losses of late, where they are guarded.
    #[serde(default)]
    pub losses: RecentLosses,
    /// The run's seed.
    #[serde(default)]
    pub seed: Option<Seed>,
    /// Hash of tokenizer and shards.
    pub data_hash: String,
}

impl TrainState {
    pub(crate) fn write(&self, path: &Path) -> Result<(), TrainError> {
        write_synced(path, &serde_json::to_vec_pretty(self).expect("plain data serialises"))
    }

    pub(crate) fn read(path: &Path) -> Result<Self, TrainError> {
        let bad = |what: String| TrainError::State { path: path.to_owned(), what };
        let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
    }
}

/// Writes a file of a checkpoint, and has it on disk.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(path)?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    };
    let context = |error: std::io::Error| std::io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()));
    write().map_err(|error| RunsError::Io(context(error)).into())
}
