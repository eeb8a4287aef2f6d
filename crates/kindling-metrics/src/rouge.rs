//! ROUGE as Google's `rouge_score` computes it, without its stemmer. A corpus's value is the mean of its segments' F1.

use std::collections::HashMap;

use crate::f1::PrecisionRecallF1;
use crate::ngrams;

/// What a summary and its reference may share (Lin 2004, W04-1013).
///
/// Words are runs of a–z and 0–9 in the lower-case text: letters with accents and other scripts separate words and are lost.
///
/// ```
/// use kindling_metrics::{Mean, Rouge};
/// let pairs = [("The cat was found under the bed.", "The cat was under the bed."), ("It rained.", "There was rain.")];
/// let mean: Mean = pairs.iter().map(|(hypothesis, reference)| Rouge::N(2).score(hypothesis, &[reference]).f1).collect();
/// assert!((mean.value() - 4.0 / 11.0).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rouge {
    /// Runs of so many words: ROUGE-1, ROUGE-2.
    N(usize),
    /// The longest common subsequence of the whole texts' words; line ends are white space.
    L,
    /// For each line of the reference, the words that are in a longest common subsequence with some line of the hypothesis: ROUGE-Lsum.
    /// The lines are sentences in a summary.
    LSum,
}

impl Rouge {
    /// The scores of a segment, against the reference that gives the highest F1. All are 0 without references, and where a side has no
    /// words.
    ///
    /// Time grows with the product of the numbers of words but for `N`, for `LSum` memory too: a byte a pair of words in two lines.
    pub fn score<R: AsRef<str>>(self, hypothesis: &str, references: &[R]) -> PrecisionRecallF1 {
        let hypothesis = hypothesis.to_lowercase();
        let scores = references.iter().map(|reference| self.against(&hypothesis, &reference.as_ref().to_lowercase()));
        scores.reduce(|best, other| if other.f1 > best.f1 { other } else { best }).unwrap_or_default()
    }

    /// Of lower-case texts.
    fn against(self, hypothesis: &str, reference: &str) -> PrecisionRecallF1 {
        let (words, reference_words) = (tokens(hypothesis), tokens(reference));
        match self {
            Self::N(n) => {
                let (a, b) = (ngrams::counts(&words, n), ngrams::counts(&reference_words, n));
                PrecisionRecallF1::from_counts(ngrams::shared(&a, &b), a.values().sum(), b.values().sum())
            }
            Self::L => {
                let n_shared = longest_common_subsequence(&reference_words, &words, |_| ());
                PrecisionRecallF1::from_counts(n_shared as u64, words.len() as u64, reference_words.len() as u64)
            }
            Self::LSum => {
                let n_shared = union_of_lines(hypothesis, reference);
                PrecisionRecallF1::from_counts(n_shared, words.len() as u64, reference_words.len() as u64)
            }
        }
    }
}

fn tokens(lower: &str) -> Vec<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    lower.split(|c| !is_part(c)).filter(|token| !token.is_empty()).collect()
}

/// Words of the reference's lines that lie in a longest common subsequence with a line of the hypothesis, none oftener than the hypothesis
/// has it: several lines of the reference may find the same word of it, which ROUGE-1.5.5 counts once.
fn union_of_lines(hypothesis: &str, reference: &str) -> u64 {
    let lines: Vec<Vec<&str>> = hypothesis.split('\n').map(tokens).collect();
    let mut left: HashMap<&str, u64> = HashMap::new();
    lines.iter().flatten().for_each(|word| *left.entry(word).or_insert(0) += 1);
    let mut n_shared = 0;
    for line in reference.split('\n').map(tokens) {
        let mut is_shared = vec![false; line.len()];
        lines.iter().for_each(|other| mark_common(&line, other, &mut is_shared));
        for (word, _) in line.iter().zip(&is_shared).filter(|(_, is_shared)| **is_shared) {
            if let Some(left) = left.get_mut(word).filter(|left| **left > 0) {
                *left -= 1;
                n_shared += 1;
            }
        }
    }
    n_shared
}

/// How a longest common subsequence of two beginnings ends.
#[derive(Clone, Copy)]
enum End {
    /// With an item of both.
    Both,
    /// Before the last item of the second.
    DropSecond,
    /// Before the last item of the first.
    DropFirst,
}

/// Marks the items of `first` that are in a longest common subsequence. There may be several such: as rouge_score does, from the end each
/// match is taken, and where both ways are as long, an item of `first` is dropped.
fn mark_common<T: PartialEq>(first: &[T], second: &[T], is_common: &mut [bool]) {
    let mut ends = Vec::with_capacity(first.len() * second.len());
    longest_common_subsequence(first, second, |end| ends.push(end));
    let (mut i, mut j) = (first.len(), second.len());
    while i > 0 && j > 0 {
        match ends[(i - 1) * second.len() + j - 1] {
            End::Both => {
                (i, j) = (i - 1, j - 1);
                is_common[i] = true;
            }
            End::DropSecond => j -= 1,
            End::DropFirst => i -= 1,
        }
    }
}

/// Its length; `see` is told the end for each beginning of `first`, and in it for each of `second`.
fn longest_common_subsequence<T: PartialEq>(first: &[T], second: &[T], mut see: impl FnMut(End)) -> usize {
    let mut above = vec![0; second.len() + 1];
    let mut row = above.clone();
    for a in first {
        for (j, b) in second.iter().enumerate() {
            let (len, end) = if a == b {
                (above[j] + 1, End::Both)
            } else if row[j] > above[j + 1] {
                (row[j], End::DropSecond)
            } else {
                (above[j + 1], End::DropFirst)
            };
            row[j + 1] = len;
            see(end);
        }
        std::mem::swap(&mut above, &mut row);
    }
    above[second.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Rouge; 4] = [Rouge::N(1), Rouge::N(2), Rouge::L, Rouge::LSum];

    #[test]
    fn without_words_or_references_all_are_0() {
        for rouge in ALL {
            for (hypothesis, references) in [("", vec![]), ("", vec![""]), ("日本", vec!["日本"]), ("a", vec!["\n"]), ("a", vec![])] {
                assert_eq!(rouge.score(hypothesis, &references), PrecisionRecallF1::default());
            }
        }
        assert_eq!(Rouge::N(0).score("a", &["a"]), PrecisionRecallF1::default());
    }

    proptest! {
        #[test]
        fn equal_texts_share_all_and_l_lies_below_1(a in "[a-d \n]{0,30}", b in "[a-d \n]{0,30}") {
            for rouge in ALL {
                let enough = match rouge {
                    Rouge::N(n) => tokens(&a).len() >= n,
                    _ => !tokens(&a).is_empty(),
                };
                prop_assert_eq!(rouge.score(&a, &[&a]).f1, if enough { 1.0 } else { 0.0 });
                // Precision and recall change places with the texts, but for lines, where the union is over one side's.
                let (there, back) = (rouge.score(&a, &[&b]), rouge.score(&b, &[&a]));
                if rouge != Rouge::LSum {
                    prop_assert_eq!((there.precision, there.recall), (back.recall, back.precision));
                }
                prop_assert!(there.f1 <= Rouge::N(1).score(&a, &[&b]).f1 || rouge == Rouge::N(2));
                prop_assert!(rouge.score(&a, &[&b, &a]).f1 >= there.f1);
            }
        }
    }
}
