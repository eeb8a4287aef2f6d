//! Numbers from predictions: loss, perplexity, bits per byte, next-token accuracy, and what their curves say; scores of classes,
//! translations, summaries and answers, and how sure they are. Runs no model and knows no tensors.
//!
//! Everything is kept as sums and counts, and divided once, at the end:
//!
//! ```
//! use kindling_metrics::Nll;
//! let mut total = Nll::default();
//! total += Nll { nats: 6.0, tokens: 2, text_nats: 6.0, bytes: Some(9), characters: Some(9), correct: 1, in_top_k: 2 };
//! total += Nll { nats: 2.0, tokens: 2, text_nats: 2.0, bytes: Some(3), characters: Some(3), correct: 1, in_top_k: 2 };
//! assert_eq!(total.loss(), 2.0);
//! assert_eq!(total.accuracy(), 0.5);
//! assert!((total.bits_per_byte().unwrap() - 8.0 / 12.0 / std::f64::consts::LN_2).abs() < 1e-12);
//! ```
//!
//! So a score's interval costs no more than adding the segments' sums anew:
//!
//! ```
//! use kindling_metrics::{Bleu, Bootstrap};
//! let bleu = Bleu::default();
//! let pairs = [("a b c d e", "a b c d e"), ("a b c d f", "a b c d e"), ("a b c d", "a b c d e")];
//! let segments = pairs.map(|(hypothesis, reference)| bleu.stats(hypothesis, &[reference]));
//! let interval = Bootstrap::default().interval_of_sum(&segments, |sum| bleu.score(sum).score).unwrap();
//! assert!(interval.low < interval.high && interval.high <= 100.0 + 1e-9);
//! ```
//!
//! Scores of text equal those of the programs that define them: scikit-learn, sacrebleu, rouge_score and SQuAD's script, on the data of
//! `tests/golden/metrics.json`.

mod nll;
mod verdict;

mod calibration;
mod classification;
mod roc_auc;

mod bleu;
mod chrf;
mod diversity;
mod edit_distance;
mod rouge;
mod squad;

mod bootstrap;

mod f1;
mod mean;
mod ngrams;
mod signature;
mod words;

#[cfg(test)]
mod golden;

pub use bleu::{Bleu, BleuOrder, BleuScore, BleuStats, BleuTokenizer, Smoothing};
pub use bootstrap::{Bootstrap, Comparison, Interval};
pub use calibration::{Calibration, ProbabilityScores};
pub use chrf::{Chrf, ChrfStats, ChrfVariant};
pub use classification::{Average, ClassScores, Confusion};
pub use diversity::{Distinct, distinct_n, repeated_n};
pub use edit_distance::Edits;
pub use f1::PrecisionRecallF1;
pub use mean::Mean;
pub use nll::{Nll, TOP_K};
pub use roc_auc::{roc_auc, roc_auc_one_vs_rest};
pub use rouge::Rouge;
pub use signature::Case;
pub use squad::{Squad, normalize_answer};
pub use verdict::{Evaluation, Gap, Trend, Verdict, verdict};
pub use words::words;
