//! chrF and chrF++ as sacrebleu computes them, from sums over segments. Without white space in the n-grams of characters, and without
//! smoothing by an epsilon.

use std::ops::AddAssign;

use crate::ngrams;
use crate::signature::{Case, signature};
use crate::words::words;

const CHARACTER_ORDER: usize = 6;
const WORD_ORDER: usize = 2;
const N_ORDERS: usize = CHARACTER_ORDER + WORD_ORDER;
/// Recall counts β times as much as precision (Popović 2016, W16-2341).
const BETA: f64 = 2.0;

/// How chrF is computed. The default is sacrebleu's: chrF2, case counts.
///
/// ```
/// use kindling_metrics::{Chrf, ChrfStats};
/// let chrf = Chrf::default();
/// let mut corpus = ChrfStats::default();
/// corpus += chrf.stats("The cat sat on the mat.", &["The cat sat on a mat."]);
/// corpus += chrf.stats("A dog ran.", &["The dog ran off."]);
/// assert_eq!(format!("{:.2}", chrf.score(&corpus)), "57.15");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chrf {
    /// Whether words count too.
    pub variant: ChrfVariant,
    /// Whether case counts.
    pub case: Case,
}

/// What n-grams are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChrfVariant {
    /// Characters, up to six (Popović 2015, W15-3049).
    #[default]
    Chrf2,
    /// Also words, up to two: chrF++ (Popović 2017, W17-4770).
    PlusPlus,
}

/// What of a segment chrF depends on. Those of segments add up to that of the corpus.
///
/// Orders 1 to 6 of characters, then 1 and 2 of words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChrfStats {
    /// N-grams that hypothesis and reference share.
    pub matches: [u64; N_ORDERS],
    /// N-grams of the hypothesis; none at an order that the reference has none of.
    pub hypothesis: [u64; N_ORDERS],
    /// N-grams of the reference.
    pub reference: [u64; N_ORDERS],
}

/// A text's n-grams' items.
struct Items<'a> {
    characters: Vec<char>,
    words: Vec<&'a str>,
}

impl Chrf {
    /// Counts the n-grams of a segment, against the reference that it scores highest with. Without references there are none.
    pub fn stats<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> ChrfStats {
        let hypothesis = self.case.apply(hypothesis);
        let hypothesis = self.items(&hypothesis);
        let mut best: Option<(f64, ChrfStats)> = None;
        for reference in references {
            let reference = self.case.apply(reference.as_ref());
            let stats = against(&hypothesis, &self.items(&reference));
            let score = self.score(&stats);
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, stats));
            }
        }
        best.map(|(_, stats)| stats).unwrap_or_default()
    }

    /// The score of a segment or of a corpus, between 0 and 100: F2 of the mean precision and the mean recall over the orders
    /// that both sides have n-grams of.
    pub fn score(&self, stats: &ChrfStats) -> f64 {
        let (mut precision, mut recall, mut n_orders) = (0.0, 0.0, 0.0);
        for i in 0..N_ORDERS {
            if stats.hypothesis[i] > 0 && stats.reference[i] > 0 {
                precision += stats.matches[i] as f64 / stats.hypothesis[i] as f64;
                recall += stats.matches[i] as f64 / stats.reference[i] as f64;
                n_orders += 1.0;
            }
        }
        if precision + recall == 0.0 {
            return 0.0;
        }
        let (precision, recall) = (precision / n_orders, recall / n_orders);
        100.0 * ((1.0 + BETA * BETA) * precision * recall / (BETA * BETA * precision + recall))
    }

    /// How the score is computed, as sacrebleu writes it. `n_references` is `None` where it differs among segments.
    pub fn signature(&self, n_references: Option<usize>) -> String {
        let word_order = match self.variant {
            ChrfVariant::Chrf2 => 0,
            ChrfVariant::PlusPlus => WORD_ORDER,
        };
        signature(n_references, &format!("case:{}|eff:yes|nc:{CHARACTER_ORDER}|nw:{word_order}|space:no", self.case.name()))
    }

    fn items<'a>(&self, text: &'a str) -> Items<'a> {
        let words_apart = match self.variant {
            ChrfVariant::Chrf2 => Vec::new(),
            ChrfVariant::PlusPlus => words(text).flat_map(punctuation_apart).collect(),
        };
        Items { characters: words(text).flat_map(str::chars).collect(), words: words_apart }
    }
}

