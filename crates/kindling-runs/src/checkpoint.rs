//! Checkpoints: folders that appear whole or not at all, and say themselves whether they are still whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::io::{UNFINISHED, hash_file, read_versioned, sync_dir, temp_dir, write_atomic};
use crate::{Run, RunsError};

/// Version of the checkpoint layout that this crate writes; it reads all before it. 2 has the configuration.
pub const CHECKPOINT_VERSION: u32 = 2;
/// The model's weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// An adapter beside the weights that the run began with, in place of [`MODEL_FILE`].
pub const ADAPTER_FILE: &str = "adapter.safetensors";
/// The optimizer's moments, by parameter path.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The moving average of what is trained: the weights, or an adapter.
pub const EMA_FILE: &str = "ema.safetensors";
/// The configuration that it was made under.
pub const CONFIG_FILE: &str = "config.toml";
/// What else resuming needs.
pub const STATE_FILE: &str = "state.json";
/// What the name of a checkpoint begins with while another takes its place.
pub(crate) const REPLACED: &str = ".writing-old-";
const INDEX: &str = "checkpoint.json";

/// What a checkpoint is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointKind {
    /// To go on from: `checkpoints/step-N`.
    Last,
    /// To use: the lowest validation loss, `best/step-N`.
    Best,
}

/// `checkpoint.json`: written last, with the checksum of every other file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: String,
    version: u32,
    step: u64,
    /// File name to XXH3-128.
    files: BTreeMap<String, String>,
}

/// A checkpoint whose every file has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its folder.
    pub dir: PathBuf,
    /// Optimizer steps taken when it was written.
    pub step: u64,
}

impl Checkpoint {
    /// Path of one of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Path of the weights or the adapter that it goes on with.
    pub fn trained(&self) -> PathBuf {
        let adapter = self.file(ADAPTER_FILE);
        if adapter.is_file() { adapter } else { self.file(MODEL_FILE) }
    }

    /// Path of the weights or the adapter that are to be used: their average, where there is one.
    pub fn weights(&self) -> PathBuf {
        let average = self.file(EMA_FILE);
        if average.is_file() { average } else { self.trained() }
    }

    /// Opens a checkpoint and verifies it.
    ///
    /// # Errors
    /// [`RunsError::Damaged`] names the file that does not fit.
    pub fn open(dir: &Path) -> Result<Self, RunsError> {
        let path = dir.join(INDEX);
        let damaged =
            |path: &Path, what, found: String, expected: String| RunsError::Damaged { path: path.to_owned(), what, found, expected };
        if dir.is_dir() && !path.exists() {
            return Err(damaged(&path, "the index", "missing".into(), "there".into()));
        }
        let index: Index = read_versioned(&path, "kindling-checkpoint", CHECKPOINT_VERSION)?;
        for (name, expected) in &index.files {
            let path = dir.join(name);
            let found = match hash_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(damaged(&path, "the file", "missing".into(), "there".into()));
                }
                result => result?,
            };
            if found != *expected {
                return Err(damaged(&path, "the checksum", found, expected.clone()));
            }
        }
        Ok(Self { dir: dir.to_owned(), step: index.step })
    }
}

