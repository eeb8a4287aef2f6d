//! A corpus: documents in a fixed order, and a hash that says which corpus it is. Does not tokenise.

use std::path::Path;

use kindling_config::DataConfig;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::read::read_documents;
use crate::{DataError, ReadOptions, files, packages};

/// A piece of text that stands for itself: a file, or a row of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// A name that does not depend on the machine: a path relative to the folder or package.
    pub name: String,
    /// The package it comes from, where it comes from one.
    pub package: Option<String>,
    /// The text.
    pub text: String,
}

/// Documents in the order of their names, without repeated files where they come from packages.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// The documents.
    pub documents: Vec<Document>,
    /// What was read, and what was left out.
    pub stats: CorpusStats,
}

/// What was read, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusStats {
    /// XXH3-128 over names and texts, in hexadecimal: equal hashes, equal corpora.
    pub hash: String,
    /// Documents kept.
    pub n_documents: usize,
    /// Bytes of text kept.
    pub n_bytes: u64,
    /// Files dropped because another has the same bytes.
    pub identical_dropped: usize,
    /// Files of folders left out because they hold NUL bytes.
    pub binary_skipped: usize,
    /// Empty files and rows left out.
    pub empty_skipped: usize,
    /// Files in which `lossy` replaced invalid UTF-8.
    pub lossy_files: usize,
    /// Rows left out because they could not be read.
    #[serde(default)]
    pub bad_rows_skipped: usize,
}

impl CorpusStats {
    /// Adds what was left out of a part.
    pub(crate) fn left_out(&mut self, part: &Self) {
        self.binary_skipped += part.binary_skipped;
        self.empty_skipped += part.empty_skipped;
        self.lossy_files += part.lossy_files;
        self.bad_rows_skipped += part.bad_rows_skipped;
    }
}

impl Corpus {
    /// Reads what `config` names: its paths if there are any, else the packages of the workspace at `workspace`.
    ///
    /// # Errors
    /// [`DataError`] with the file and the place of the first problem.
    pub fn read(config: &DataConfig, workspace: &Path) -> Result<Self, DataError> {
        let mut stats = CorpusStats::default();
        let found = if config.paths.is_empty() {
            packages::sources(&config.packages, &config.exclude, workspace)?
        } else {
            files::expand(&config.paths, &config.exclude)?
        };
        let mut documents = read_documents(&found, ReadOptions::from(config), &mut stats)?;
        documents.sort_by(|a, b| a.name.cmp(&b.name));
        if config.paths.is_empty() {
            // Licences, READMEs and vendored copies repeat across packages, and would leak across the split.
            let mut seen = std::collections::HashSet::new();
            let before = documents.len();
            documents.retain(|document| seen.insert((document.text.len(), xxh3_128(document.text.as_bytes()))));
            stats.identical_dropped = before - documents.len();
        }
        if documents.is_empty() {
            let names = config.paths.iter().map(|p| p.display().to_string()).chain(config.packages.iter().cloned());
            return Err(DataError::Empty(names.collect::<Vec<_>>().join(", ")));
        }
        stats.n_documents = documents.len();
        stats.n_bytes = documents.iter().map(|d| d.text.len() as u64).sum();
        stats.hash = hash(&documents);
        Ok(Self { documents, stats })
    }
}

/// Lengths are hashed too, so that no text can pass for another's name.
fn hash(documents: &[Document]) -> String {
    let mut hasher = Xxh3::new();
    for document in documents {
        for part in [&document.name, &document.text] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    format!("{:032x}", hasher.digest128())
}
