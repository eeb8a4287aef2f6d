//! One run folder: made once, locked while it is written, open to any number of readers.

use std::fs::TryLockError;
use std::io::Write;
use std::path::{Path, PathBuf};

use kindling_config::{BaseConfig, RunConfig};
use serde::Serialize;

use crate::checkpoint::REPLACED;
use crate::io::{UNFINISHED, hash_file, read_json, read_versioned, temp_dir, write_atomic};
use crate::{CONFIG_FILE, CheckpointKind, Manifest, RunsError, Summary};

/// Version of the run folder's layout that this crate writes; it reads all before it. 2 has the precision, 3 why a run ended.
const RUN_VERSION: u32 = 3;
const MANIFEST: &str = "manifest.json";
const SUMMARY: &str = "summary.json";
const METRICS: &str = "metrics.jsonl";
const SAMPLES: &str = "samples.md";
const TOKENIZER: &str = "tokenizer.json";
const LOCK: &str = "lock";
/// The weights that it began with.
const BASE: &str = "base.safetensors";
/// The folder of what came of tests, with a folder for each task.
const TASKS: &str = "tasks";
const SCORES_FILE: &str = "scores.json";
const PREDICTIONS_FILE: &str = "predictions.jsonl";
const REPORT_FILE: &str = "report.html";

/// A run folder.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    manifest: Manifest,
    config: RunConfig,
    /// Held as long as this process may write.
    lock: Option<fs_err::File>,
}

