//! Runs a model over tokens and returns sums: loss, accuracy, bytes. Trains nothing and prints nothing.
//!
//! There is one implementation of validation loss, [`score_batches`]; [`validate`], [`score_text`] and [`score_tokens`] only say which
//! tokens.

mod score;

pub use score::{EvalError, Score, score_batches, score_text, score_tokens, validate};
