//! Batches: rows of token ids with their targets and weights, on the host. Makes no tensors.

use kindling_config::Seed;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{DataError, Shards};

/// Rows of equal length, row after row.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Rows, B.
    pub n_rows: usize,
    /// Tokens a row, T.
    pub row_len: usize,
    /// [B, T]: what the model sees.
    pub ids: Vec<u32>,
    /// [B, T]: what follows each of them.
    pub targets: Vec<u32>,
    /// [B, T]: 1 where the target counts, 0 where it is padding.
    pub weights: Vec<f32>,
}

impl Batch {
    /// How many targets count.
    pub fn weight(&self) -> f64 {
        self.weights.iter().map(|w| f64::from(*w)).sum()
    }

    /// Rows `[start, end)` as a batch of their own.
    pub fn rows(&self, start: usize, end: usize) -> Self {
        let range = start * self.row_len..end * self.row_len;
        Self {
            n_rows: end - start,
            row_len: self.row_len,
            ids: self.ids[range.clone()].to_vec(),
            targets: self.targets[range.clone()].to_vec(),
            weights: self.weights[range].to_vec(),
        }
    }

    fn with_capacity(n_rows: usize, row_len: usize) -> Self {
        let n = n_rows * row_len;
        Self { n_rows: 0, row_len, ids: Vec::with_capacity(n), targets: Vec::with_capacity(n), weights: Vec::with_capacity(n) }
    }

    /// Appends a row from up to `row_len + 1` consecutive tokens; what is missing is padded with weight 0.
    fn push(&mut self, tokens: &[u32]) {
        let n = tokens.len() - 1;
        let padding = self.row_len - n;
        self.ids.extend_from_slice(&tokens[..n]);
        self.targets.extend_from_slice(&tokens[1..]);
        self.weights.extend(std::iter::repeat_n(1.0, n));
        self.ids.extend(std::iter::repeat_n(0, padding));
        self.targets.extend(std::iter::repeat_n(0, padding));
        self.weights.extend(std::iter::repeat_n(0.0, padding));
        self.n_rows += 1;
    }
}

/// Draws training batches: windows that begin anywhere, with replacement.
///
/// The batch of a step is a function of (seed, step), so a resumed run sees what an uninterrupted one would have seen.
#[derive(Clone, Debug)]
pub struct BatchSampler {
    key: u64,
    context_len: usize,
    batch_size: usize,
}

impl BatchSampler {
    /// # Errors
    /// [`DataError::TooSmall`] if `shards` has no room for one window of `context_len` tokens and the last one's target.
    pub fn new(shards: &Shards, context_len: usize, batch_size: usize, seed: Seed) -> Result<Self, DataError> {
        let expected = context_len as u64 + 1;
        if shards.n_tokens() < expected {
            return Err(DataError::TooSmall { split: "training", found: shards.n_tokens(), expected });
        }
        Ok(Self { key: seed.stream("batches"), context_len, batch_size })
    }

    /// The batch of `step`, counted from 0: `[B, T]` with B = batch size and T = context length.
    pub fn batch_at(&self, shards: &Shards, step: u64) -> Batch {
        let mut batch = Batch::with_capacity(self.batch_size, self.context_len);
        let choices = shards.n_tokens() - self.context_len as u64;
        for row in 0..self.batch_size as u64 {
            let mut place = [0; 16];
            place[..8].copy_from_slice(&step.to_le_bytes());
            place[8..].copy_from_slice(&row.to_le_bytes());
            let draw = xxh3_64_with_seed(&place, self.key);
            // The high half of the product maps 64 random bits evenly to 0..choices.
            let start = ((u128::from(draw) * u128::from(choices)) >> 64) as u64;
            batch.push(&shards.read(start, start + self.context_len as u64 + 1));
        }
        batch
    }
}

/// How many non-overlapping windows cover `n_tokens`.
pub fn n_windows(n_tokens: u64, context_len: usize) -> u64 {
    n_tokens.saturating_sub(1).div_ceil(context_len as u64)
}

