//! Numbers from predictions: loss, perplexity, bits per byte, next-token accuracy, and what their curves say. Runs no model and
//! knows no tensors.
//!
//! Everything is kept as sums and counts, and divided once, at the end:
//!
//! ```
//! use kindling_metrics::Nll;
//! let mut total = Nll::default();
//! total += Nll { nats: 6.0, tokens: 2, text_nats: 6.0, bytes: Some(9), correct: 1 };
//! total += Nll { nats: 2.0, tokens: 2, text_nats: 2.0, bytes: Some(3), correct: 1 };
//! assert_eq!(total.loss(), 2.0);
//! assert_eq!(total.accuracy(), 0.5);
//! assert!((total.bits_per_byte().unwrap() - 8.0 / 12.0 / std::f64::consts::LN_2).abs() < 1e-12);
//! ```

mod nll;
mod verdict;

pub use nll::Nll;
pub use verdict::{Evaluation, Gap, Trend, Verdict, verdict};
