//! What is done to the texts of a corpus before they are split and encoded. Everything is off by default.

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// The steps of cleaning, in the order in which they are taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CleanConfig {
    /// Turn `\r\n` and lone `\r` into `\n`.
    pub newlines: bool,
    /// Compose characters: Unicode's Normalization Form C (UAX #15).
    pub nfc: bool,
    /// Replace such data of persons and machines by a word in angle brackets.
    pub redact: Vec<Redaction>,
    /// Remove the stop words of these languages (ISO 639-1, such as `en` and `zh`). For work with words: it ruins running text.
    pub stop_words: Vec<String>,
    /// Drop documents of fewer characters.
    pub min_chars: u64,
    /// Drop documents of more characters; 0 for no limit.
    pub max_chars: u64,
    /// Drop documents that another one repeats.
    pub dedup: Dedup,
    /// For `dedup = "near"`: the Jaccard similarity from which on two documents are the same, above 0 and at most 1.
    pub near_similarity: f64,
}

impl Default for CleanConfig {
    fn default() -> Self {
        Self {
            newlines: false,
            nfc: false,
            redact: Vec::new(),
            stop_words: Vec::new(),
            min_chars: 0,
            max_chars: 0,
            dedup: Dedup::Off,
            near_similarity: 0.8,
        }
    }
}

/// What can be redacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redaction {
    /// E-mail addresses.
    Email,
    /// Telephone numbers.
    Phone,
    /// IPv4 and IPv6 addresses.
    Ip,
    /// Keys, tokens and passwords of machines.
    Key,
}

impl Redaction {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Email, Self::Phone, Self::Ip, Self::Key];
}

/// As a configuration spells it.
impl std::fmt::Display for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Ip => "ip",
            Self::Key => "key",
        })
    }
}

/// Which repeated documents are dropped; the first one stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dedup {
    /// None.
    #[default]
    Off,
    /// Those with the same text.
    Exact,
    /// Those with nearly the same words too (MinHash, Broder 1997).
    Near,
}

impl CleanConfig {
    /// Whether nothing is done at all.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Whether whole documents are dropped at most, and none by its length or its words.
    pub(crate) fn drops_repeats_alone(&self) -> bool {
        self.dedup != Dedup::Near && Self { dedup: Dedup::Off, near_similarity: Self::default().near_similarity, ..self.clone() }.is_off()
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |key, found: String, expected: &str| ConfigError::Invalid { key, found, expected: expected.to_owned(), hint: None };
        if self.max_chars > 0 && self.min_chars > self.max_chars {
            let found = format!("{}, below `data.clean.min_chars`, {}", self.max_chars, self.min_chars);
            return Err(invalid("data.clean.max_chars", found, "0, or at least `data.clean.min_chars`"));
        }
        if !(self.near_similarity > 0.0 && self.near_similarity <= 1.0) {
            return Err(invalid("data.clean.near_similarity", self.near_similarity.to_string(), "above 0 and at most 1"));
        }
        Ok(())
    }
}
