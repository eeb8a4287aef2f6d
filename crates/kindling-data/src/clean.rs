//! What is done to the text of one document. Drops no documents and compares none.
//!
//! Every step works within lines, so that a long document may be cleaned in stretches that end behind a line feed.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use memchr::memchr;

use self::redact::Redactor;
pub(crate) use self::stop_words::{StopWords, UnknownLanguage};
use kindling_config::CleanConfig;

use crate::CleaningStep;

pub(crate) mod redact;
mod stop_words;

/// The steps that change texts, in their order.
pub(crate) const CHANGING: [CleaningStep; 4] = [CleaningStep::Newlines, CleaningStep::Nfc, CleaningStep::Redact, CleaningStep::StopWords];

/// What a step did to a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) changed: bool,
    /// Bytes after it less bytes before it.
    pub(crate) bytes: i64,
}

/// What all the steps did to a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// By [`CHANGING`].
    pub(crate) steps: [Change; 4],
    /// How often data were replaced, by [`kindling_config::Redaction`].
    pub(crate) redacted: [u64; 4],
}

impl Changes {
    /// Adds what was done to a further stretch of the same document.
    pub(crate) fn add(&mut self, other: &Self) {
        for (step, other) in self.steps.iter_mut().zip(other.steps) {
            step.changed |= other.changed;
            step.bytes += other.bytes;
        }
        for (count, other) in self.redacted.iter_mut().zip(other.redacted) {
            *count += other;
        }
    }
}

/// The steps that a configuration asks for.
#[derive(Debug)]
pub(crate) struct Cleaner {
    newlines: bool,
    nfc: bool,
    redactor: Option<Redactor>,
    stop_words: Option<StopWords>,
}

impl Cleaner {
    /// None where no step changes texts.
    ///
    /// # Errors
    /// A language without a list of stop words.
    pub(crate) fn new(config: &CleanConfig) -> Result<Option<Self>, UnknownLanguage> {
        let cleaner = Self {
            newlines: config.newlines,
            nfc: config.nfc,
            redactor: (!config.redact.is_empty()).then(|| Redactor::new(&config.redact)),
            stop_words: if config.stop_words.is_empty() { None } else { Some(StopWords::new(&config.stop_words)?) },
        };
        let is_active = cleaner.active().next().is_some();
        Ok(is_active.then_some(cleaner))
    }

    /// Takes the steps on a document, or on a stretch of one that ends behind a line feed, where also the next begins: the
    /// stretches put together, and their changes added, are those of the whole.
    pub(crate) fn clean<'t>(&self, text: &'t str) -> (Cow<'t, str>, Changes) {
        let mut changes = Changes::default();
        let mut cleaned = Cow::Borrowed(text);
        for step in self.active() {
            let n_before = cleaned.len();
            if let Some(after) = self.take(step, &cleaned, &mut changes.redacted) {
                changes.steps[step as usize] = Change { changed: true, bytes: after.len() as i64 - n_before as i64 };
                cleaned = Cow::Owned(after);
            }
        }
        (cleaned, changes)
    }

    /// The steps that are taken, in their order.
    pub(crate) fn active(&self) -> impl Iterator<Item = CleaningStep> {
        let active = [self.newlines, self.nfc, self.redactor.is_some(), self.stop_words.is_some()];
        CHANGING.into_iter().zip(active).filter_map(|(step, active)| active.then_some(step))
    }

    /// What `step` makes of a text, or None where it leaves it as it is.
    fn take(&self, step: CleaningStep, text: &str, redacted: &mut [u64; 4]) -> Option<String> {
        let after = match step {
            CleaningStep::Newlines => newlines(text),
            CleaningStep::Nfc => const { ComposingNormalizerBorrowed::new_nfc() }.normalize(text),
            CleaningStep::Redact => self.redactor.as_ref()?.redact(text, redacted),
            CleaningStep::StopWords => self.stop_words.as_ref()?.remove(text),
            // These change no text.
            CleaningStep::Length | CleaningStep::Exact | CleaningStep::Near => return None,
        };
        match after {
            Cow::Borrowed(_) => None,
            Cow::Owned(after) => Some(after),
        }
    }
}

