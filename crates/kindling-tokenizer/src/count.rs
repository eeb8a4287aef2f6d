//! Counts the distinct pieces of a corpus, in parallel. Merges nothing and assigns no ids.

use std::hash::Hash;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::TokenizerError;
use crate::key::Key;
use crate::split::{SplitPattern, Splitter};

/// About how much text one task takes. The counts do not depend on it.
const CHUNK_BYTES: usize = 1 << 18;
/// How much of a file is read at once.
const BLOCK_BYTES: usize = 16 << 20;

/// How often each distinct pre-token of a corpus occurs: all that a trainer needs to know of it.
///
/// A corpus can be added part by part. Memory grows with the distinct pre-tokens, not with the corpus, and the counts depend
/// neither on the number of threads nor on how the corpus was cut into texts.
///
/// ```
/// use kindling_tokenizer::{BpeTrainer, PreTokenCounts, SplitPattern};
///
/// # fn main() -> Result<(), kindling_tokenizer::TokenizerError> {
/// let mut counts = PreTokenCounts::new(SplitPattern::Cl100k);
/// counts.add(&["low lower", "lowest low"])?;
/// counts.add_reader(&mut "any reader, of any length".as_bytes())?;
/// let bpe = BpeTrainer::new(260).train_on(&counts)?;
/// # assert_eq!(bpe.encode("low")?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PreTokenCounts {
    pattern: SplitPattern,
    max_document_bytes: Option<usize>,
    n_bytes: u64,
    /// One for each thread that has counted.
    counters: Vec<Counter>,
}

impl PreTokenCounts {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(pattern: SplitPattern) -> Self {
        Self { pattern, max_document_bytes: None, n_bytes: 0, counters: Vec::new() }
    }

    /// Of each text that is added from now on, and each reader, only so many bytes are counted, less a character that the
    /// border cuts: so that one long document does not outweigh many others.
    #[must_use]
    pub fn with_max_document_bytes(self, max_document_bytes: Option<usize>) -> Self {
        Self { max_document_bytes, ..self }
    }

    /// How many bytes of each text are counted at most.
    #[must_use]
    pub fn max_document_bytes(&self) -> Option<usize> {
        self.max_document_bytes
    }

    /// How the texts are cut.
    #[must_use]
    pub fn pattern(&self) -> &SplitPattern {
        &self.pattern
    }

    /// Bytes counted.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Adds texts, on all threads of the current rayon pool. No pre-token crosses from one text to the next.
    ///
    /// # Errors
    /// Only for a regular expression, if matching it takes too many steps.
    pub fn add(&mut self, texts: &[&str]) -> Result<(), TokenizerError> {
        let cap = |text: &&str| self.max_document_bytes.map_or(text.len(), |max| text.floor_char_boundary(max));
        let texts: Vec<&str> = texts.iter().map(|text| &text[..cap(text)]).collect();
        self.add_whole(&texts)
    }

    /// Adds one text that is read in blocks, and never as a whole unless the split is by a regular expression.
    ///
    /// # Errors
    /// If it cannot be read or is not UTF-8, or as [`add`](Self::add). What came before is then counted.
    pub fn add_reader(&mut self, reader: &mut dyn Read) -> Result<(), TokenizerError> {
        let mut reader = reader.take(self.max_document_bytes.map_or(u64::MAX, |max| max as u64));
        let capped = self.max_document_bytes.is_some();
        let mut bytes = Vec::new();
        let mut offset = 0;
        loop {
            let before = bytes.len();
            let n_read = (&mut reader).take(BLOCK_BYTES as u64).read_to_end(&mut bytes);
            n_read.map_err(|source| TokenizerError::Read { offset: offset + before as u64, source })?;
            let at_end = bytes.len() == before;
            let cut = if at_end { bytes.len() } else { self.pattern.last_safe_cut(&bytes).unwrap_or(0) };
            let text = match str::from_utf8(&bytes[..cut]) {
                Ok(text) => text,
                // The cap may have cut a character.
                Err(error) if at_end && capped && error.error_len().is_none() => {
                    str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to here")
                }
                Err(error) => return Err(TokenizerError::NotUtf8 { offset: offset + error.valid_up_to() as u64 }),
            };
            self.add_whole(&[text])?;
            if at_end {
                return Ok(());
            }
            offset += cut as u64;
            bytes.drain(..cut);
        }
    }