impl Run {
    /// Writes a checkpoint: `fill` puts files into the folder it is given, which gets an index of checksums and its
    /// final name only when all is on disk. Then older ones are removed until `keep` of the kind are left, and those of steps that
    /// `is_kept` says are kept beside them.
    ///
    /// # Errors
    /// Whatever `fill` gives, or I/O. The checkpoints that were there before stay as they were.
    pub fn write_checkpoint<E: From<RunsError>>(
        &self,
        kind: CheckpointKind,
        step: u64,
        keep: usize,
        is_kept: impl Fn(u64) -> bool,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let parent = self.checkpoint_dir(kind);
        let io = |error: std::io::Error| E::from(RunsError::Io(error));
        fs_err::create_dir_all(&parent).map_err(io)?;
        let temp = temp_dir(&parent, UNFINISHED).map_err(io)?;
        fill(temp.path())?;
        let finish = || -> std::io::Result<PathBuf> {
            let mut files = BTreeMap::new();
            for entry in fs_err::read_dir(temp.path())? {
                let path = entry?.path();
                files.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), hash_file(&path)?);
            }
            let index = Index { format: "kindling-checkpoint".into(), version: CHECKPOINT_VERSION, step, files };
            write_atomic(&temp.path().join(INDEX), &serde_json::to_vec_pretty(&index).expect("plain data serialises"))?;
            let dir = parent.join(format!("step-{step:08}"));
            // From before a resume: it is out of the way before the new one takes its name, and removed after.
            let old = parent.join(format!("{REPLACED}step-{step:08}"));
            if dir.exists() {
                fs_err::rename(&dir, &old)?;
            }
            fs_err::rename(temp.path(), &dir)?;
            sync_dir(&parent)?;
            if old.exists() {
                fs_err::remove_dir_all(&old)?;
            }
            Ok(dir)
        };
        let dir = finish().map_err(io)?;
        // Renamed: there is nothing left under the temporary name to remove.
        drop(temp.keep());
        let mut steps = self.checkpoint_steps(kind).map_err(io)?;
        steps.retain(|(_, path)| *path != dir);
        // Later ones are damaged, or the run would have gone on from them: they are no reason to remove a good one.
        let (later, earlier): (Vec<_>, Vec<_>) = steps.into_iter().partition(|(other, _)| *other > step);
        let too_many = earlier.iter().rev().skip(keep.saturating_sub(1)).filter(|(step, _)| !is_kept(*step));
        for (_, path) in later.iter().chain(too_many) {
            fs_err::remove_dir_all(path).map_err(io)?;
        }
        Ok(dir)
    }

    /// Bytes of all checkpoints that lie there.
    ///
    /// # Errors
    /// I/O.
    pub fn checkpoint_bytes(&self) -> Result<u64, RunsError> {
        let mut bytes = 0;
        for kind in [CheckpointKind::Last, CheckpointKind::Best] {
            for (_, dir) in self.checkpoint_steps(kind)? {
                for entry in fs_err::read_dir(dir)? {
                    bytes += entry?.metadata()?.len();
                }
            }
        }
        Ok(bytes)
    }

    /// The newest checkpoint to go on from that verifies, and what was wrong with newer ones.
    ///
    /// # Errors
    /// [`RunsError::NoCheckpoint`] if none verifies.
    pub fn last_checkpoint(&self) -> Result<(Checkpoint, Vec<RunsError>), RunsError> {
        self.last_checkpoint_of(|_| true)
    }

    /// The same among those of some steps.
    ///
    /// # Errors
    /// As [`Run::last_checkpoint`].
    pub fn last_checkpoint_of(&self, is_one: impl Fn(u64) -> bool) -> Result<(Checkpoint, Vec<RunsError>), RunsError> {
        let mut rejected = Vec::new();
        match self.newest(CheckpointKind::Last, is_one, &mut rejected)? {
            Some(checkpoint) => Ok((checkpoint, rejected)),
            None => Err(self.none_of(&rejected)),
        }
    }

    /// The best checkpoint; where there is none that verifies, the newest to go on from.
    ///
    /// # Errors
    /// [`RunsError::NoCheckpoint`] if none verifies.
    pub fn best_checkpoint(&self) -> Result<(Checkpoint, Vec<RunsError>), RunsError> {
        let mut rejected = Vec::new();
        for kind in [CheckpointKind::Best, CheckpointKind::Last] {
            if let Some(checkpoint) = self.newest(kind, |_| true, &mut rejected)? {
                return Ok((checkpoint, rejected));
            }
        }
        Err(self.none_of(&rejected))
    }

    /// The newest of a kind that verifies; what is wrong with newer ones is added to `rejected`.
    fn newest(
        &self,
        kind: CheckpointKind,
        is_one: impl Fn(u64) -> bool,
        rejected: &mut Vec<RunsError>,
    ) -> Result<Option<Checkpoint>, RunsError> {
        for (_, dir) in self.checkpoint_steps(kind)?.into_iter().rev().filter(|(step, _)| is_one(*step)) {
            match Checkpoint::open(&dir) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) => rejected.push(error),
            }
        }
        Ok(None)
    }

    /// The step of the best checkpoint, if one verifies.
    pub fn best_step(&self) -> Option<u64> {
        self.newest(CheckpointKind::Best, |_| true, &mut Vec::new()).ok().flatten().map(|checkpoint| checkpoint.step)
    }

    fn none_of(&self, rejected: &[RunsError]) -> RunsError {
        RunsError::NoCheckpoint { run: self.name().to_owned(), rejected: rejected.iter().map(ToString::to_string).collect() }
    }

    /// Steps and folders of the checkpoints of a kind, oldest first.
    pub(crate) fn checkpoint_steps(&self, kind: CheckpointKind) -> std::io::Result<Vec<(u64, PathBuf)>> {
        let dir = self.checkpoint_dir(kind);
        if !dir.is_dir() {
            return Ok(Vec::new());
        }
        let mut steps = Vec::new();
        for entry in fs_err::read_dir(dir)? {
            let path = entry?.path();
            let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
            steps.extend(step.map(|step| (step, path)));
        }
        steps.sort();
        Ok(steps)
    }

    pub(crate) fn checkpoint_dir(&self, kind: CheckpointKind) -> PathBuf {
        self.dir().join(match kind {
            CheckpointKind::Last => "checkpoints",
            CheckpointKind::Best => "best",
        })
    }
}