/// Covers `tokens` in non-overlapping windows of `context_len`, up to `n_rows` a batch: every token but the first is
/// a target exactly once. The last window is padded with weight 0.
///
/// `read(start, end)` gives tokens `[start, end)`.
pub fn windows<'a>(
    n_tokens: u64,
    context_len: usize,
    n_rows: usize,
    read: impl Fn(u64, u64) -> Vec<u32> + 'a,
) -> impl Iterator<Item = Batch> + 'a {
    let n = n_windows(n_tokens, context_len);
    (0..n).step_by(n_rows).map(move |first| {
        let last = (first + n_rows as u64).min(n);
        let mut batch = Batch::with_capacity((last - first) as usize, context_len);
        for window in first..last {
            let start = window * context_len as u64;
            batch.push(&read(start, (start + context_len as u64 + 1).min(n_tokens)));
        }
        batch
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use crate::ShardWriter;

    fn shards(n_tokens: u32, n_shards: u32) -> (tempfile::TempDir, Shards) {
        let dir = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for i in 0..n_shards {
            let path = dir.path().join(format!("{i}.bin"));
            let mut writer = ShardWriter::create(&path, n_tokens as usize).unwrap();
            let (from, to) = (i * n_tokens / n_shards, (i + 1) * n_tokens / n_shards);
            writer.write(&(from..to).collect::<Vec<_>>()).unwrap();
            writer.finish().unwrap();
            paths.push(path);
        }
        let shards = Shards::open(&paths).unwrap();
        (dir, shards)
    }

    #[test]
    fn windows_predict_every_token_but_the_first_exactly_once() {
        for (n_tokens, context_len, rows) in [(2, 8, 3), (9, 8, 3), (10, 8, 3), (100, 7, 4), (57, 8, 100)] {
            let (_dir, shards) = shards(n_tokens, 1);
            let mut predicted = Vec::new();
            for batch in windows(shards.n_tokens(), context_len, rows, |a, b| shards.read(a, b)) {
                assert_eq!(batch.ids.len(), batch.n_rows * batch.row_len);
                for i in 0..batch.ids.len() {
                    if batch.weights[i] == 1.0 {
                        assert_eq!(batch.targets[i], batch.ids[i] + 1);
                        predicted.push(batch.targets[i]);
                    }
                }
            }
            assert_eq!(predicted, (1..n_tokens).collect::<Vec<_>>(), "{n_tokens} tokens in windows of {context_len}");
        }
    }

    #[test]
    fn a_batch_is_a_function_of_seed_and_step_and_crosses_shards() {
        let (_one, one) = shards(500, 1);
        let (_many, many) = shards(500, 9);
        let sampler = BatchSampler::new(&one, 64, 12, Seed(1)).unwrap();
        let other = BatchSampler::new(&one, 64, 12, Seed(2)).unwrap();
        assert_eq!(sampler.batch_at(&one, 7), sampler.batch_at(&many, 7));
        assert_ne!(sampler.batch_at(&one, 7), sampler.batch_at(&one, 8));
        assert_ne!(sampler.batch_at(&one, 7), other.batch_at(&one, 7));
    }

    #[test]
    fn windows_begin_everywhere_and_evenly() {
        let (_dir, shards) = shards(20, 1);
        let sampler = BatchSampler::new(&shards, 4, 100, Seed(5)).unwrap();
        let mut counts = [0usize; 16];
        for step in 0..160 {
            for row in sampler.batch_at(&shards, step).ids.chunks(4) {
                counts[row[0] as usize] += 1;
            }
        }
        // 16,000 draws over 16 places: 1,000 each, standard deviation 31.
        assert!(counts.iter().all(|n| (850..1150).contains(n)), "{counts:?}");
    }

    #[test]
    fn one_token_too_few_is_an_error() {
        let (_dir, shards) = shards(64, 1);
        assert!(BatchSampler::new(&shards, 63, 1, Seed(1)).is_ok());
        assert!(matches!(BatchSampler::new(&shards, 64, 1, Seed(1)), Err(DataError::TooSmall { found: 64, expected: 65, .. })));
    }

    #[test]
    fn rows_cuts_a_batch_into_micro_batches() {
        let (_dir, shards) = shards(500, 1);
        let batch = BatchSampler::new(&shards, 8, 5, Seed(1)).unwrap().batch_at(&shards, 0);
        let (a, b) = (batch.rows(0, 3), batch.rows(3, 5));
        assert_eq!([a.ids, b.ids].concat(), batch.ids);
        assert_eq!([a.targets, b.targets].concat(), batch.targets);
    }
}