/// `text` with `\n` for `\r\n` and for lone `\r`.
fn newlines(text: &str) -> Cow<'_, str> {
    let Some(first) = memchr(b'\r', text.as_bytes()) else {
        return Cow::Borrowed(text);
    };
    let mut after = String::with_capacity(text.len());
    after.push_str(&text[..first]);
    for line in text[first + 1..].split('\r') {
        // What a `\r` was before; its own `\n` is there already.
        if !line.starts_with('\n') {
            after.push('\n');
        }
        after.push_str(line);
    }
    Cow::Owned(after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use kindling_config::Redaction;

    fn all() -> CleanConfig {
        CleanConfig {
            newlines: true,
            nfc: true,
            redact: Redaction::ALL.to_vec(),
            stop_words: vec!["en".into(), "zh".into(), "th".into()],
            ..CleanConfig::default()
        }
    }

    #[track_caller]
    fn check(config: CleanConfig, text: &str, expected: &str) {
        let (cleaned, changes) = Cleaner::new(&config).unwrap().unwrap().clean(text);
        assert_eq!(cleaned, expected);
        assert_eq!(changes.steps.iter().map(|step| step.bytes).sum::<i64>(), expected.len() as i64 - text.len() as i64);
        assert_eq!(changes.steps.iter().any(|step| step.changed), text != expected);
    }

    #[test]
    fn newlines_become_line_feeds() {
        let config = || CleanConfig { newlines: true, ..CleanConfig::default() };
        check(config(), "a\r\nb\rc\n\r\r\n\n\rd\r", "a\nb\nc\n\n\n\n\nd\n");
        check(config(), "a\nb\n", "a\nb\n");
        check(config(), "\r", "\n");
        check(config(), "", "");
    }

    #[test]
    fn characters_are_composed() {
        let config = || CleanConfig { nfc: true, ..CleanConfig::default() };
        check(config(), "Cafe\u{301} \u{1112}\u{1161}\u{11ab} \u{212b}", "Caf\u{e9} \u{d55c} \u{c5}");
        check(config(), "\u{301}a\n\u{301}", "\u{301}a\n\u{301}");
        check(config(), "ﬁ plain", "ﬁ plain");
    }

    #[test]
    fn steps_are_taken_in_their_order_and_told_apart() {
        let cleaner = Cleaner::new(&all()).unwrap().unwrap();
        assert_eq!(cleaner.active().collect::<Vec<_>>(), CHANGING);
        let (cleaned, changes) = cleaner.clean("the cafe\u{301} at ada@example.com\r\n10.0.0.1");
        assert_eq!(cleaned, "caf\u{e9} <email>\n<ip>");
        assert_eq!(changes.steps.map(|step| step.bytes), [-1, -1, -8 - 4, -4 - 3]);
        assert_eq!(changes.redacted, [1, 0, 1, 0]);
        let (same, changes) = cleaner.clean("cats\n");
        assert!(matches!(same, Cow::Borrowed(_)));
        assert_eq!(changes, Changes::default());
    }

    #[test]
    fn nothing_to_do_is_no_cleaner_and_an_unknown_language_an_error() {
        let lengths = CleanConfig { min_chars: 5, ..CleanConfig::default() };
        assert!(Cleaner::new(&lengths).unwrap().is_none());
        let unknown = CleanConfig { stop_words: vec!["en".into(), "xx".into()], ..CleanConfig::default() };
        let error = Cleaner::new(&unknown).unwrap_err();
        assert_eq!(error.found, "xx");
        assert!(error.known.contains("de, "), "{}", error.known);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn stretches_are_cleaned_as_the_whole_is(
            fragments in prop::collection::vec(prop_oneof![
                3 => prop::sample::select(vec![
                    "\n", "\n", "\r\n", "\r", " ", "  ", "the", "The", "don't", "cat", "的", "目的", "我们", "是", "ไทย", "และ", "e", "\u{301}",
                    "\u{327}", "\u{1112}", "\u{1161}", "\u{1f1e9}", "\u{200d}", "\u{85}", "\u{2028}", "a@b.com", "10.0.0.1", "555-123-4567",
                    "+49 30 ", "token = \"abc123\"", "'", ".", "-",
                ]).prop_map(str::to_owned),
                1 => any::<String>(),
            ], 0..24),
            steps in any::<[bool; 4]>(),
        ) {
            let text = fragments.concat();
            let mut config = all();
            (config.newlines, config.nfc) = (steps[0], steps[1]);
            config.redact.truncate(if steps[2] { 4 } else { 0 });
            config.stop_words.truncate(if steps[3] { 3 } else { 0 });
            if let Some(cleaner) = Cleaner::new(&config).unwrap() {
                let (whole, changes) = cleaner.clean(&text);
                let (mut put_together, mut added) = (String::new(), Changes::default());
                for stretch in text.split_inclusive('\n') {
                    let (cleaned, changes) = cleaner.clean(stretch);
                    put_together.push_str(&cleaned);
                    added.add(&changes);
                }
                prop_assert_eq!(put_together, whole.as_ref());
                prop_assert_eq!(added, changes);
                prop_assert_eq!(whole.len() as i64 - text.len() as i64, changes.steps.iter().map(|step| step.bytes).sum::<i64>());
            }
        }
    }
}
