//! Whether probabilities mean what they say: calibration error, Brier score, log loss. Probabilities are taken as they are given and not
//! made to sum to 1.

use std::ops::AddAssign;

use serde::Serialize;

/// Confidences in bins of equal width, for the expected calibration error (Guo et al. 2017, arXiv:1706.04599).
///
/// Bin m of M has the confidences c with (m − 1)/M < c ≤ m/M, compared as f64; the first also has those of 0 or less, the last those
/// above 1.
/// The error is Σ over bins of (n_bin / n) · |accuracy of the bin − mean confidence of the bin|.
///
/// ```
/// use kindling_metrics::Calibration;
/// let mut calibration = Calibration::default();
/// for (confidence, is_correct) in [(0.9, true), (0.9, false), (0.61, true)] {
///     calibration.add(confidence, is_correct);
/// }
/// assert!((calibration.error() - (2.0 * 0.4 + 0.39) / 3.0).abs() < 1e-12);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    bins: Vec<Bin>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bin {
    n_examples: u64,
    n_correct: u64,
    confidence: f64,
}

impl Default for Calibration {
    /// The 15 bins of Guo et al.
    fn default() -> Self {
        Self::new(15)
    }
}

impl Calibration {
    /// No examples yet. There is always one bin.
    pub fn new(n_bins: usize) -> Self {
        Self { bins: vec![Bin::default(); n_bins.max(1)] }
    }

    /// Counts an example: the probability that the model gave its prediction, and whether that was right.
    pub fn add(&mut self, confidence: f64, is_correct: bool) {
        let n_bins = self.bins.len();
        // The borders themselves are compared: a product can round over one. NaN is above none, and makes the error NaN.
        let place = (1..n_bins).take_while(|border| confidence > *border as f64 / n_bins as f64).count();
        let bin = &mut self.bins[place];
        bin.n_examples += 1;
        bin.n_correct += u64::from(is_correct);
        bin.confidence += confidence;
    }

    /// The expected calibration error, between 0 and 1; NaN where there are no examples.
    pub fn error(&self) -> f64 {
        let n_examples: u64 = self.bins.iter().map(|bin| bin.n_examples).sum();
        // n_bin · |correct / n_bin − confidence / n_bin|, the count divided out.
        let gaps: f64 = self.bins.iter().map(|bin| (bin.n_correct as f64 - bin.confidence).abs()).sum();
        gaps / n_examples as f64
    }
}

/// # Panics
/// If the two have other numbers of bins.
impl AddAssign<&Calibration> for Calibration {
    fn add_assign(&mut self, other: &Self) {
        assert_eq!(self.bins.len(), other.bins.len(), "the same bins");
        for (bin, more) in self.bins.iter_mut().zip(&other.bins) {
            bin.n_examples += more.n_examples;
            bin.n_correct += more.n_correct;
            bin.confidence += more.confidence;
        }
    }
}

/// Brier score and log loss of classes' probabilities, summed over examples.
///
/// ```
/// use kindling_metrics::ProbabilityScores;
/// let mut sum = ProbabilityScores::of(&[0.2, 0.8], 1);
/// sum += ProbabilityScores::of(&[0.6, 0.4], 0);
/// assert!((sum.brier() - (0.04 + 0.16) / 2.0).abs() < 1e-12);
/// assert!((sum.log_loss() + (0.8f64.ln() + 0.6f64.ln()) / 2.0).abs() < 1e-12);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ProbabilityScores {
    /// Sum of the squares between probabilities and truth, halved where there are two classes.
    pub squares: f64,
    /// Sum of `-ln p` of the true class.
    pub nats: f64,
    /// Examples.
    pub n_examples: u64,
}

impl ProbabilityScores {
    /// Of one example: a probability for each class, and the true class. One that has no probability has that of 0.
    pub fn of(probabilities: &[f64], truth: usize) -> Self {
        let square = |(class, p): (usize, &f64)| (p - if class == truth { 1.0 } else { 0.0 }).powi(2);
        let squares: f64 = probabilities.iter().enumerate().map(square).sum();
        let p = probabilities.get(truth).copied().unwrap_or(0.0);
        Self {
            squares: if probabilities.len() == 2 { squares / 2.0 } else { squares },
            nats: -p.clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln(),
            n_examples: 1,
        }
    }

    /// Mean square between probabilities and truth: summed over classes, between 0 and 2 (Brier, Monthly Weather Review 78, 1950); with two
    /// classes that of one of them, between 0 and 1, as is customary and scikit-learn's default. NaN where there are no examples.
    pub fn brier(&self) -> f64 {
        self.squares / self.n_examples as f64
    }

    /// Mean `-ln p` of the true class, in nats. As in scikit-learn a probability is held at f64's epsilon or more away from 0 and 1, so
    /// that one certain mistake costs 36 nats and not all. NaN where there are no examples.
    pub fn log_loss(&self) -> f64 {
        self.nats / self.n_examples as f64
    }
}

impl AddAssign for ProbabilityScores {
    fn add_assign(&mut self, other: Self) {
        self.squares += other.squares;
        self.nats += other.nats;
        self.n_examples += other.n_examples;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn borders_belong_to_the_bin_below() {
        for n_bins in [1, 2, 10, 15] {
            for border in 1..=n_bins {
                let at = |confidence: f64| {
                    let mut calibration = Calibration::new(n_bins);
                    calibration.add(confidence, true);
                    calibration.bins.iter().position(|bin| bin.n_examples == 1)
                };
                let confidence = border as f64 / n_bins as f64;
                assert_eq!(at(confidence), Some(border - 1));
                assert_eq!(at(confidence.next_up()), Some(border.min(n_bins - 1)));
            }
        }
    }

    #[test]
    fn confidences_that_are_none_are_counted_all_the_same() {
        let mut calibration = Calibration::new(0);
        for confidence in [-1.0, 0.0, 2.0] {
            calibration.add(confidence, true);
        }
        assert_eq!(calibration.error(), 2.0 / 3.0);
        calibration.add(f64::NAN, true);
        assert!(calibration.error().is_nan());
        assert!(Calibration::default().error().is_nan());
    }

    proptest! {
        #[test]
        fn the_error_is_a_share_and_parts_add_up(examples in prop::collection::vec((0.0..=1.0, any::<bool>()), 1..50)) {
            let of = |examples: &[(f64, bool)]| {
                let mut calibration = Calibration::default();
                examples.iter().for_each(|(confidence, is_correct)| calibration.add(*confidence, *is_correct));
                calibration
            };
            let whole = of(&examples);
            prop_assert!((0.0..=1.0).contains(&whole.error()));
            let (left, right) = examples.split_at(examples.len() / 2);
            let mut sum = of(left);
            sum += &of(right);
            prop_assert!((sum.error() - whole.error()).abs() < 1e-12);
        }

        #[test]
        fn any_probabilities_have_scores(probabilities in prop::collection::vec(any::<f64>(), 0..4), truth in 0usize..5) {
            let scores = ProbabilityScores::of(&probabilities, truth);
            prop_assert!(scores.nats.is_nan() || (0.0..37.0).contains(&scores.nats));
        }
    }
}
