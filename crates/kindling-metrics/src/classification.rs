//! Which class was taken for which, and precision, recall and F1 from it. Sees classes as indices: no names, no probabilities
//! (see `calibration.rs` and `roc_auc.rs` for those).

use std::ops::AddAssign;

use serde::Serialize;

use crate::f1::{PrecisionRecallF1, share};

/// How often each class was taken for each: counts, truth × prediction.
///
/// A prediction may be no class at all, such as a generated answer that is no label. It is a miss of its true class and speaks against no
/// class's precision, as scikit-learn has it of a predicted label outside `labels`.
///
/// ```
/// use kindling_metrics::{Average, Confusion};
/// let mut confusion = Confusion::new(2);
/// for (truth, predicted) in [(0, Some(0)), (0, Some(1)), (1, Some(1)), (1, None)] {
///     confusion.add(truth, predicted);
/// }
/// assert_eq!(confusion.accuracy(), 0.5);
/// assert_eq!(confusion.class(1).scores.precision, 0.5);
/// assert_eq!(confusion.average(Average::Macro).recall, 0.5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    n_classes: usize,
    /// Rows of `n_classes + 1`: the last column counts predictions that are no class.
    counts: Vec<u64>,
}

/// How the scores of classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// From the sums of all classes' counts. Equal to the accuracy where each prediction is a class.
    Micro,
    /// The mean over classes, each counting the same; also those that no example has.
    Macro,
    /// The mean over classes, each weighted by its examples.
    Weighted,
}

/// How well one class was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// Precision, recall and F1.
    pub scores: PrecisionRecallF1,
    /// Examples that are of the class.
    pub support: u64,
}

impl Confusion {
    /// No examples yet.
    pub fn new(n_classes: usize) -> Self {
        Self { n_classes, counts: vec![0; n_classes * (n_classes + 1)] }
    }

    /// Counts an example. `None` is a prediction that is no class.
    ///
    /// # Panics
    /// If either is no index of a class.
    pub fn add(&mut self, truth: usize, predicted: impl Into<Option<usize>>) {
        let place = self.place(truth, predicted.into());
        self.counts[place] += 1;
    }

    /// Examples of class `truth` that were taken for `predicted`, or for no class.
    ///
    /// # Panics
    /// If either is no index of a class.
    pub fn count(&self, truth: usize, predicted: impl Into<Option<usize>>) -> u64 {
        self.counts[self.place(truth, predicted.into())]
    }

    /// Classes, found or not.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Examples.
    pub fn n_examples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Share of the examples that were taken for what they are; NaN where there are none.
    pub fn accuracy(&self) -> f64 {
        self.n_hits() as f64 / self.n_examples() as f64
    }

    /// How well a class was found.
    ///
    /// # Panics
    /// If it is no index of a class.
    pub fn class(&self, class: usize) -> ClassScores {
        let n_predicted = (0..self.n_classes).map(|truth| self.count(truth, class)).sum();
        let support = self.support(class);
        ClassScores { scores: PrecisionRecallF1::from_counts(self.count(class, class), n_predicted, support), support }
    }

    /// The scores of all classes as one. What is divided by 0 is 0, as in scikit-learn by default.
    pub fn average(&self, average: Average) -> PrecisionRecallF1 {
        let weight = |class: &ClassScores| match average {
            Average::Weighted => class.support as f64,
            _ => 1.0,
        };
        if average == Average::Micro {
            let n_predicted = self.n_examples() - (0..self.n_classes).map(|truth| self.count(truth, None)).sum::<u64>();
            return PrecisionRecallF1::from_counts(self.n_hits(), n_predicted, self.n_examples());
        }
        let classes: Vec<ClassScores> = (0..self.n_classes).map(|class| self.class(class)).collect();
        let whole: f64 = classes.iter().map(weight).sum();
        let mean =
            |score: fn(&PrecisionRecallF1) -> f64| share(classes.iter().map(|class| weight(class) * score(&class.scores)).sum(), whole);
        PrecisionRecallF1 { precision: mean(|s| s.precision), recall: mean(|s| s.recall), f1: mean(|s| s.f1) }
    }

    fn n_hits(&self) -> u64 {
        (0..self.n_classes).map(|class| self.count(class, class)).sum()
    }

    fn support(&self, class: usize) -> u64 {
        let start = self.place(class, Some(0));
        self.counts[start..=start + self.n_classes].iter().sum()
    }

    fn place(&self, truth: usize, predicted: Option<usize>) -> usize {
        let is_class = |class: usize| class < self.n_classes;
        assert!(is_class(truth) && predicted.is_none_or(is_class), "classes are below {}, found {truth}, {predicted:?}", self.n_classes);
        truth * (self.n_classes + 1) + predicted.unwrap_or(self.n_classes)
    }
}

/// # Panics
/// If the two count other numbers of classes.
impl AddAssign<&Confusion> for Confusion {
    fn add_assign(&mut self, other: &Self) {
        assert_eq!(self.n_classes, other.n_classes, "counts of the same classes");
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn confusion(n_classes: usize, examples: &[(usize, Option<usize>)]) -> Confusion {
        let mut confusion = Confusion::new(n_classes);
        examples.iter().for_each(|(truth, predicted)| confusion.add(*truth, *predicted));
        confusion
    }

    #[test]
    fn nothing_counted_is_nothing_found() {
        for confusion in [Confusion::new(0), Confusion::new(3)] {
            assert!(confusion.accuracy().is_nan());
            for average in [Average::Micro, Average::Macro, Average::Weighted] {
                assert_eq!(confusion.average(average), PrecisionRecallF1::default());
            }
        }
    }

    #[test]
    fn an_answer_that_is_no_class_lowers_recall_and_not_precision() {
        let rest = [(0, Some(0)), (0, Some(0)), (1, Some(1))];
        let (before, after) = (confusion(2, &rest), confusion(2, &[&rest[..], &[(0, None)]].concat()));
        assert_eq!((before.class(0).scores.precision, before.class(0).scores.recall), (1.0, 1.0));
        assert_eq!((after.class(0).scores.precision, after.class(0).scores.recall), (1.0, 2.0 / 3.0));
        assert_eq!(after.accuracy(), 0.75);
        assert_eq!(after.class(0).support, 3);
    }

    proptest! {
        #[test]
        fn averages_lie_between_the_classes_and_parts_add_up(
            examples in prop::collection::vec((0usize..4, prop::option::of(0usize..4)), 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = confusion(4, &examples);
            let scores: Vec<f64> = (0..4).map(|class| whole.class(class).scores.f1).collect();
            let (low, high) = scores.iter().fold((1.0f64, 0.0f64), |(low, high), f1| (low.min(*f1), high.max(*f1)));
            for average in [Average::Macro, Average::Weighted] {
                let f1 = whole.average(average).f1;
                prop_assert!(low - 1e-12 <= f1 && f1 <= high + 1e-12, "{low} {f1} {high}");
            }
            // A weighted recall is the accuracy: the sum over classes of support · hits / support.
            prop_assert!((whole.average(Average::Weighted).recall - whole.accuracy()).abs() < 1e-12);
            prop_assert_eq!(whole.average(Average::Micro).recall, whole.accuracy());

            let (left, right) = examples.split_at(cut.index(examples.len()));
            let mut sum = confusion(4, left);
            sum += &confusion(4, right);
            prop_assert_eq!(sum, whole);
        }
    }
}