    fn add_whole(&mut self, texts: &[&str]) -> Result<(), TokenizerError> {
        let chunks: Vec<&str> = texts.iter().flat_map(|text| self.pattern.chunks(text, CHUNK_BYTES)).collect();
        let n_threads = rayon::current_num_threads().clamp(1, chunks.len().max(1));
        self.counters.resize_with(n_threads.max(self.counters.len()), Counter::default);
        let next = AtomicUsize::new(0);
        let pattern = &self.pattern;
        self.counters.par_iter_mut().with_max_len(1).try_for_each(|counter| {
            while let Some(chunk) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                counter.add(pattern, chunk)?;
            }
            Ok::<(), TokenizerError>(())
        })?;
        self.n_bytes += texts.iter().map(|text| text.len() as u64).sum::<u64>();
        Ok(())
    }

    /// The distinct pre-tokens with their counts, in no order.
    pub(crate) fn words(&self) -> FxHashMap<Box<[u8]>, u64> {
        let mut words = FxHashMap::default();
        for counter in &self.counters {
            counter.drain_into(&mut words);
        }
        words
    }
}

/// What one thread has counted.
#[derive(Clone, Debug)]
struct Counter {
    /// Short pre-tokens that came lately. One that another drives out of its place goes to `words`.
    recent: Vec<(Key, u64)>,
    words: FxHashMap<Box<[u8]>, u64>,
}

/// 384 KiB in all.
const RECENT_LOG2: u32 = 14;

impl Default for Counter {
    fn default() -> Self {
        Self { recent: vec![(Key::default(), 0); 1 << RECENT_LOG2], words: FxHashMap::default() }
    }
}

impl Counter {
    fn add(&mut self, pattern: &SplitPattern, text: &str) -> Result<(), TokenizerError> {
        let bytes = text.as_bytes();
        let mut splitter = Splitter::new(pattern, text);
        let mut start = 0;
        while let Some(ends) = splitter.next_ends()? {
            for &end in ends {
                let key = Key::new(bytes, start, end);
                if key.is_none() {
                    add_to(&mut self.words, &bytes[start..end], 1);
                } else {
                    let recent = &mut self.recent[key.place(RECENT_LOG2)];
                    if recent.0 == key {
                        recent.1 += 1;
                    } else {
                        let (driven_out, count) = std::mem::replace(recent, (key, 1));
                        if !driven_out.is_none() {
                            driven_out.with_bytes(|word| add_to(&mut self.words, word, count));
                        }
                    }
                }
                start = end;
            }
        }
        Ok(())
    }

    fn drain_into(&self, words: &mut FxHashMap<Box<[u8]>, u64>) {
        for (word, &count) in &self.words {
            add_to(words, word, count);
        }
        for &(key, count) in self.recent.iter().filter(|(key, _)| !key.is_none()) {
            key.with_bytes(|word| add_to(words, word, count));
        }
    }
}

fn add_to(words: &mut FxHashMap<Box<[u8]>, u64>, word: &[u8], count: u64) {
    match words.get_mut(word) {
        Some(sum) => *sum += count,
        None => {
            words.insert(Box::from(word), count);
        }
    }
}

/// How often each distinct word between white space occurs: what a [`WordVocab`](crate::WordVocab) is built from. Memory grows with
/// the distinct words, not with the texts.
#[derive(Clone, Debug, Default)]
pub struct WordCounts(FxHashMap<Box<str>, u64>);

impl WordCounts {
    /// Adds texts, on all threads of the current rayon pool. No word crosses from one text to the next.
    pub fn add(&mut self, texts: &[&str]) {
        for (word, count) in count_in_parallel(texts, |text| text.split_whitespace()) {
            match self.0.get_mut(word) {
                Some(sum) => *sum += count,
                None => drop(self.0.insert(word.into(), count)),
            }
        }
    }

