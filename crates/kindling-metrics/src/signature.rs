//! The text that says how a BLEU or chrF was computed, in sacrebleu's format (Post 2018, arXiv:1804.08771). Scores are compared only
//! where it is the same.

use std::borrow::Cow;

/// Whether upper and lower case differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Case {
    /// They do.
    #[default]
    Mixed,
    /// Text is made lower case first.
    Lower,
}

impl Case {
    pub(crate) fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Mixed => text.into(),
            Self::Lower => text.to_lowercase().into(),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Lower => "lc",
        }
    }
}

/// `None` is a number of references that is not the same for all segments.
pub(crate) fn signature(n_references: Option<usize>, how: &str) -> String {
    let n_references = n_references.map_or("var".into(), |n| n.to_string());
    format!("nrefs:{n_references}|{how}|version:kindling-{}", env!("CARGO_PKG_VERSION"))
}
