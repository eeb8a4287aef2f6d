//! Words that a list has, taken out of a text. Stems nothing, and knows no other words than the lists'.
//!
//! A word is one of Unicode's (UAX #29), where Chinese, Japanese, Thai and their like are cut by dictionary: `的` goes and `目的`
//! stays, and so does `我的`, which is another word than the list's `我`. A word goes whatever its case, and its apostrophe may be
//! a typographic one.
//!
//! Spaces (U+0020 alone): a word takes the one behind it along if it stands at a line's beginning or behind a space, else, at a
//! line's end, the one before it. So where single spaces stood, single ones stay between what is left and none at either end of
//! a line; double spaces and indents that were there stay. Line feeds always stay.

use std::borrow::Cow;
use std::collections::HashSet;

use icu_segmenter::options::WordBreakInvariantOptions;
use icu_segmenter::{WordSegmenter, WordSegmenterBorrowed};

/// A language for which there is no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnknownLanguage {
    /// What was asked for.
    pub(crate) found: String,
    /// What there is, with commas between.
    pub(crate) known: String,
}

/// The lists of some languages, put together.
#[derive(Debug)]
pub(crate) struct StopWords {
    words: HashSet<String>,
    /// Bytes of the longest.
    longest: usize,
    segmenter: WordSegmenterBorrowed<'static>,
}

impl StopWords {
    /// The lists of `languages` (ISO 639-1), from the crate `stop-words`.
    ///
    /// # Errors
    /// The first language that has none.
    pub(crate) fn new(languages: &[String]) -> Result<Self, UnknownLanguage> {
        let mut words = HashSet::new();
        for language in languages {
            let unknown = || UnknownLanguage { found: language.clone(), known: stop_words::available_languages().join(", ") };
            words.extend(stop_words::lookup(language).ok_or_else(unknown)?.iter().map(|word| word.to_lowercase()));
        }
        let longest = words.iter().map(String::len).max().unwrap_or(0);
        Ok(Self { words, longest, segmenter: WordSegmenter::new_dictionary(WordBreakInvariantOptions::default()) })
    }

    /// `text` without the words of the lists.
    pub(crate) fn remove<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let (mut kept, mut lowercase) = (String::new(), String::new());
        let (mut start, mut copied) = (0, 0);
        for end in self.segmenter.segment_str(text).skip(1) {
            if self.contains(&text[start..end], &mut lowercase) {
                kept.push_str(&text[copied..start]);
                copied = end;
                let next = text[end..].bytes().next();
                let behind = kept.bytes().next_back();
                if next == Some(b' ') && matches!(behind, None | Some(b'\n' | b' ')) {
                    copied += 1;
                } else if matches!(next, None | Some(b'\n' | b'\r')) && behind == Some(b' ') {
                    kept.pop();
                }
            }
            start = end;
        }
        if copied == 0 {
            return Cow::Borrowed(text);
        }
        kept.push_str(&text[copied..]);
        Cow::Owned(kept)
    }

    /// Whether a list has `word`; `lowercase` is a place to work.
    fn contains(&self, word: &str, lowercase: &mut String) -> bool {
        // An apostrophe is two bytes longer if it is a typographic one, and few letters change their length with their case.
        if word.len() > 2 * self.longest || matches!(word.as_bytes(), [b' ' | b'\n' | b'.' | b',', ..]) {
            return false;
        }
        lowercase.clear();
        lowercase.extend(word.chars().flat_map(char::to_lowercase).map(|character| if character == '’' { '\'' } else { character }));
        self.words.contains(lowercase.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(languages: &[&str]) -> StopWords {
        StopWords::new(&languages.iter().map(|language| (*language).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[track_caller]
    fn check(languages: &[&str], text: &str, expected: &str) {
        assert_eq!(of(languages).remove(text), expected, "of {text:?}");
    }

    #[test]
    fn words_go_whatever_their_case() {
        check(&["en"], "The cat and THE dog", "cat dog");
        check(&["en"], "theme, Thebes, band", "theme, Thebes, band");
        check(&["en"], "I don't and didn’t bark", "bark");
        check(&["de"], "Der Hund und die Katze", "Hund Katze");
        check(&["fr", "de"], "le chien und Katze", "chien Katze");
        check(&["ru"], "Собака и кошка", "Собака кошка");
        check(&["en"], "<email> <phone> <ip> <key>", "<email> <phone> <ip> <key>");
    }

    #[test]
    fn a_word_takes_one_space_along() {
        for (text, expected) in [
            ("the cat", "cat"),
            ("cat the", "cat"),
            ("cat the dog", "cat dog"),
            ("cat of the dog", "cat dog"),
            ("cat of the", "cat"),
            ("the", ""),
            ("the of", ""),
            ("the\nof\n", "\n\n"),
            ("cat the\n  the dog\r\n", "cat\n  dog\r\n"),
            ("cat the\r\n", "cat\r\n"),
            ("cat, the, dog", "cat, , dog"),
            ("cat (the) dog", "cat () dog"),
            ("cat  the  dog", "cat   dog"),
            ("cat\tthe\tdog", "cat\t\tdog"),
            ("the, cat", ", cat"),
            ("cat the.", "cat ."),
            ("  cat  ", "  cat  "),
            ("", ""),
        ] {
            check(&["en"], text, expected);
        }
    }

    #[test]
    fn chinese_and_thai_words_are_found_by_dictionary() {
        check(&["zh"], "目的是学习语言", "目的学习语言");
        // `我的` is one word of the dictionary, which the list has not.
        check(&["zh"], "我的语言", "我的语言");
        check(&["zh"], "目的", "目的");
        check(&["th"], "แมวและหมา", "แมวหมา");
        check(&["ja"], "猫の目的", "猫目的");
    }

    #[test]
    fn every_language_of_the_crate_is_known() {
        for language in stop_words::available_languages() {
            let lists = of(&[language]);
            let n_found = stop_words::lookup(language).unwrap().iter().filter(|word| lists.remove(word).is_empty()).count();
            assert!(n_found > 0, "{language}");
        }
        assert_eq!(StopWords::new(&["EN".into()]).unwrap_err().found, "EN");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against the words themselves, put together with single spaces.
        #[test]
        fn what_stays_is_the_other_words(lines in prop::collection::vec(prop::collection::vec(prop::sample::select(
            vec!["the", "of", "don't", "cat", "dog", "Berlin"]), 0..8), 0..5)) {
            let join = |lines: &[Vec<&str>]| lines.iter().map(|words| words.join(" ")).collect::<Vec<_>>().join("\n");
            let kept: Vec<Vec<&str>> = lines.iter().map(|words| {
                words.iter().copied().filter(|word| matches!(*word, "cat" | "dog" | "Berlin")).collect()
            }).collect();
            let text = join(&lines);
            prop_assert_eq!(of(&["en"]).remove(&text), join(&kept));
        }
    }
}
