//! What a checkpoint holds beside weights and moments: where the run stands.

use std::path::Path;

use kindling_runs::RunsError;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// `state.json` of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Optimizer steps taken. The schedule, the batches and the dropout masks follow from it.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Lowest validation loss so far, and the step it was seen at.
    pub best: Option<(f64, u64)>,
    /// Hash of tokenizer and shards.
    pub data_hash: String,
}

impl TrainState {
    pub(crate) fn write(&self, path: &Path) -> Result<(), TrainError> {
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(path)?;
            std::io::Write::write_all(&mut file, &serde_json::to_vec_pretty(self).expect("plain data serialises"))?;
            file.sync_all()
        };
        let context = |error: std::io::Error| std::io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()));
        write().map_err(|error| RunsError::Io(context(error)).into())
    }

    pub(crate) fn read(path: &Path) -> Result<Self, TrainError> {
        let bad = |what: String| TrainError::State { path: path.to_owned(), what };
        let bytes = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))
    }
}
