//! A vocabulary of words between white space. Not lossless: white space and rare words are forgotten.

use std::cmp::Reverse;

use rustc_hash::FxHashMap;

use crate::WordCounts;
use crate::table::{TokenTable, distinct_special};

/// The word that stands for every word outside the vocabulary. Its token is an ordinary one, not special.
pub const UNKNOWN: &str = "<unk>";

/// A word vocabulary, for classic text classification: every run of characters without white space is a word.
#[derive(Clone, Debug)]
pub struct WordVocab {
    table: TokenTable,
    ids: FxHashMap<Box<str>, u32>,
    unknown: u32,
}

impl WordVocab {
    /// `<unk>` with id 0, then the most frequent words (equally frequent ones in byte order), then the special
    /// tokens, `vocab_size` tokens in all; fewer if the texts have fewer words, more if `vocab_size` is too
    /// small for `<unk>` and the special tokens.
    ///
    /// An empty or repeated special token is left out, and so is `<unk>`. A word of the texts that is spelled
    /// like a special token gets no token of its own: it becomes `<unk>`.
    #[must_use]
    pub fn build(texts: &[&str], vocab_size: usize, special_tokens: &[String]) -> Self {
        let mut counts = WordCounts::default();
        counts.add(texts);
        Self::from_counts(&counts, vocab_size, special_tokens)
    }

    /// As [`build`](Self::build), from words that were counted before.
    #[must_use]
    pub fn from_counts(counts: &WordCounts, vocab_size: usize, special_tokens: &[String]) -> Self {
        let special = distinct_special(special_tokens, &[UNKNOWN]);
        let mut words: Vec<(&str, u64)> = counts.iter().filter(|(word, _)| *word != UNKNOWN && !special.contains(word)).collect();
        words.sort_unstable_by_key(|&(word, count)| (Reverse(count), word));
        words.truncate(vocab_size.saturating_sub(1 + special.len()));
        let words = std::iter::once(UNKNOWN).chain(words.into_iter().map(|(word, _)| word));
        Self::from_parts(words, special)
    }

    /// The words must hold [`UNKNOWN`], and they and the special tokens must be distinct.
    pub(crate) fn from_parts<'a>(words: impl IntoIterator<Item = &'a str>, special: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = TokenTable::default();
        let ids: FxHashMap<Box<str>, u32> = words.into_iter().map(|word| (Box::from(word), table.push(word.as_bytes()))).collect();
        for token in special {
            table.push_special(token);
        }
        let unknown = ids[UNKNOWN];
        Self { table, ids, unknown }
    }

    pub(crate) fn table(&self) -> &TokenTable {
        &self.table
    }

    /// The ids of a text, one a word. Cannot fail.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        text.split_whitespace().map(|word| self.ids.get(word).copied().unwrap_or(self.unknown)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_first_and_ties_in_byte_order() {
        let special = ["<|endoftext|>".to_owned(), UNKNOWN.to_owned()];
        let vocab = WordVocab::build(&["b a c a\tb\n<|endoftext|>", "a B d"], 6, &special);
        let tokens: Vec<&[u8]> = vocab.table.iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(tokens, ["<unk>", "a", "b", "B", "c", "<|endoftext|>"].map(str::as_bytes));
        assert_eq!(vocab.encode("  c d\u{a0}a <|endoftext|> "), [4, 0, 1, 0]);
    }

    #[test]
    fn a_size_too_small_keeps_what_must_be() {
        assert_eq!(WordVocab::build(&["a b"], 0, &["<e>".to_owned()]).table.len(), 2);
    }
}
