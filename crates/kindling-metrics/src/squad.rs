//! Exact match and F1 of short answers, as SQuAD v1.1's evaluation script computes them. Not v2.0's, which knows questions without an
//! answer.

use std::ops::AddAssign;

use serde::Serialize;
use unicode_general_category::{GeneralCategory, get_general_category};

use crate::f1::PrecisionRecallF1;
use crate::ngrams;
use crate::words::words;

/// Exact matches and F1 of answers, summed over questions (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1).
///
/// The script prints both means times 100.
///
/// ```
/// use kindling_metrics::Squad;
/// let mut sum = Squad::of("The Eiffel Tower!", &["Eiffel tower"]);
/// sum += Squad::of("in Paris, France", &["Paris", "the city of Paris"]);
/// assert_eq!(sum.exact_match(), 0.5);
/// assert_eq!(sum.f1(), 0.75);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Squad {
    /// Questions.
    pub n_questions: u64,
    /// Answers that equal a gold answer once both are normalised.
    pub n_exact: u64,
    /// Sum of the answers' F1.
    pub f1_sum: f64,
}

impl Squad {
    /// Of one answer, against the gold answer that is best for each score. Without gold answers both are 0.
    pub fn of<G: AsRef<str>>(answer: &str, gold: &[G]) -> Self {
        let answer = normalize_answer(answer);
        let gold: Vec<String> = gold.iter().map(|gold| normalize_answer(gold.as_ref())).collect();
        Self {
            n_questions: 1,
            n_exact: u64::from(gold.contains(&answer)),
            f1_sum: gold.iter().map(|gold| word_f1(&answer, gold)).fold(0.0, f64::max),
        }
    }

    /// Share of the questions whose answer matches exactly; NaN where there are none.
    pub fn exact_match(&self) -> f64 {
        self.n_exact as f64 / self.n_questions as f64
    }

    /// Mean F1 of the words of answers and gold answers; NaN where there are none. Of two answers that are empty once they are normalised
    /// it is 0, though they match exactly: so has it v1.1's script, not v2.0's.
    pub fn f1(&self) -> f64 {
        self.f1_sum / self.n_questions as f64
    }
}

impl AddAssign for Squad {
    fn add_assign(&mut self, other: Self) {
        self.n_questions += other.n_questions;
        self.n_exact += other.n_exact;
        self.f1_sum += other.f1_sum;
    }
}

/// An answer as it is compared: in lower case, without ASCII's punctuation, without the words `a`, `an` and `the`, one space between words.
///
/// ```
/// assert_eq!(kindling_metrics::normalize_answer(" The  U.S. economy\n"), "us economy");
/// ```
pub fn normalize_answer(text: &str) -> String {
    let mut text = text.to_lowercase();
    text.retain(|c| !c.is_ascii_punctuation());
    // An article is one between any characters that are not of words, as `\b` has it: that of `l’a` too.
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let word;
        (word, rest) = rest.split_at(rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()));
        out.push_str(if matches!(word, "a" | "an" | "the") { " " } else { word });
        let between;
        (between, rest) = rest.split_at(rest.find(is_of_word).unwrap_or(rest.len()));
        out.push_str(between);
    }
    words(&out).collect::<Vec<_>>().join(" ")
}

/// Python's `\w` without the underscore: letters and numbers. Rust's `is_alphanumeric` also has marks that are vowels.
fn is_of_word(character: char) -> bool {
    use GeneralCategory as G;
    matches!(
        get_general_category(character),
        G::UppercaseLetter
            | G::LowercaseLetter
            | G::TitlecaseLetter
            | G::ModifierLetter
            | G::OtherLetter
            | G::DecimalNumber
            | G::LetterNumber
            | G::OtherNumber
    )
}

fn word_f1(answer: &str, gold: &str) -> f64 {
    let (answer, gold): (Vec<&str>, Vec<&str>) = (words(answer).collect(), words(gold).collect());
    let n_shared = ngrams::shared(&ngrams::counts(&answer, 1), &ngrams::counts(&gold, 1));
    PrecisionRecallF1::from_counts(n_shared, answer.len() as u64, gold.len() as u64).f1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_answers_match_and_share_no_words() {
        let score = Squad::of("The!", &["a"]);
        assert_eq!((score.exact_match(), score.f1()), (1.0, 0.0));
        let none: [&str; 0] = [];
        assert_eq!(Squad::of("a", &none), Squad { n_questions: 1, n_exact: 0, f1_sum: 0.0 });
        assert!(Squad::default().f1().is_nan());
    }

    proptest! {
        #[test]
        fn an_answer_is_normal_once_and_its_own_gold(text in any::<String>(), short in "[ theanx.’_]{0,12}") {
            for text in [&text, &short] {
                let normal = normalize_answer(text);
                // Lower case can begin words anew, not end them: `İ` becomes `i` and a mark.
                prop_assert_eq!(&normalize_answer(&normal), &normal);
                let score = Squad::of(text, &["", text]);
                prop_assert_eq!(score.n_exact, 1);
                prop_assert_eq!(score.f1_sum, if normal.is_empty() { 0.0 } else { 1.0 });
            }
        }
    }
}
