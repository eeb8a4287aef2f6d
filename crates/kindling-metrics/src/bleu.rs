//! BLEU as sacrebleu computes it, from sums over segments. Knows no language: tokenizers that need a dictionary or a model are not here.

mod tokenize;

use std::collections::HashMap;
use std::ops::AddAssign;

use serde::Serialize;

use crate::ngrams;
use crate::signature::{Case, signature};
use crate::words::{is_space, words};

pub use self::tokenize::BleuTokenizer;

/// The longest n-grams that count.
const MAX_ORDER: usize = 4;

/// How BLEU is computed. The default is sacrebleu's.
///
/// ```
/// use kindling_metrics::{Bleu, BleuStats};
/// let bleu = Bleu::default();
/// let mut corpus = BleuStats::default();
/// corpus += bleu.stats("The cat sat on the mat.", &["The cat sat on the mat."]);
/// corpus += bleu.stats("A dog ran.", &["The dog ran off.", "A dog ran away."]);
/// assert_eq!(format!("{:.2}", bleu.score(&corpus).score), "80.68");
/// assert!(bleu.signature(None).starts_with("nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:kindling-"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bleu {
    /// How text becomes tokens.
    pub tokenizer: BleuTokenizer,
    /// Whether case counts.
    pub case: Case,
    /// What orders without a match count.
    pub smoothing: Smoothing,
    /// Which orders count.
    pub order: BleuOrder,
}

/// The precision of an order of n-grams of which none matches: methods of Chen and Cherry (2014, W14-3346).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Smoothing {
    /// Half of one match at the first such order, a quarter at the second, and so on: method 3, that of NIST's mteval-v13a.
    #[default]
    Exp,
    /// 0, which makes the score 0.
    None,
    /// So many matches: method 1; 0.1 in the paper and in sacrebleu.
    Floor(f64),
    /// So much is added to the matches and to the n-grams of every order but the first: method 2; 1 in the paper and in sacrebleu.
    AddK(f64),
}

/// Of which orders of n-grams a score is the mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BleuOrder {
    /// All four: what a corpus is scored by.
    #[default]
    Full,
    /// Those that the hypothesis has n-grams of: for single sentences, where one of three words would be 0.
    Effective,
}

/// What of a segment BLEU depends on. Those of segments add up to that of the corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BleuStats {
    /// Matched n-grams of each order, none oftener than the reference that has most of it.
    pub matches: [u64; MAX_ORDER],
    /// N-grams of the hypothesis of each order.
    pub totals: [u64; MAX_ORDER],
    /// Tokens of the hypothesis.
    pub hypothesis_len: u64,
    /// Tokens of the reference that is nearest in length; of two, the shorter.
    pub reference_len: u64,
}

/// A BLEU and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BleuScore {
    /// Between 0 and 100.
    pub score: f64,
    /// Precision of each order after smoothing, between 0 and 100; all 0 where nothing matches.
    pub precisions: [f64; MAX_ORDER],
    /// What the score is multiplied by because the hypothesis is shorter than the reference.
    pub brevity_penalty: f64,
    /// Tokens of the hypothesis.
    pub hypothesis_len: u64,
    /// Tokens of the references.
    pub reference_len: u64,
}

impl Bleu {
    /// Counts the n-grams of a segment. Without references nothing matches.
    pub fn stats<R: AsRef<str>>(&self, hypothesis: &str, references: &[R]) -> BleuStats {
        let hypothesis = self.tokenize(hypothesis);
        let references: Vec<String> = references.iter().map(|reference| self.tokenize(reference.as_ref())).collect();
        let hypothesis: Vec<&str> = words(&hypothesis).collect();
        let references: Vec<Vec<&str>> = references.iter().map(|reference| words(reference).collect()).collect();

        let lens = references.iter().map(Vec::len);
        let reference_len = lens.min_by_key(|len| (len.abs_diff(hypothesis.len()), *len)).unwrap_or(0);
        let mut stats = BleuStats { hypothesis_len: hypothesis.len() as u64, reference_len: reference_len as u64, ..BleuStats::default() };
        for n in 1..=MAX_ORDER {
            let ngrams = ngrams::counts(&hypothesis, n);
            let mut most = HashMap::new();
            for (ngram, count) in references.iter().flat_map(|reference| ngrams::counts(reference, n)) {
                let so_far = most.entry(ngram).or_insert(0);
                *so_far = count.max(*so_far);
            }
            stats.matches[n - 1] = ngrams::shared(&ngrams, &most);
            stats.totals[n - 1] = ngrams.values().sum();
        }
        stats
    }

    /// The score of a segment or of a corpus: `100 · BP · exp(mean over orders of ln precision)`, with the brevity penalty
    /// `BP = min(1, exp(1 − reference length / hypothesis length))` (Papineni et al. 2002, P02-1040). 0 where nothing matches.
    pub fn score(&self, stats: &BleuStats) -> BleuScore {
        let (hypothesis_len, reference_len) = (stats.hypothesis_len, stats.reference_len);
        let brevity_penalty = match hypothesis_len {
            _ if hypothesis_len >= reference_len => 1.0,
            0 => 0.0,
            _ => (1.0 - reference_len as f64 / hypothesis_len as f64).exp(),
        };
        let mut precisions = [0.0; MAX_ORDER];
        let score = if stats.matches == [0; MAX_ORDER] {
            0.0
        } else {
            let n_orders = self.fill(&mut precisions, stats);
            brevity_penalty * (precisions[..n_orders].iter().map(|precision| precision.ln()).sum::<f64>() / n_orders as f64).exp()
        };
        BleuScore { score, precisions, brevity_penalty, hypothesis_len, reference_len }
    }

