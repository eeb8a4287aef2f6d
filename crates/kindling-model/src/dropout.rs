//! Which streams a forward pass drops by. What is drawn from them is `kindling-kernels`' business.
//!
//! The streams of a sequence depend on its place in the step's whole batch and not on the micro-batch it is computed in,
//! so gradient accumulation, a resumed run and the full batch all drop the same activations.

use std::sync::Arc;

use kindling_kernels::{Dropout, stream};

/// The site of whole tokens, apart from all that are counted through the model.
const WORDS: u64 = u64::MAX;

/// Says which activations a forward pass drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's dropout stream.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
    /// Place of the batch's first sequence in the whole batch of the step.
    pub first_row: usize,
}

impl DropoutKey {
    /// What is dropped with probability `p` at one site of the model, of `n_rows` sequences; with `one_mask` the same at every
    /// place of a sequence.
    pub(crate) fn dropout(self, site: u64, p: f64, one_mask: bool, n_rows: usize) -> Option<Arc<Dropout>> {
        let rows = self.first_row as u64..(self.first_row + n_rows) as u64;
        let streams = || rows.map(|row| stream(self.seed, &[self.step, site, row])).collect();
        (p > 0.0).then(|| Arc::new(Dropout { p, one_mask, streams: streams() }))
    }

    /// Which tokens of `n_rows` sequences of `len` are seen, 1, and which are dropped with probability `p`, 0.
    pub(crate) fn words(self, p: f64, n_rows: usize, len: usize) -> Vec<f32> {
        let rows = self.first_row as u64..(self.first_row + n_rows) as u64;
        // 53 bits, all that a number between 0 and 1 has.
        let seen = |row, place| (stream(self.seed, &[self.step, WORDS, row, place]) >> 11) as f64 / 2f64.powi(53) >= p;
        rows.flat_map(|row| (0..len as u64).map(move |place| f32::from(seen(row, place)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_same_streams_in_any_micro_batch() {
        let key = DropoutKey { seed: 7, step: 3, first_row: 0 };
        let streams = |key: DropoutKey, n| key.dropout(5, 0.3, false, n).expect("p is above 0").streams.clone();
        assert_eq!(streams(key, 6)[4..], streams(DropoutKey { first_row: 4, ..key }, 2));
    }

    #[test]
    fn seed_step_site_and_row_all_matter() {
        let key = DropoutKey { seed: 7, step: 3, first_row: 0 };
        let stream = |key: DropoutKey, site| key.dropout(site, 0.5, false, 1).expect("p is above 0").streams[0];
        let others = [
            stream(DropoutKey { seed: 8, ..key }, 5),
            stream(DropoutKey { step: 4, ..key }, 5),
            stream(DropoutKey { first_row: 1, ..key }, 5),
            stream(key, 6),
        ];
        assert!(others.iter().all(|other| *other != stream(key, 5)));
    }

    #[test]
    fn so_many_words_are_dropped_the_same_in_any_micro_batch() {
        let key = DropoutKey { seed: 7, step: 3, first_row: 0 };
        let words = key.words(0.3, 100, 200);
        let dropped = words.iter().filter(|seen| **seen == 0.0).count() as f64 / 20_000.0;
        // Four standard deviations are 0.013.
        assert!((dropped - 0.3).abs() < 0.013 && words.iter().all(|seen| [0.0, 1.0].contains(seen)), "{dropped}");
        assert_eq!(words[90 * 200..], DropoutKey { first_row: 90, ..key }.words(0.3, 10, 200));
        assert_ne!(words, DropoutKey { step: 4, ..key }.words(0.3, 100, 200));
    }

    #[test]
    fn nothing_is_dropped_with_probability_zero() {
        assert_eq!(DropoutKey { seed: 7, step: 3, first_row: 0 }.dropout(0, 0.0, false, 2), None);
    }
}
