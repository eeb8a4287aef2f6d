//! Levenshtein distances of characters and words, and error rates as sums. Aligns nothing: it does not say which edits.

use std::ops::AddAssign;

use serde::Serialize;

use crate::words::words;

/// Edits that turn hypotheses into their references, and lengths, summed over pairs: Levenshtein (1966), each insertion, deletion and
/// substitution costing 1.
///
/// ```
/// use kindling_metrics::Edits;
/// let mut sum = Edits::of_words("the cat sat", "the cat sat down");
/// sum += Edits::of_words("a dog", "the dog");
/// assert_eq!(sum.error_rate(), 2.0 / 6.0);
/// assert_eq!(Edits::of_characters("kitten", "sitting").n_edits, 3);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edits {
    /// The fewest edits.
    pub n_edits: u64,
    /// Items of the references.
    pub reference_len: u64,
    /// Items of the longer of each pair.
    pub longer_len: u64,
}

impl Edits {
    /// Between the characters (Unicode scalar values) of two texts. Time grows with the product of their lengths.
    pub fn of_characters(hypothesis: &str, reference: &str) -> Self {
        Self::between(&hypothesis.chars().collect(), &reference.chars().collect())
    }

    /// Between the words of two texts, which are what white space separates: case and punctuation count.
    pub fn of_words(hypothesis: &str, reference: &str) -> Self {
        Self::between(&words(hypothesis).collect(), &words(reference).collect())
    }

    fn between<T: PartialEq>(hypothesis: &Vec<T>, reference: &Vec<T>) -> Self {
        Self {
            n_edits: strsim::generic_levenshtein(hypothesis, reference) as u64,
            reference_len: reference.len() as u64,
            longer_len: hypothesis.len().max(reference.len()) as u64,
        }
    }

    /// Edits for an item of the references: the character or word error rate. Above 1 where hypotheses are much too long;
    /// where the references are empty, infinite, or NaN if there are no edits.
    pub fn error_rate(&self) -> f64 {
        self.n_edits as f64 / self.reference_len as f64
    }

    /// Edits for an item of the longer side, between 0 and 1; NaN where both are empty.
    pub fn normalized(&self) -> f64 {
        self.n_edits as f64 / self.longer_len as f64
    }
}

impl AddAssign for Edits {
    fn add_assign(&mut self, other: Self) {
        self.n_edits += other.n_edits;
        self.reference_len += other.reference_len;
        self.longer_len += other.longer_len;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_references_have_no_rate() {
        assert_eq!(Edits::of_characters("ab", "").error_rate(), f64::INFINITY);
        assert_eq!(Edits::of_characters("ab", "").normalized(), 1.0);
        assert!(Edits::of_words(" ", "").error_rate().is_nan());
        assert!(Edits::of_words(" ", "").normalized().is_nan());
    }

    proptest! {
        #[test]
        fn it_is_a_distance(a in "[abé]{0,12}", b in "[abé]{0,12}", c in "[abé]{0,12}") {
            let distance = |a: &str, b: &str| Edits::of_characters(a, b).n_edits;
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &c) <= distance(&a, &b) + distance(&b, &c));
            prop_assert!(a == b || (0.0..=1.0).contains(&Edits::of_characters(&a, &b).normalized()));
        }
    }
}
