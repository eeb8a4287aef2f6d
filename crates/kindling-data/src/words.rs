//! The words of a text as hashes: what documents are compared by. Knows no language.

use std::ops::Range;

/// 2^64 over the golden ratio: odd, and its bits have no pattern.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hands over the hash of each word and where it stands.
///
/// A word is a run of letters and digits, whatever their case; of scripts that put no spaces between words each character is one.
#[inline]
pub(crate) fn for_each_word(text: &str, mut f: impl FnMut(u64, Range<usize>)) {
    let mut word: Option<(u64, usize)> = None;
    for (at, character) in text.char_indices() {
        let is_part = character.is_alphanumeric();
        let is_whole = is_part && is_word_by_itself(character);
        if (!is_part || is_whole)
            && let Some((hash, start)) = word.take()
        {
            f(hash, start..at);
        }
        if is_whole {
            f(extend(GOLDEN, character), at..at + character.len_utf8());
        } else if is_part {
            let (hash, start) = word.unwrap_or((GOLDEN, at));
            let lower = |hash| character.to_lowercase().fold(hash, extend);
            word = Some((if character.is_ascii() { extend(hash, character.to_ascii_lowercase()) } else { lower(hash) }, start));
        }
    }
    if let Some((hash, start)) = word {
        f(hash, start..text.len());
    }
}

/// A word's hash with a further character (FNV-1a, over characters).
fn extend(word: u64, character: char) -> u64 {
    (word ^ u64::from(character)).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Letters of scripts that put no spaces between words: Thai and Lao, Burmese, Khmer, Japanese and Chinese.
fn is_word_by_itself(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ff9f}' | '\u{20000}'..='\u{3ffff}')
}

/// The hashes of the runs of so many words, as they come in: a polynomial that rolls on from run to run (Karp and Rabin 1987).
pub(crate) struct Runs {
    /// The last words, the oldest of them at `oldest`.
    words: Vec<u64>,
    oldest: usize,
    /// 2^64 over the golden ratio to the number of words.
    leaving: u64,
    n_words: usize,
    hash: u64,
}

impl Runs {
    pub(crate) fn new(length: usize) -> Self {
        Self { words: vec![0; length], oldest: 0, leaving: GOLDEN.wrapping_pow(length as u32), n_words: 0, hash: 0 }
    }

    /// Takes a word; the hash of the run that ends with it, once there are enough of them.
    #[inline]
    pub(crate) fn push(&mut self, word: u64) -> Option<u64> {
        let oldest = std::mem::replace(&mut self.words[self.oldest], word);
        self.oldest = if self.oldest + 1 == self.words.len() { 0 } else { self.oldest + 1 };
        self.hash = self.hash.wrapping_mul(GOLDEN).wrapping_add(word).wrapping_sub(oldest.wrapping_mul(self.leaving));
        self.n_words += 1;
        (self.n_words >= self.words.len()).then(|| mix(self.hash))
    }

    /// The hash of all words, where they are fewer than a run has.
    pub(crate) fn short(&self) -> Option<u64> {
        (1..self.words.len()).contains(&self.n_words).then(|| mix(self.hash))
    }
}

/// Every bit of `x` in every bit of the result (the finalizer of SplitMix64, Steele, Lea and Flood 2014).
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<(u64, &str)> {
        let mut words = Vec::new();
        for_each_word(text, |hash, range| words.push((hash, &text[range])));
        words
    }

    #[test]
    fn words_are_runs_of_letters_or_characters_of_scripts_without_spaces() {
        let spelled = |text| words(text).into_iter().map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(spelled("It's 3.5 größer, (as-is)"), ["It", "s", "3", "5", "größer", "as", "is"]);
        assert_eq!(spelled("GPT模型 ok"), ["GPT", "模", "型", "ok"]);
        assert_eq!(spelled(" .\n"), [""; 0]);
    }

    #[test]
    fn case_does_not_matter_and_order_of_letters_does() {
        let hash = |text| words(text)[0].0;
        assert_eq!(hash("Größe"), hash("gRÖßE"));
        assert_ne!(hash("ab"), hash("ba"));
    }

    #[test]
    fn a_run_has_the_same_hash_wherever_it_stands() {
        let runs = |text: &str| {
            let (mut runs, mut found) = (Runs::new(3), Vec::new());
            for_each_word(text, |word, _| found.extend(runs.push(word)));
            (found, runs.short())
        };
        let (a, b) = (runs("one two three four").0, runs("zero one Two THREE").0);
        assert_eq!((a.len(), b.len()), (2, 2));
        assert_eq!(a[0], b[1]);
        assert_ne!(a[1], b[0]);
        assert_eq!((runs("one two").0.len(), runs("one two").1.is_some(), runs("").1), (0, true, None));
    }
}
