//! What can go wrong with a run folder.

use std::path::PathBuf;

use kindling_config::ConfigError;
use thiserror::Error;

/// A run that cannot be made, found, read or written.
#[derive(Debug, Error)]
pub enum RunsError {
    /// Reading or writing failed; the message names the path.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The saved configuration does not parse.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The name is taken.
    #[error("run `{0}` exists")]
    Exists(String),
    /// A name that cannot be a folder's.
    #[error("`{0}` cannot be a run's name, expected letters, digits, `-`, `_` and `.`, the first a letter or digit, and not `latest`")]
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
    #[error("`{}` is of version {found}, expected {}", path.display(), if *newest == 1 { "1".to_owned() } else { format!("1 to {newest}") })]
    Version {
        /// The file.
        path: PathBuf,
        /// As found.
        found: String,
        /// The newest version that this program reads.
        newest: u32,
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
        Some(match self {
            // The command knows what an I/O error means for its folders.
            Self::Io(_) => return None,
            Self::Config(error) => return error.hint(),
            Self::Exists(name) => format!("choose another `--name`, or go on with it: `kindling train --resume {name}`"),
            Self::Version { .. } => "it was written by another version of Kindling; use that one, or a newer one".into(),
            Self::Name(_) => "for example `--name spark-wide`".into(),
            Self::Unknown { .. } => "give a run's name, a path, or `latest`; `kindling runs list` shows what there is".into(),
            Self::Locked(_) => "wait for it, or stop it".into(),
            Self::NoCheckpoint { run, rejected } if rejected.is_empty() => {
                format!("it stopped before its first checkpoint; `kindling train --resume {run}` begins it again")
            }
            Self::NoCheckpoint { .. } => "restore the files from a backup, or train it anew".into(),
            Self::Damaged { .. } => "restore the file from a backup; other checkpoints of the run may be whole".into(),
        })
    }
}
