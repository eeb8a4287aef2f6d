//! What was read of a corpus, what was left out, and what cleaning did: the figures of reports and manifests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was read, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusStats {
    /// XXH3-128 over names and texts as they were read, in hexadecimal: equal hashes, equal corpora.
    pub hash: String,
    /// Documents kept.
    pub n_documents: usize,
    /// Bytes of text kept.
    pub n_bytes: u64,
    /// Documents dropped because another has the same text.
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
    /// Packed files of which the rest was left out behind some damage.
    #[serde(default)]
    pub damaged_skipped: usize,
}

/// What a step of cleaning took in, dropped and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// `newlines`, `nfc`, `redact`, `stop_words`, `length`, `exact` or `near`.
    pub step: String,
    /// Documents in.
    pub n_documents: usize,
    /// Bytes of text in.
    pub n_bytes: u64,
    /// Documents dropped.
    pub documents_dropped: usize,
    /// Bytes of their text.
    pub bytes_dropped: u64,
    /// Documents changed.
    pub documents_changed: usize,
    /// Bytes that they have more than before; less, if negative.
    pub bytes_changed: i64,
    /// For `redact`: how many of each kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redacted: BTreeMap<String, u64>,
}

impl StepReport {
    /// Bytes of text that go on to the next step.
    pub fn bytes_out(&self) -> u64 {
        (self.n_bytes - self.bytes_dropped).saturating_add_signed(self.bytes_changed)
    }
}