    /// The last place at which a text can be cut, whatever follows it, so that its words are those of both parts.
    #[must_use]
    pub fn last_safe_cut(text: &str) -> Option<usize> {
        text.char_indices().rfind(|(_, c)| c.is_whitespace()).map(|(at, c)| at + c.len_utf8())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(word, &count)| (&**word, count))
    }
}

/// The distinct characters of texts: what a [`CharVocab`](crate::CharVocab) is built from.
#[derive(Clone, Debug, Default)]
pub struct Characters(FxHashSet<char>);

impl Characters {
    /// Adds texts, on all threads of the current rayon pool.
    pub fn add(&mut self, texts: &[&str]) {
        self.0.extend(count_in_parallel(texts, |text| text.chars()).into_keys());
    }

    /// In the order of their code points.
    pub(crate) fn sorted(&self) -> Vec<char> {
        let mut characters: Vec<char> = self.0.iter().copied().collect();
        characters.sort_unstable();
        characters
    }
}

fn count_in_parallel<'s, T, K, I>(parts: &'s [T], pieces: impl Fn(&'s T) -> I + Sync) -> FxHashMap<K, u64>
where
    T: Sync,
    K: Hash + Eq + Send,
    I: Iterator<Item = K>,
{
    parts
        .par_iter()
        .fold(FxHashMap::default, |mut counts, part| {
            for piece in pieces(part) {
                *counts.entry(piece).or_insert(0) += 1;
            }
            counts
        })
        .reduce(FxHashMap::default, |a, b| {
            let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
            for (piece, count) in small {
                *large.entry(piece).or_insert(0) += count;
            }
            large
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn naive(pattern: &SplitPattern, texts: &[&str]) -> FxHashMap<Box<[u8]>, u64> {
        let mut expected = FxHashMap::default();
        for text in texts {
            for piece in pattern.pre_tokens(text).unwrap() {
                add_to(&mut expected, piece.as_bytes(), 1);
            }
        }
        expected
    }

    #[test]
    fn texts_readers_and_threads_count_the_same() {
        let line = "let x = it's  \n\n  a line\tof 17 words;\r\n donaudampfschifffahrtsgesellschaft ";
        let text: String = (0..3 * BLOCK_BYTES / line.len()).map(|i| format!("{line}{}\n", i % 40_000)).collect();
        for pattern in ["gpt2", "cl100k", "o200k", r"\w+|\W+"] {
            let pattern: SplitPattern = pattern.parse().unwrap();
            // The whole, where a regular expression has no time for it.
            let text = if pattern.name() == "regex" { &text[..1 << 20] } else { &text };
            let expected = naive(&pattern, &[text]);
            let mut counts = PreTokenCounts::new(pattern.clone());
            counts.add(&[text]).unwrap();
            assert!(counts.words() == expected);
            let mut counts = PreTokenCounts::new(pattern);
            counts.add_reader(&mut text.as_bytes()).unwrap();
            assert!(counts.words() == expected);
            assert_eq!(counts.n_bytes(), text.len() as u64);
        }
    }

    #[test]
    fn what_is_no_text_is_told_with_its_place() {
        let mut counts = PreTokenCounts::new(SplitPattern::Gpt2);
        let mut text = "ab ".repeat(BLOCK_BYTES / 2).into_bytes();
        let place = text.len() as u64 - 2;
        text[place as usize] = 0xff;
        assert!(matches!(counts.add_reader(&mut &*text), Err(TokenizerError::NotUtf8 { offset }) if offset == place));
    }

    #[test]
    fn a_cap_never_splits_a_character() {
        for max in 0..8 {
            let mut counts = PreTokenCounts::new(SplitPattern::Gpt2).with_max_document_bytes(Some(max));
            counts.add(&["aéé", "b"]).unwrap();
            counts.add_reader(&mut "aéé".as_bytes()).unwrap();
            let kept = &"aéé"["aéé".floor_char_boundary(max)..];
            let expected = 2 * ("aéé".len() - kept.len()) + max.min(1);
            assert_eq!(counts.n_bytes(), expected as u64);
        }
    }
}
