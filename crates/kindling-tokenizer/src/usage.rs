//! How well a vocabulary fits a text: bytes a token, and which tokens come. Prints nothing.

use rayon::prelude::*;

use crate::{Tokenizer, TokenizerError};

/// How often each token of a vocabulary comes in texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// How often each id comes.
    pub counts: Vec<u64>,
    /// Bytes of the texts.
    pub n_bytes: u64,
    /// Tokens of the texts.
    pub n_tokens: u64,
}

impl Usage {
    /// Nothing encoded yet.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { counts: vec![0; tokenizer.vocab_size()], n_bytes: 0, n_tokens: 0 }
    }

    /// Adds texts, on all threads of the current rayon pool.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], for the first such text.
    pub fn add(&mut self, tokenizer: &Tokenizer, texts: &[&str]) -> Result<(), TokenizerError> {
        // A bounded number of ids is in memory at a time.
        for texts in texts.chunks(4 * rayon::current_num_threads()) {
            let encoded: Vec<_> = texts.par_iter().map(|text| tokenizer.encode(text)).collect();
            for (text, ids) in texts.iter().zip(encoded) {
                let ids = ids?;
                self.n_bytes += text.len() as u64;
                self.n_tokens += ids.len() as u64;
                for id in ids {
                    self.counts[id as usize] += 1;
                }
            }
        }
        Ok(())
    }

    /// Bytes a token: the more, the shorter are the sequences that a model sees. `None` without tokens.
    #[must_use]
    pub fn bytes_per_token(&self) -> Option<f64> {
        (self.n_tokens > 0).then(|| self.n_bytes as f64 / self.n_tokens as f64)
    }

    /// Ids that never come, ascending. Special tokens are not among them: text does not yield them.
    #[must_use]
    pub fn unused(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        (0u32..).zip(&self.counts).filter(|&(id, &count)| count == 0 && !tokenizer.is_special(id)).map(|(id, _)| id).collect()
    }
}

impl Tokenizer {
    /// The ids of the `n` longest tokens that are not special, the longest first, of equally long ones the lowest id.
    #[must_use]
    pub fn longest_tokens(&self, n: usize) -> Vec<u32> {
        let mut ids: Vec<(std::cmp::Reverse<usize>, u32)> =
            self.table().ordinary().map(|(id, bytes)| (std::cmp::Reverse(bytes.len()), id)).collect();
        ids.sort_unstable();
        ids.truncate(n);
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// The ids of the special tokens, ascending.
    #[must_use]
    pub fn special_ids(&self) -> &[u32] {
        self.table().special_ids()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::{BpeTrainer, END_OF_TEXT};

    #[test]
    fn counts_are_those_of_the_ids() {
        let tokenizer = Tokenizer::from(BpeTrainer::new(259).with_special_tokens(&[END_OF_TEXT]).train(&["abab abab"]).unwrap());
        assert_eq!(tokenizer.longest_tokens(2), [257, 256]);
        let mut usage = Usage::new(&tokenizer);
        assert_eq!(usage.bytes_per_token(), None);
        usage.add(&tokenizer, &["ababx", "ab"]).unwrap();
        assert_eq!((usage.n_bytes, usage.n_tokens, usage.counts[257], usage.counts[256]), (7, 3, 1, 1));
        let unused = usage.unused(&tokenizer);
        assert_eq!(unused.len(), 255);
        assert!(!unused.contains(&258) && !unused.contains(&u32::from(b'x')));
    }
}