    /// How the score is computed, as sacrebleu writes it. `n_references` is `None` where it differs among segments.
    pub fn signature(&self, n_references: Option<usize>) -> String {
        let order = match self.order {
            BleuOrder::Full => "no",
            BleuOrder::Effective => "yes",
        };
        let smoothing = match self.smoothing {
            Smoothing::Exp => "exp".into(),
            Smoothing::None => "none".into(),
            Smoothing::Floor(matches) => format!("floor[{matches:.2}]"),
            Smoothing::AddK(k) => format!("add-k[{k:.2}]"),
        };
        signature(n_references, &format!("case:{}|eff:{order}|tok:{}|smooth:{smoothing}", self.case.name(), self.tokenizer.name()))
    }

    /// Smoothed precisions, and of how many of them the score is the mean.
    fn fill(&self, precisions: &mut [f64; MAX_ORDER], stats: &BleuStats) -> usize {
        let mut halves = 1.0;
        for (i, precision) in precisions.iter_mut().enumerate() {
            let added = match self.smoothing {
                Smoothing::AddK(k) if i > 0 => k,
                _ => 0.0,
            };
            let (matches, total) = (stats.matches[i] as f64 + added, stats.totals[i] as f64 + added);
            if total == 0.0 {
                // The longer orders have no n-grams either.
                return if self.order == BleuOrder::Effective { i } else { MAX_ORDER };
            }
            *precision = match self.smoothing {
                _ if matches != 0.0 => 100.0 * matches / total,
                Smoothing::Exp => {
                    halves *= 2.0;
                    100.0 / (halves * total)
                }
                Smoothing::Floor(matches) => 100.0 * matches / total,
                Smoothing::None | Smoothing::AddK(_) => 0.0,
            };
        }
        MAX_ORDER
    }

    /// The text with white space between the tokens that are counted.
    pub(crate) fn tokenize(&self, text: &str) -> String {
        self.tokenizer.tokenize(self.case.apply(text).trim_end_matches(is_space))
    }
}

impl AddAssign for BleuStats {
    fn add_assign(&mut self, other: Self) {
        for i in 0..MAX_ORDER {
            self.matches[i] += other.matches[i];
            self.totals[i] += other.totals[i];
        }
        self.hypothesis_len += other.hypothesis_len;
        self.reference_len += other.reference_len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_words_or_references_the_score_is_0() {
        let bleu = Bleu::default();
        for (hypothesis, references) in
            [("", vec![]), ("", vec![""]), ("", vec!["a"]), ("a", vec![]), ("a", vec![""]), ("\u{1f}", vec!["a"])]
        {
            assert_eq!(bleu.score(&bleu.stats(hypothesis, &references)).score, 0.0);
        }
        assert_eq!(bleu.score(&BleuStats::default()).score, 0.0);
    }

    #[test]
    fn no_ngram_matches_oftener_than_a_reference_has_it() {
        // The example of Papineni et al., section 2.1: 2 of 7.
        let stats = Bleu::default().stats("the the the the the the the", &["The cat is on the mat", "There is a cat on the mat"]);
        assert_eq!((stats.matches[0], stats.totals[0]), (1, 7));
        let stats = Bleu { case: Case::Lower, ..Bleu::default() }
            .stats("the the the the the the the", &["The cat is on the mat", "There is a cat on the mat"]);
        assert_eq!((stats.matches[0], stats.totals[0]), (2, 7));
    }

    proptest! {
        #[test]
        fn of_equal_texts_it_is_100(text in "[a-c,.!é& ]{0,40}") {
            for tokenizer in BleuTokenizer::ALL {
                let bleu = Bleu { tokenizer, order: BleuOrder::Effective, ..Bleu::default() };
                let score = bleu.score(&bleu.stats(&text, &[&text]));
                let expected = if score.hypothesis_len == 0 { 0.0 } else { 100.0 };
                prop_assert!((score.score - expected).abs() < 1e-9, "{tokenizer:?} {score:?}");
            }
        }

        #[test]
        fn it_lies_between_0_and_100_and_more_references_do_not_lower_matches(
            hypothesis in any::<String>(), first in any::<String>(), second in "[a-c ]{0,20}", words in "[a-c ]{0,20}",
        ) {
            for tokenizer in BleuTokenizer::ALL {
                for smoothing in [Smoothing::Exp, Smoothing::None, Smoothing::Floor(0.1), Smoothing::AddK(1.0)] {
                    for order in [BleuOrder::Full, BleuOrder::Effective] {
                        let bleu = Bleu { tokenizer, smoothing, order, case: Case::Lower };
                        for hypothesis in [&hypothesis, &words] {
                            let (one, two) = (bleu.stats(hypothesis, &[&first]), bleu.stats(hypothesis, &[&first, &second]));
                            let score = bleu.score(&two).score;
                            prop_assert!((0.0..=100.0 + 1e-9).contains(&score), "{score}");
                            prop_assert!((0..MAX_ORDER).all(|i| one.matches[i] <= two.matches[i] && two.matches[i] <= two.totals[i]));
                        }
                    }
                }
            }
        }
    }
}
