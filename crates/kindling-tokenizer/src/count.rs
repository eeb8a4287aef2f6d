//! Counts the distinct pieces of a corpus, in parallel. Merges nothing and assigns no ids.

use std::hash::Hash;
use std::ops::Range;

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use crate::split::{PreTokens, safe_cut};

/// About how much text one task takes. The counts do not depend on it.
const CHUNK_BYTES: usize = 1 << 20;

/// How often each distinct pre-token occurs.
pub(crate) fn count_pre_tokens<'a>(texts: &[&'a str]) -> FxHashMap<&'a str, u64> {
    let chunks: Vec<(&'a str, Range<usize>)> =
        texts.iter().flat_map(|&text| chunks(text).into_iter().map(move |range| (text, range))).collect();
    count_in_parallel(&chunks, |(text, range)| PreTokens::between(text, range.start, range.end))
}

/// How often each distinct word between white space occurs.
pub(crate) fn count_words<'a>(texts: &[&'a str]) -> FxHashMap<&'a str, u64> {
    count_in_parallel(texts, |text| text.split_whitespace())
}

/// The characters that occur.
pub(crate) fn count_chars(texts: &[&str]) -> FxHashMap<char, u64> {
    count_in_parallel(texts, |text| text.chars())
}

/// Ranges of about [`CHUNK_BYTES`] whose pre-tokens together are those of the whole text.
fn chunks(text: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = safe_cut(text, start.saturating_add(CHUNK_BYTES));
        ranges.push(start..end);
        start = end;
    }
    ranges
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
mod tests {
    use super::*;
    use crate::split::pre_tokens;

    #[test]
    fn chunks_count_as_the_whole() {
        let line = "let x = it's  \n\n  a line\tof 17 words;\r\n";
        let text = line.repeat(3 * CHUNK_BYTES / line.len());
        assert!(chunks(&text).len() >= 3);
        let mut expected: FxHashMap<&str, u64> = FxHashMap::default();
        for piece in pre_tokens(&text) {
            *expected.entry(piece).or_insert(0) += 1;
        }
        assert_eq!(count_pre_tokens(&[&text]), expected);
    }
}
