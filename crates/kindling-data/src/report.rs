//! What was read of a corpus, what was left out, and what cleaning did: the figures of reports and manifests.

use std::collections::BTreeMap;

use kindling_config::Redaction;
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
    /// Examples that are held out for tests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub test_documents: usize,
    /// Examples left out of training because a test has their prompt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub test_overlaps_skipped: usize,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// A step of cleaning. They are taken in this order: those up to `StopWords` change texts, the others drop documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CleaningStep {
    /// `\r\n` and lone `\r` become `\n`.
    Newlines,
    /// Normalization Form C (UAX #15).
    Nfc,
    /// Data of persons and machines are replaced.
    Redact,
    /// Frequent words are removed.
    StopWords,
    /// Documents that are too short or too long, and those of which nothing is left.
    Length,
    /// Documents with the text of an earlier one.
    Exact,
    /// Documents with nearly the words of an earlier one.
    Near,
}

/// What a step of cleaning took in, dropped and changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// Which one.
    pub step: CleaningStep,
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
    pub redacted: BTreeMap<Redaction, u64>,
}

impl StepReport {
    pub(crate) fn new(step: CleaningStep) -> Self {
        Self {
            step,
            n_documents: 0,
            n_bytes: 0,
            documents_dropped: 0,
            bytes_dropped: 0,
            documents_changed: 0,
            bytes_changed: 0,
            redacted: BTreeMap::new(),
        }
    }

    /// Bytes of text that go on to the next step.
    pub fn bytes_out(&self) -> u64 {
        (self.n_bytes - self.bytes_dropped).saturating_add_signed(self.bytes_changed)
    }
}
