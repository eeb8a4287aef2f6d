//! What can be wrong with weights on disk.

use std::path::PathBuf;

use thiserror::Error;

/// Weights that cannot be written or read.
#[derive(Debug, Error)]
pub enum ModelError {
    /// Reading or writing failed.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a SafeTensors file, or cut short.
    #[error("`{}` is not a SafeTensors file: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// Not written by Kindling, or by another version.
    #[error("`{}` has {} for `{key}` in its metadata, expected version {expected}", path.display(), .found.as_deref().unwrap_or("nothing"))]
    Version {
        /// The file.
        path: PathBuf,
        /// `kindling` in files of weights, `kindling-adapter` in those of adapters.
        key: &'static str,
        /// The version found.
        found: Option<String>,
        /// The version that this program reads.
        expected: &'static str,
    },
    /// An adapter for other weights.
    #[error("the adapter `{}` was trained on weights with the hash {found}, expected those of this base, {expected}", path.display())]
    Base {
        /// The file.
        path: PathBuf,
        /// Hash of the weights that it was trained on.
        found: String,
        /// Hash of the weights that it was to stand beside.
        expected: String,
    },
    /// A tensor is missing, is unknown, or has another shape or type.
    #[error("`{}`: tensor `{name}` is {found}, expected {expected}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The parameter's path in the model.
        name: String,
        /// As found.
        found: String,
        /// As expected.
        expected: String,
    },
}

impl ModelError {
    /// Advice that goes beside the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } => None,
            Self::Format { .. } => {
                Some("the file is damaged, or is none of weights; restore it, or, if it is in a checkpoint of a run, delete the checkpoint's folder, so that the one before is used".into())
            }
            Self::Base { .. } => Some("an adapter fits the weights that it was trained on alone; name the run that they are from".into()),
            Self::Version { .. } => Some("it was written by another program or version; use that one".into()),
            Self::Tensor { .. } => Some("the weights belong to a model of another shape; use the config saved in the same run".into()),
        }
    }
}
