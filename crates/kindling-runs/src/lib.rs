//! The run folder: manifest, config, log, checkpoints, and the registry of runs. No other crate spells its file names.
//!
//! Knows nothing of tensors: whoever makes a checkpoint writes its files into a folder that [`Run::write_checkpoint`]
//! hands out, checksums, syncs and renames into place. `docs/formats.md` documents every file.

mod checkpoint;
mod error;
mod io;
mod manifest;
mod registry;
mod run;
mod tensorboard;
mod trace;

pub use checkpoint::{
    ADAPTER_FILE, CHECKPOINT_VERSION, CONFIG_FILE, Checkpoint, CheckpointKind, EMA_FILE, MODEL_FILE, OPTIMIZER_FILE, STATE_FILE,
};
pub use error::RunsError;
pub use io::{hash_file, write_atomic};
pub use manifest::{Change, DataRef, Ended, Forgetting, Manifest, MemorisedText, Summary};
pub use registry::{Registry, RunInfo, RunStatus};
pub use run::Run;
pub use tensorboard::EventWriter;
pub use trace::TraceWriter;
