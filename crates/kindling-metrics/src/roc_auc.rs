//! Areas under ROC curves: whether scores put the examples of a class before the others. Draws no curve.

/// The area under the ROC curve: the probability that an example that is `true` scores above one that is `false`, a tie counting
/// half. That is Mann and Whitney's U over the number of such pairs, with midranks for ties (Hanley and McNeil, Radiology 143, 1982).
///
/// `None` where there is no pair or a score is NaN. O(n log n).
///
/// ```
/// use kindling_metrics::roc_auc;
/// assert_eq!(roc_auc([(0.1, false), (0.4, false), (0.35, true), (0.8, true)]), Some(0.75));
/// assert_eq!(roc_auc([(0.1, true), (0.4, true)]), None);
/// ```
pub fn roc_auc(examples: impl IntoIterator<Item = (f64, bool)>) -> Option<f64> {
    let mut examples: Vec<(f64, bool)> = examples.into_iter().collect();
    if examples.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    // 0.0 and -0.0 are a tie, which `total_cmp` does not see.
    examples.sort_unstable_by(|(a, _), (b, _)| a.partial_cmp(b).expect("there are no NaNs"));
    // Pairs that are in order count twice and ties once, so that all are whole numbers.
    let (mut n_positive, mut n_negative, mut twice_u) = (0u128, 0u128, 0u128);
    for tied in examples.chunk_by(|(a, _), (b, _)| a == b) {
        let positive = tied.iter().filter(|(_, is_positive)| *is_positive).count() as u128;
        let negative = tied.len() as u128 - positive;
        twice_u += positive * (2 * n_negative + negative);
        n_positive += positive;
        n_negative += negative;
    }
    let n_pairs = n_positive * n_negative;
    (n_pairs > 0).then(|| twice_u as f64 / (2 * n_pairs) as f64)
}

/// The mean over classes of the area under the curve of each class against the rest: scikit-learn's `multi_class="ovr"`,
/// `average="macro"`. Each example is a score for each class and its true class.
///
/// `None` where the area of some class is not defined: no example is of it, or all are, or a score is NaN; and where rows differ in length
/// or are empty.
pub fn roc_auc_one_vs_rest<R: AsRef<[f64]>>(examples: &[(R, usize)]) -> Option<f64> {
    let n_classes = examples.first()?.0.as_ref().len();
    if n_classes == 0 || examples.iter().any(|(scores, _)| scores.as_ref().len() != n_classes) {
        return None;
    }
    let area = |class: usize| roc_auc(examples.iter().map(|(scores, truth)| (scores.as_ref()[class], *truth == class)));
    let sum = (0..n_classes).map(area).sum::<Option<f64>>()?;
    Some(sum / n_classes as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_area_without_both_kinds() {
        assert_eq!(roc_auc([]), None);
        assert_eq!(roc_auc([(1.0, false)]), None);
        assert_eq!(roc_auc([(f64::NAN, false), (1.0, true)]), None);
        assert_eq!(roc_auc([(f64::NEG_INFINITY, false), (f64::INFINITY, true)]), Some(1.0));
        assert_eq!(roc_auc([(0.0, false), (-0.0, true)]), Some(0.5));
        assert_eq!(roc_auc_one_vs_rest::<Vec<f64>>(&[]), None);
        assert_eq!(roc_auc_one_vs_rest(&[(vec![], 0)]), None);
        assert_eq!(roc_auc_one_vs_rest(&[(vec![0.5, 0.5], 0), (vec![1.0], 0)]), None);
        assert_eq!(roc_auc_one_vs_rest(&[(vec![0.6, 0.3, 0.1], 0), (vec![0.5, 0.5, 0.0], 1)]), None, "no example of the last class");
    }

    proptest! {
        #[test]
        fn negated_scores_turn_the_area_over(examples in prop::collection::vec((-3i8..3, any::<bool>()), 0..40)) {
            let of = |sign: f64| roc_auc(examples.iter().map(|(score, positive)| (sign * f64::from(*score), *positive)));
            match (of(1.0), of(-1.0)) {
                (Some(area), Some(turned)) => prop_assert!((area + turned - 1.0).abs() < 1e-15),
                (area, turned) => prop_assert_eq!(area, turned),
            }
            // By its definition, in O(n²).
            let mut pairs = (0.0, 0.0);
            for (a, _) in examples.iter().filter(|(_, positive)| *positive) {
                for (b, _) in examples.iter().filter(|(_, positive)| !positive) {
                    pairs.0 += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                    pairs.1 += 1.0;
                }
            }
            prop_assert_eq!(of(1.0), (pairs.1 > 0.0).then_some(pairs.0 / pairs.1));
        }
    }
}
