//! N-grams of a sequence and how often each stands in it. Knows nothing of what they are counted for.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each run of `n` items stands in `items`.
pub(crate) fn counts<T: Eq + Hash>(items: &[T], n: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    // `windows` does not take 0, and there are no runs of no items.
    for ngram in (n > 0).then(|| items.windows(n)).into_iter().flatten() {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// N-grams that two sequences share, each as often as the one that has fewer of it has it ("clipped").
pub(crate) fn shared<T: Eq + Hash>(a: &HashMap<&[T], u64>, b: &HashMap<&[T], u64>) -> u64 {
    a.iter().filter_map(|(ngram, count)| b.get(ngram).map(|other| count.min(other))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_ngrams_of_no_items_or_of_more_than_there_are() {
        let items = ['a', 'b'];
        assert_eq!(counts(&items, 0).len(), 0);
        assert_eq!(counts(&items, 3).len(), 0);
        assert_eq!(counts(&items, 2), HashMap::from([(&items[..], 1)]));
    }
}