impl Run {
    /// Makes the folder `root/name` with config, manifest and tokenizer, and takes its lock. The folder appears whole.
    ///
    /// The weights that it begins with, `base`, if it does not begin with random ones, are copied too.
    ///
    /// # Errors
    /// The name is taken or impossible, or I/O.
    pub fn create(
        root: &Path,
        name: &str,
        config: &RunConfig,
        manifest: Manifest,
        tokenizer: &Path,
        base: Option<&Path>,
    ) -> Result<Self, RunsError> {
        Self::check_name(name)?;
        fs_err::create_dir_all(root)?;
        let dir = root.join(name);
        if dir.exists() {
            return Err(RunsError::Exists(name.to_owned()));
        }
        let manifest = Manifest { format: "kindling-run".into(), version: RUN_VERSION, name: name.to_owned(), ..manifest };
        let temp = temp_dir(root, ".creating-")?;
        write_atomic(&temp.path().join(CONFIG_FILE), config.to_toml().as_bytes())?;
        write_atomic(&temp.path().join(TOKENIZER), &fs_err::read(tokenizer)?)?;
        if let Some(base) = base {
            write_atomic(&temp.path().join(BASE), &fs_err::read(base)?)?;
        }
        write_atomic(&temp.path().join(MANIFEST), &json(&manifest))?;
        match fs_err::rename(temp.path(), &dir) {
            Ok(()) => drop(temp.keep()),
            Err(_) if dir.exists() => return Err(RunsError::Exists(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
        let mut run = Self { dir, manifest, config: config.clone(), lock: None };
        run.take_lock()?;
        Ok(run)
    }

    /// Whether a run can have this name: letters, digits, `-`, `_` and `.`, a letter or digit first, and not `latest`.
    ///
    /// # Errors
    /// [`RunsError::Name`].
    pub fn check_name(name: &str) -> Result<(), RunsError> {
        let valid = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        if begins && name != "latest" && name.chars().all(valid) { Ok(()) } else { Err(RunsError::Name(name.to_owned())) }
    }

    /// Opens a run to read.
    ///
    /// # Errors
    /// A folder that is no run, or a file of it that does not parse.
    pub fn open(dir: &Path) -> Result<Self, RunsError> {
        let manifest: Manifest = read_versioned(&dir.join(MANIFEST), "kindling-run", RUN_VERSION)?;
        let path = dir.join(CONFIG_FILE);
        let config = RunConfig::from_toml(&fs_err::read_to_string(&path)?, &path.display().to_string(), &[])?;
        Ok(Self { dir: dir.to_owned(), manifest, config, lock: None })
    }

    /// Opens a run to go on writing it.
    ///
    /// # Errors
    /// As [`Run::open`], and [`RunsError::Locked`] if another process is writing it.
    pub fn open_for_writing(dir: &Path) -> Result<Self, RunsError> {
        let mut run = Self::open(dir)?;
        run.take_lock()?;
        Ok(run)
    }

    fn take_lock(&mut self) -> Result<(), RunsError> {
        let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(self.dir.join(LOCK))?;
        match file.file().try_lock() {
            Ok(()) => self.lock = Some(file),
            Err(TryLockError::WouldBlock) => return Err(RunsError::Locked(self.name().to_owned())),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        self.remove_unfinished()
    }

    /// Removes what a killed process had begun to write; with the lock held, no living one is at it.
    fn remove_unfinished(&self) -> Result<(), RunsError> {
        let dirs = [CheckpointKind::Last, CheckpointKind::Best].map(|kind| self.checkpoint_dir(kind));
        for dir in dirs.iter().chain([&self.dir]).filter(|dir| dir.is_dir()) {
            for entry in fs_err::read_dir(dir)? {
                let path = entry?.path();
                // Killed between two renames, a checkpoint that was being replaced has lost its name, and nothing else.
                let replaced = path.file_name().and_then(|name| name.to_str()?.strip_prefix(REPLACED).map(|name| dir.join(name)));
                if let Some(name) = replaced.filter(|name| !name.exists()) {
                    fs_err::rename(&path, name)?;
                    continue;
                }
                if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED)) {
                    continue;
                }
                if path.is_dir() {
                    fs_err::remove_dir_all(path)?;
                } else {
                    fs_err::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a folder looks like a run's.
    pub(crate) fn is_run(dir: &Path) -> bool {
        // Where one of the two is missing, opening the run says so.
        dir.join(MANIFEST).is_file() || dir.join(CONFIG_FILE).is_file()
    }

    /// Whether some process is writing the run now.
    pub(crate) fn is_locked(dir: &Path) -> bool {
        std::fs::File::open(dir.join(LOCK)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The name: the folder's, also where it was copied or moved since it was made.
    pub fn name(&self) -> &str {
        self.dir.file_name().and_then(|name| name.to_str()).unwrap_or(&self.manifest.name)
    }

    /// What it was made from.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The resolved configuration, as the folder has it.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Replaces the saved configuration, as when a resumed run is to take more steps. [`Run::config`] stays what it was
    /// when the run was opened.
    ///
    /// # Errors
    /// I/O.
    pub fn save_config(&self, config: &RunConfig) -> Result<(), RunsError> {
        Ok(write_atomic(&self.dir.join(CONFIG_FILE), config.to_toml().as_bytes())?)
    }

    /// Path of the run's tokenizer, after its checksum was verified.
    ///
    /// # Errors
    /// [`RunsError::Damaged`] if it is not the file that the run began with.
    pub fn tokenizer_path(&self) -> Result<PathBuf, RunsError> {
        let path = self.dir.join(TOKENIZER);
        let found = hash_file(&path)?;
        let expected = &self.manifest.data.tokenizer_hash;
        if found != *expected {
            return Err(RunsError::Damaged { path, what: "the checksum", found, expected: expected.clone() });
        }
        Ok(path)
    }

    /// Path of the weights that the run began with, after their checksum was verified.
    ///
    /// # Errors
    /// [`RunsError::Damaged`] if they are not those that the configuration tells of.
    pub fn base_path(&self, base: &BaseConfig) -> Result<PathBuf, RunsError> {
        let path = self.dir.join(BASE);
        let found = hash_file(&path)?;
        if found != base.weights_hash {
            return Err(RunsError::Damaged { path, what: "the checksum", found, expected: base.weights_hash.clone() });
        }
        Ok(path)
    }

    /// Where the predictions of a test on a task are: JSON lines.
    pub fn task_predictions_path(&self, task: &str) -> PathBuf {
        self.dir.join(TASKS).join(task).join(PREDICTIONS_FILE)
    }

    /// Where the report on a test is: a page.
    pub fn task_report_path(&self, task: &str) -> PathBuf {
        self.dir.join(TASKS).join(task).join(REPORT_FILE)
    }

    /// Keeps what came of a test on the task of this name, in the place of what came of an earlier one: scores as JSON, predictions as JSON
    /// lines, and a report as HTML.
    ///
    /// # Errors
    /// I/O.
    pub fn save_task_results(&self, task: &str, scores: &[u8], predictions: &[u8], report: &[u8]) -> Result<(), RunsError> {
        let dir = self.dir.join(TASKS).join(task);
        fs_err::create_dir_all(&dir)?;
        write_atomic(&dir.join(SCORES_FILE), scores)?;
        write_atomic(&self.task_predictions_path(task), predictions)?;
        Ok(write_atomic(&self.task_report_path(task), report)?)
    }

    /// Appends a row to `metrics.jsonl`.
    ///
    /// # Errors
    /// I/O.
    pub fn log(&self, row: &impl Serialize) -> Result<(), RunsError> {
        let mut line = serde_json::to_vec(row).expect("plain data serialises");
        line.push(b'\n');
        self.append(METRICS, &line)
    }

    /// Every row of `metrics.jsonl`; a last line that was cut off is left out.
    ///
    /// # Errors
    /// I/O.
    pub fn metrics(&self) -> Result<Vec<serde_json::Value>, RunsError> {
        let path = self.dir.join(METRICS);
        let text = if path.exists() { fs_err::read_to_string(path)? } else { String::new() };
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Forgets what was logged after `step`: a resumed run takes those steps again.
    ///
    /// # Errors
    /// I/O.
    pub fn rewind_log(&self, step: u64) -> Result<(), RunsError> {
        let path = self.dir.join(METRICS);
        let text = if path.exists() { fs_err::read_to_string(path)? } else { String::new() };
        let is_kept = |line: &&str| {
            let row = serde_json::from_str::<serde_json::Value>(line);
            row.is_ok_and(|row| row["step"].as_u64().is_some_and(|s| s <= step))
        };
        // The lines as they are: what was written once is not formatted again.
        let kept: String = text.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        write_atomic(&self.dir.join(METRICS), kept.as_bytes())?;
        match fs_err::remove_file(self.dir.join(SUMMARY)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Appends a sample to `samples.md`.
    ///
    /// # Errors
    /// I/O.
    pub fn log_sample(&self, step: u64, text: &str) -> Result<(), RunsError> {
        self.append(SAMPLES, format!("## Step {step}\n\n{}\n", fenced(text)).as_bytes())
    }

    fn append(&self, name: &str, bytes: &[u8]) -> Result<(), RunsError> {
        let mut file = fs_err::OpenOptions::new().create(true).append(true).open(self.dir.join(name))?;
        Ok(file.write_all(bytes)?)
    }

    /// Writes `summary.json`: the run is finished.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(&self, summary: &Summary) -> Result<(), RunsError> {
        Ok(write_atomic(&self.dir.join(SUMMARY), &json(summary))?)
    }

    /// What came of the run, if it is finished.
    ///
    /// # Errors
    /// A summary that does not parse.
    pub fn summary(&self) -> Result<Option<Summary>, RunsError> {
        let path = self.dir.join(SUMMARY);
        if path.exists() { read_json(&path).map(Some) } else { Ok(None) }
    }
}

/// A text as a Markdown block that shows it as it is.
pub(crate) fn fenced(text: &str) -> String {
    // Longer than any run of backticks in the text, so that the text cannot end its block.
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(3.max(longest + 1));
    format!("{fence}text\n{text}\n{fence}\n")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("plain data serialises")
}
