//! What can be wrong with a configuration, in words a user can act on.

use thiserror::Error;

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The text is not TOML, or a value has the wrong type.
    #[error("{source_name}: {message}")]
    Parse {
        /// File name, or `--set`.
        source_name: String,
        /// What the parser says, with line and column where it knows them.
        message: String,
    },
    /// A key that no part of the configuration has.
    #[error("{source_name}{}: unknown key `{key}`, expected one of {}", line.map_or(String::new(), |line| format!(", line {line}")), quoted(expected))]
    UnknownKey {
        /// File name, or `--set`.
        source_name: String,
        /// Line in the file, from 1, where it is known.
        line: Option<usize>,
        /// The key as found.
        key: String,
        /// Every key that would have been understood there.
        expected: Vec<String>,
    },
    /// An override that is not of the form `key=value`.
    #[error("override `{found}` is not of the form `section.key=value`")]
    Override {
        /// The override as given.
        found: String,
    },
    /// A task that is well formed and impossible.
    #[error("{source_name}: {error}")]
    Task {
        /// File name.
        source_name: String,
        /// What is wrong, by the keys of the file.
        error: Box<ConfigError>,
    },
    /// A value that is well formed and impossible.
    #[error("`{key}` is {found}, expected {expected}")]
    Invalid {
        /// Dotted key.
        key: &'static str,
        /// The value found.
        found: String,
        /// What would be right.
        expected: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl ConfigError {
    /// Advice that goes beside the message.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownKey { key, expected, .. } => expected
                .iter()
                .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
                .min()
                .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(key.len()) / 3)
                .map_or("`docs/formats.md` lists every key".into(), |(_, candidate)| format!("did you mean `{candidate}`?")),
            Self::Task { error, .. } => match &**error {
                Self::Invalid { hint: None, .. } => "change it in the task's file; `docs/formats.md` says what each key means".into(),
                error => return error.hint(),
            },
            Self::Override { .. } => "for example `--set train.steps=500`".into(),
            Self::Invalid { key, hint, .. } => {
                hint.clone().unwrap_or_else(|| format!("change it in the config, or pass `--set {key}=VALUE`"))
            }
            Self::Parse { .. } => "`docs/formats.md` lists every key with its type; `configs/` has whole examples".into(),
        })
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
