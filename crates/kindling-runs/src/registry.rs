//! All runs below one folder: what they are called, how they stand, which one a user means.

use std::path::{Path, PathBuf};

use kindling_config::RunConfig;

use crate::checkpoint::CheckpointKind;
use crate::{Manifest, Run, RunsError, Summary};

/// A folder of runs.
#[derive(Clone, Debug)]
pub struct Registry {
    root: PathBuf,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// A process is writing it.
    Running,
    /// It reached its last step.
    Finished,
    /// It stopped before; `--resume` goes on.
    Interrupted,
}

/// What a list of runs shows.
#[derive(Clone, Debug)]
pub struct RunInfo {
    /// Folder.
    pub dir: PathBuf,
    /// What it was made from.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: RunConfig,
    /// How it stands.
    pub status: RunStatus,
    /// Step of the newest checkpoint.
    pub step: u64,
    /// What came of it.
    pub summary: Option<Summary>,
}

impl Registry {
    /// The runs below `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The runs that can be read, oldest first.
    fn entries(&self) -> Result<Vec<(i64, Run)>, RunsError> {
        let mut runs = Vec::new();
        if !self.root.is_dir() {
            return Ok(runs);
        }
        for entry in fs_err::read_dir(&self.root)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !hidden {
                // A folder that is no run, or a damaged one, must not hide the others; opening it by name says why.
                if let Ok(run) = Run::open(&path) {
                    runs.push((run.manifest().created_unix_ms, run));
                }
            }
        }
        runs.sort_by(|(a, run_a), (b, run_b)| (a, run_a.name()).cmp(&(b, run_b.name())));
        Ok(runs)
    }

    /// Every run, oldest first.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn list(&self) -> Result<Vec<RunInfo>, RunsError> {
        self.entries()?.into_iter().map(|(_, run)| run.info()).collect()
    }

    /// The fine-tunings, oldest first, that began with the weights that `run` began with, and learned the same data to their end.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn fine_tunings_beside(&self, run: &Run) -> Result<Vec<RunInfo>, RunsError> {
        let base = |config: &RunConfig| config.base.as_ref().map(|base| base.weights_hash.clone());
        let is_beside = |other: &Run| {
            base(other.config()).is_some_and(|hash| Some(hash) == base(run.config()))
                && other.manifest().data.data_hash == run.manifest().data.data_hash
        };
        let infos = self.entries()?.into_iter().filter(|(_, other)| is_beside(other)).map(|(_, other)| other.info());
        let has_both = |info: &RunInfo| info.summary.as_ref().is_some_and(|summary| summary.forgetting.is_some());
        Ok(infos.collect::<Result<Vec<_>, _>>()?.into_iter().filter(has_both).collect())
    }

    /// The folder that `run` means: a path, `latest`, or a name.
    ///
    /// # Errors
    /// [`RunsError::Unknown`] with the newest names.
    pub fn resolve(&self, run: &str) -> Result<PathBuf, RunsError> {
        let unknown = |runs: &[(i64, Run)]| RunsError::Unknown {
            name: run.to_owned(),
            root: self.root.clone(),
            known: runs.iter().rev().take(5).map(|(_, run)| run.name().to_owned()).collect(),
        };
        if run == "latest" {
            let runs = self.entries()?;
            return runs.last().map(|(_, run)| run.dir().to_owned()).ok_or_else(|| unknown(&runs));
        }
        let named = self.root.join(run);
        if !run.is_empty() && !run.contains(['/', '\\']) && Run::is_run(&named) {
            return Ok(named);
        }
        let path = PathBuf::from(run);
        if !run.is_empty() && Run::is_run(&path) {
            return Ok(path);
        }
        Err(unknown(&self.entries()?))
    }

    /// What a user calls a run: its name if it lies in this folder, else its path. [`Registry::resolve`] understands it.
    pub fn handle(&self, run: &Run) -> String {
        let here = run.dir().parent() == Some(&self.root);
        if here { run.name().to_owned() } else { run.dir().display().to_string() }
    }

    /// The first of `base-1`, `base-2`, … that is free.
    pub fn next_name(&self, base: &str) -> String {
        (1u64..).map(|n| format!("{base}-{n}")).find(|name| !self.root.join(name).exists()).expect("some number is free")
    }
}

impl Run {
    /// What a list of runs shows of this one.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn info(&self) -> Result<RunInfo, RunsError> {
        // A damaged summary must not hide the run; `runs show` says what is wrong with it.
        let summary = self.summary().unwrap_or(None);
        let status = match &summary {
            _ if Self::is_locked(self.dir()) => RunStatus::Running,
            Some(_) => RunStatus::Finished,
            None => RunStatus::Interrupted,
        };
        let step = self.checkpoint_steps(CheckpointKind::Last)?.last().map_or(0, |(step, _)| *step);
        Ok(RunInfo { dir: self.dir().to_owned(), manifest: self.manifest().clone(), config: self.config().clone(), status, step, summary })
    }
}
