//! How little generated text repeats, within a text and across texts. Compares with no reference: text without sense can be diverse.

use std::collections::HashSet;
use std::hash::Hash;

use serde::Serialize;

use crate::ngrams;

/// How many different n-grams there are in a set of texts. No sum: sets of n-grams do not add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Distinct {
    /// Different n-grams.
    pub n_distinct: u64,
    /// N-grams; none goes across the end of a text.
    pub n_ngrams: u64,
    /// Items of the texts.
    pub n_items: u64,
}

/// The n-grams of a set of texts, each a sequence of words or of token ids.
///
/// ```
/// use kindling_metrics::{distinct_n, words};
/// let texts: Vec<Vec<&str>> = ["I do not know", "I do not"].iter().map(|text| words(text).collect()).collect();
/// assert_eq!(distinct_n(&texts, 2).per_item(), 3.0 / 7.0);
/// assert_eq!(distinct_n(&texts, 2).per_ngram(), 3.0 / 5.0);
/// ```
pub fn distinct_n<T: Eq + Hash, S: AsRef<[T]>>(texts: &[S], n: usize) -> Distinct {
    let mut seen: HashSet<&[T]> = HashSet::new();
    let mut distinct = Distinct::default();
    for text in texts {
        let counts = ngrams::counts(text.as_ref(), n);
        distinct.n_ngrams += counts.values().sum::<u64>();
        distinct.n_items += text.as_ref().len() as u64;
        seen.extend(counts.keys());
    }
    distinct.n_distinct = seen.len() as u64;
    distinct
}

impl Distinct {
    /// Different n-grams for each word that was generated: distinct-n as Li et al. define it (2016, arXiv:1510.03055). NaN where there
    /// are none.
    ///
    /// It falls with the number of texts, so compare it only between sets of the same size.
    pub fn per_item(&self) -> f64 {
        self.n_distinct as f64 / self.n_items as f64
    }

    /// Different n-grams among all: what many programs call distinct-n. Differs from [`Self::per_item`] where n is above 1.
    pub fn per_ngram(&self) -> f64 {
        self.n_distinct as f64 / self.n_ngrams as f64
    }
}

/// The share of a text's n-grams that repeat an earlier one, `1 − distinct / all`: seq-rep-n (Welleck et al. 2020, arXiv:1908.04319; n is
/// 4 there, and the score of a set the mean over its texts). `None` where the text has no n-grams.
///
/// ```
/// use kindling_metrics::{Mean, repeated_n, words};
/// let texts = ["to be or not to be", "no"];
/// let mean: Mean = texts.iter().filter_map(|text| repeated_n(&words(text).collect::<Vec<_>>(), 2)).collect();
/// assert!((mean.value() - 0.2).abs() < 1e-12);
/// ```
pub fn repeated_n<T: Eq + Hash>(text: &[T], n: usize) -> Option<f64> {
    let counts = ngrams::counts(text, n);
    let n_ngrams: u64 = counts.values().sum();
    (n_ngrams > 0).then(|| 1.0 - counts.len() as f64 / n_ngrams as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_of_nothing_has_no_ngrams() {
        let texts: [Vec<u32>; 0] = [];
        assert!(distinct_n(&texts, 1).per_item().is_nan());
        assert!(distinct_n(&[vec![1, 2]], 0).per_ngram().is_nan());
        assert_eq!(repeated_n(&[1, 2], 3), None);
        assert_eq!(repeated_n(&[1, 2], 0), None);
    }

    proptest! {
        #[test]
        fn a_text_said_twice_is_half_as_diverse(text in prop::collection::vec(0u8..5, 1..20), n in 1usize..4) {
            prop_assume!(text.len() >= n);
            let (once, twice) = (distinct_n(&[&text], n), distinct_n(&[&text, &text], n));
            prop_assert_eq!(once.per_item(), 2.0 * twice.per_item());
            prop_assert!((1.0 - once.per_ngram() - repeated_n(&text, n).unwrap_or(f64::NAN)).abs() < 1e-15);
            prop_assert!(once.per_ngram() <= 1.0 && once.n_distinct > 0);
        }
    }
}
