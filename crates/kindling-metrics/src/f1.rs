//! Precision, recall and F1 from three counts. What is counted is another file's affair: examples of a class, n-grams, words.

use serde::Serialize;

/// Precision, recall and their harmonic mean, each between 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PrecisionRecallF1 {
    /// Share of what was predicted that is right.
    pub precision: f64,
    /// Share of what is right that was predicted.
    pub recall: f64,
    /// `2·precision·recall / (precision + recall)`; of an average over classes, the average of their F1.
    pub f1: f64,
}

impl PrecisionRecallF1 {
    /// From how much was predicted rightly, how much was predicted, and how much there was to predict.
    ///
    /// A share of nothing is 0, as in scikit-learn (`zero_division`) and rouge_score.
    pub fn from_counts(n_hits: u64, n_predicted: u64, n_true: u64) -> Self {
        let (precision, recall) = (share(n_hits as f64, n_predicted as f64), share(n_hits as f64, n_true as f64));
        // Rounded as rouge_score rounds it, or of two references that are as good another could be the best.
        Self { precision, recall, f1: share(2.0 * precision * recall, precision + recall) }
    }
}

/// A quotient that is 0 where it is one of nothing.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}
