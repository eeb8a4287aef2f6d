//! What can go wrong with a run folder.

use std::path::PathBuf;

use kindling_config::ConfigError;
use thiserror::Error;

/// A run that cannot be made, found, read or written.
#[derive(Debug, Error)]
pub enum RunsError {
    /// Reading or writing failed; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The saved configuration does not parse.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The name is taken.
    #[error("run `{0}` exists")]
    Exists(String),
    /// A name that cannot be a folder's.
    #[error("run name `{0}` is not made of letters, digits, `-`, `_` and `.`, or does not begin with a letter or digit, or is `latest`")]
    Name(String),
    /// No such run.
    #[error("there is no run `{name}` in `{}`{}", root.display(), among(known))]
    Unknown {
        /// As asked for.
        name: String,
        /// The folder of runs.
        root: PathBuf,
        /// The newest runs that are there.
        known: Vec<String>,
    },
    /// Another process holds the lock.
    #[error("run `{0}` is being written by another process")]
    Locked(String),
    /// No checkpoint that can be used.
    #[error("run `{run}` has no usable checkpoint{}", because(rejected))]
    NoCheckpoint {
        /// The run.
        run: String,
        /// What was wrong with each that is there.
        rejected: Vec<String>,
    },
    /// A file of another version.
    #[error("`{}` is of version {found}, expected {expected}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// As found.
        found: String,
        /// The version that this program reads.
        expected: u32,
    },
    /// A file that does not verify.
    #[error("`{}` is damaged: {what} is {found}, expected {expected}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part that does not fit.
        what: &'static str,
        /// As found.
        found: String,
        /// As expected.
        expected: String,
    },
}

fn among(known: &[String]) -> String {
    if known.is_empty() {
        String::new()
    } else {
        format!(", which has {}", known.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", "))
    }
}

fn because(rejected: &[String]) -> String {
    if rejected.is_empty() { String::new() } else { format!(": {}", rejected.join("; ")) }
}

impl RunsError {
    /// Advice that goes beside the message.
    pub fn hint(&self) -> Option<String> {
        use std::io::ErrorKind as Kind;
        Some(match self {
            Self::Io(error) => match error.kind() {
                Kind::StorageFull | Kind::FileTooLarge | Kind::QuotaExceeded => {
                    "free some space; the last good checkpoint is untouched, and `kindling train --resume RUN` goes on from it".into()
                }
                Kind::PermissionDenied | Kind::ReadOnlyFilesystem => "choose a writable folder with `--runs-dir`".into(),
                _ => return None,
            },
            Self::Config(error) => return error.hint(),
            Self::Exists(name) => format!("choose another `--name`, or go on with it: `kindling train --resume {name}`"),
            Self::Version { .. } => "it was written by another version of Kindling; use that one, or a newer one".into(),
            Self::Name(_) => "for example `--name spark-wide`".into(),
            Self::Unknown { .. } => "give a run's name, a path, or `latest`; `kindling runs list` shows what there is".into(),
            Self::Locked(_) => "wait for it, or stop it".into(),
            Self::NoCheckpoint { rejected, .. } if rejected.is_empty() => "it stopped before its first checkpoint; train it anew".into(),
            Self::NoCheckpoint { .. } => "restore the files from a backup, or train it anew".into(),
            Self::Damaged { .. } => "restore the file from a backup; other checkpoints of the run may be whole".into(),
        })
    }
}