/// A word and the mark of punctuation at its end; if there is none, that at its beginning and the word. Only one comes off: `(hi)` is
/// `(hi` and `)`, as in Popović's program.
fn punctuation_apart(word: &str) -> impl Iterator<Item = &str> {
    let mut characters = word.chars();
    let parts = match (characters.next(), characters.next_back()) {
        (Some(_), Some(last)) if last.is_ascii_punctuation() => word.split_at(word.len() - 1),
        (Some(first), Some(_)) if first.is_ascii_punctuation() => word.split_at(1),
        _ => (word, ""),
    };
    [parts.0, parts.1].into_iter().filter(|part| !part.is_empty())
}

fn against(hypothesis: &Items<'_>, reference: &Items<'_>) -> ChrfStats {
    let mut stats = ChrfStats::default();
    let mut fill = |i: usize, n_hypothesis: u64, n_reference: u64, n_shared: u64| {
        stats.matches[i] = n_shared;
        stats.hypothesis[i] = if n_reference > 0 { n_hypothesis } else { 0 };
        stats.reference[i] = n_reference;
    };
    for n in 1..=CHARACTER_ORDER {
        let (a, b) = (ngrams::counts(&hypothesis.characters, n), ngrams::counts(&reference.characters, n));
        fill(n - 1, a.values().sum(), b.values().sum(), ngrams::shared(&a, &b));
    }
    for n in 1..=WORD_ORDER {
        let (a, b) = (ngrams::counts(&hypothesis.words, n), ngrams::counts(&reference.words, n));
        fill(CHARACTER_ORDER + n - 1, a.values().sum(), b.values().sum(), ngrams::shared(&a, &b));
    }
    stats
}

impl AddAssign for ChrfStats {
    fn add_assign(&mut self, other: Self) {
        for i in 0..N_ORDERS {
            self.matches[i] += other.matches[i];
            self.hypothesis[i] += other.hypothesis[i];
            self.reference[i] += other.reference[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_mark_of_punctuation_comes_off() {
        let check = |word, expected: &[&str]| assert_eq!(punctuation_apart(word).collect::<Vec<_>>(), expected);
        check("hi", &["hi"]);
        check("(hi)", &["(hi", ")"]);
        check("\"hi", &["\"", "hi"]);
        check("é.", &["é", "."]);
        check("¿que", &["¿que"]);
        check(".", &["."]);
        check("..", &[".", "."]);
    }

    #[test]
    fn without_characters_or_references_the_score_is_0() {
        let chrf = Chrf::default();
        for (hypothesis, references) in [("", vec![]), ("", vec![""]), (" ", vec!["a"]), ("a", vec![]), ("a", vec!["\n"]), ("a", vec!["b"])]
        {
            assert_eq!(chrf.score(&chrf.stats(hypothesis, &references)), 0.0);
        }
    }

    proptest! {
        #[test]
        fn of_equal_texts_it_is_100_and_no_text_scores_higher(text in any::<String>(), other in any::<String>(), short in "[ab .]{0,8}") {
            for variant in [ChrfVariant::Chrf2, ChrfVariant::PlusPlus] {
                let chrf = Chrf { variant, case: Case::Mixed };
                for text in [&text, &short] {
                    let expected = if words(text).next().is_none() { 0.0 } else { 100.0 };
                    prop_assert!((chrf.score(&chrf.stats(text, &[text])) - expected).abs() < 1e-9);
                    prop_assert!((chrf.score(&chrf.stats(text, &[&other, text])) - expected).abs() < 1e-9);
                    prop_assert!((0.0..=100.0 + 1e-9).contains(&chrf.score(&chrf.stats(text, &[&other]))));
                }
            }
        }
    }
}
