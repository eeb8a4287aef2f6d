//! The negative log-likelihood of a text, as sums. Means are taken only when asked for.

use std::f64::consts::LN_2;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What a model thought of some text, summed over its predicted tokens.
///
/// Sums of nats and counts of tokens are kept apart: the mean of batch means is wrong when batches hold unequal counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nll {
    /// Sum of `-ln p` over all predicted tokens.
    pub nats: f64,
    /// Predicted tokens.
    pub tokens: u64,
    /// The part of `nats` that falls on text; tokens such as `<|endoftext|>` stand for no bytes.
    pub text_nats: f64,
    /// Bytes of raw text that the predicted tokens stand for; `None` where tokens do not determine the text.
    pub bytes: Option<u64>,
    /// Characters of text (Unicode scalar values) that they stand for, known where `bytes` are.
    pub characters: Option<u64>,
    /// Predicted tokens that were the model's likeliest.
    pub correct: u64,
    /// Predicted tokens that were among the model's [`TOP_K`] likeliest.
    pub in_top_k: u64,
}

/// How many tokens a model may name for the second accuracy that is told.
pub const TOP_K: u64 = 5;

impl Default for Nll {
    fn default() -> Self {
        Self { nats: 0.0, tokens: 0, text_nats: 0.0, bytes: Some(0), characters: Some(0), correct: 0, in_top_k: 0 }
    }
}

impl AddAssign for Nll {
    fn add_assign(&mut self, other: Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        self.text_nats += other.text_nats;
        self.bytes = self.bytes.zip(other.bytes).map(|(a, b)| a + b);
        self.characters = self.characters.zip(other.characters).map(|(a, b)| a + b);
        self.correct += other.correct;
        self.in_top_k += other.in_top_k;
    }
}

impl Nll {
    /// Mean loss in nats a token; NaN where there are no tokens.
    pub fn loss(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// `exp(loss)`.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// Bits that the model needs for a byte of text: comparable between tokenizers, where the loss a token is not.
    /// Tokens that stand for no text are left out on both sides, as in nanochat.
    pub fn bits_per_byte(&self) -> Option<f64> {
        self.bytes.filter(|bytes| *bytes > 0).map(|bytes| self.text_nats / LN_2 / bytes as f64)
    }

    /// Bits that the model needs for a character of text.
    pub fn bits_per_character(&self) -> Option<f64> {
        self.characters.filter(|characters| *characters > 0).map(|characters| self.text_nats / LN_2 / characters as f64)
    }

    /// Share of the predicted tokens that were among the model's [`TOP_K`] likeliest.
    pub fn top_k_accuracy(&self) -> f64 {
        self.in_top_k as f64 / self.tokens as f64
    }

    /// Share of the predicted tokens that were the model's likeliest.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.tokens as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_model_over_bytes_needs_eight_bits_a_byte() {
        let nll = Nll {
            nats: 100.0 * 256f64.ln(),
            tokens: 100,
            text_nats: 100.0 * 256f64.ln(),
            bytes: Some(100),
            characters: Some(50),
            ..Nll::default()
        };
        assert!((nll.perplexity() - 256.0).abs() < 1e-9);
        assert!((nll.bits_per_byte().expect("has bytes") - 8.0).abs() < 1e-12);
        assert!((nll.bits_per_character().expect("has characters") - 16.0).abs() < 1e-12);
    }

    #[test]
    fn sums_are_weighted_by_tokens_and_not_by_batches() {
        let mut total = Nll { nats: 10.0, tokens: 10, text_nats: 9.0, bytes: Some(30), characters: Some(30), correct: 5, in_top_k: 7 };
        total += Nll { nats: 9.0, tokens: 3, text_nats: 9.0, bytes: Some(9), characters: Some(6), correct: 0, in_top_k: 1 };
        assert_eq!(total.loss(), 19.0 / 13.0);
        assert_eq!(total.accuracy(), 5.0 / 13.0);
        assert_eq!(total.top_k_accuracy(), 8.0 / 13.0);
        assert_eq!(total.bits_per_character(), Some(18.0 / LN_2 / 36.0));
        assert_eq!(total.bits_per_byte(), Some(18.0 / LN_2 / 39.0));
    }

    #[test]
    fn bytes_stay_unknown_once_a_part_has_none() {
        let mut total = Nll::default();
        total += Nll { nats: 1.0, tokens: 1, text_nats: 1.0, bytes: None, characters: None, ..Nll::default() };
        total += Nll { nats: 1.0, tokens: 1, text_nats: 1.0, bytes: Some(4), characters: Some(4), ..Nll::default() };
        assert_eq!((total.bits_per_byte(), total.bits_per_character()), (None, None));
    }
}
