//! Runs a model over tokens and returns sums: loss, accuracy, bytes; and over the rows of a task, and returns scores. Trains nothing and
//! prints nothing.
//!
//! There is one implementation of validation loss, [`score_batches`]; [`validate`], [`score_text`] and [`score_tokens`] only say which
//! tokens.
//!
//! A [`Predictor`] answers what a task asks, [`scores`] says how right the answers are, and [`baselines`] what they are worth.

mod baseline;
mod beside;
mod predict;
mod report;
mod score;
mod scores;
mod task;

pub use baseline::baselines;
pub use beside::{Difference, MeanScore, SideBySide, Tested, side_by_side};
pub use predict::{Answer, Asked, Predictor};
pub use report::{Course, page};
pub use score::{EvalError, Score, score_batches, score_text, score_tokens, validate};
pub use scores::{ClassReport, LabelScores, NamedScore, Prediction, SystemScores, class_report, compare, number, references, scores};
pub use task::{GroupScores, TaskReport, Test, asked, score_names};
