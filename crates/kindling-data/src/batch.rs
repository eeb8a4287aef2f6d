//! Batches: rows of token ids with their targets and weights, on the host. Makes no tensors.

use kindling_config::{Order, Seed};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{DataError, MarkedToken, PackedRows, PackingStats, Shards};

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
    /// [B, T]: the place in the row where the document of each token begins, 0 where it began before the row. None where tokens
    /// see documents before their own, too.
    pub document_starts: Option<Vec<u32>>,
    /// Whether positions are counted from where a document begins, and not from the beginning of the row.
    pub restart_positions: bool,
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
            weights: self.weights[range.clone()].to_vec(),
            document_starts: self.document_starts.as_ref().map(|starts| starts[range].to_vec()),
            restart_positions: self.restart_positions,
        }
    }

    /// Without rows yet, for rows of examples.
    pub(crate) fn of_examples(n_rows: usize, row_len: usize) -> Self {
        Self { restart_positions: true, ..Self::with_capacity(n_rows, row_len, Some(0)) }
    }

    fn with_capacity(n_rows: usize, row_len: usize, document_token: Option<u32>) -> Self {
        let n = n_rows * row_len;
        Self {
            n_rows: 0,
            row_len,
            ids: Vec::with_capacity(n),
            targets: Vec::with_capacity(n),
            weights: Vec::with_capacity(n),
            document_starts: document_token.map(|_| Vec::with_capacity(n)),
            restart_positions: false,
        }
    }

    /// Appends a row from up to `row_len + 1` consecutive tokens; what is missing is padded with weight 0. A document begins
    /// at each `document_token`.
    fn push(&mut self, tokens: &[u32], document_token: Option<u32>) {
        let n = tokens.len() - 1;
        let padding = self.row_len - n;
        self.ids.extend_from_slice(&tokens[..n]);
        self.targets.extend_from_slice(&tokens[1..]);
        self.weights.extend(std::iter::repeat_n(1.0, n));
        self.ids.extend(std::iter::repeat_n(0, padding));
        self.targets.extend(std::iter::repeat_n(0, padding));
        self.weights.extend(std::iter::repeat_n(0.0, padding));
        if let Some(starts) = &mut self.document_starts {
            let mut start = 0;
            starts.extend(tokens[..n].iter().zip(0..).map(|(id, place)| {
                if Some(*id) == document_token {
                    start = place;
                }
                start
            }));
            starts.extend(std::iter::repeat_n(start, padding));
        }
        self.n_rows += 1;
    }

    /// Appends a row of examples, each a document of its own; what is not learned has weight 0, and so has padding.
    pub(crate) fn push_examples(&mut self, examples: &[Vec<MarkedToken>]) {
        let first = self.n_rows * self.row_len;
        let starts = self.document_starts.get_or_insert_default();
        let mut start = 0;
        for example in examples {
            start = (self.ids.len() - first) as u32;
            let (ids, targets) = (&example[..example.len() - 1], &example[1..]);
            self.ids.extend(ids.iter().map(|token| token.id()));
            self.targets.extend(targets.iter().map(|token| token.id()));
            self.weights.extend(targets.iter().map(|token| f32::from(u8::from(token.is_learned()))));
            starts.extend(ids.iter().map(|_| start));
        }
        let end = first + self.row_len;
        assert!(self.ids.len() <= end, "{} tokens fit a row of {}", self.ids.len() - first, self.row_len);
        self.ids.resize(end, 0);
        self.targets.resize(end, 0);
        self.weights.resize(end, 0.0);
        starts.resize(end, start);
        self.n_rows += 1;
    }
}

/// A stretch of the token sequence; no window crosses from one to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Its first token.
    pub start: u64,
    /// The token behind its last.
    pub end: u64,
    /// Its share of the rows, relative to the other parts' weights.
    pub weight: f64,
}

/// What batches are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchOptions {
    /// Tokens a row, T.
    pub context_len: usize,
    /// Rows, B.
    pub batch_size: usize,
    /// Which windows of a part are taken.
    pub order: Order,
    /// The token that every document begins with, where batches are to say where documents begin.
    pub document_token: Option<u32>,
}

/// Makes training batches: windows of one or more parts of the tokens.
///
/// The batch of a step is a function of (seed, step), so a resumed run sees what an uninterrupted one would have seen.
#[derive(Clone, Debug)]
pub struct BatchSampler {
    key: u64,
    options: BatchOptions,
    parts: Vec<Part>,
    /// The share that each part takes of the rows that the parts before it leave, in units of 2^-53; the last takes all.
    shares: Vec<u64>,
    /// The rows of each part, where they are of examples; else none.
    packed: Vec<PackedRows>,
}

/// Binary digits of a share: as many as an f64 has.
const SHARE_BITS: u32 = 53;
/// Rounds of the network that shuffles windows. Four make a strong permutation of many (Luby and Rackoff 1988); two more, because a
/// round over few windows is of few bits.
const ROUNDS: u64 = 6;

impl BatchSampler {
    /// # Errors
    /// [`DataError::TooSmall`] if a part has no room for one window of `context_len` tokens and the last one's target.
    ///
    /// # Panics
    /// If there is no part, or a weight is not a number above 0.
    pub fn new(parts: &[Part], options: BatchOptions, seed: Seed) -> Result<Self, DataError> {
        let expected = options.context_len as u64 + 1;
        if let Some(found) = parts.iter().map(|part| part.end - part.start).find(|found| *found < expected) {
            return Err(DataError::TooSmall { split: "training", found, expected });
        }
        Ok(Self::with_packed(parts, options, seed, Vec::new()))
    }

    /// Makes batches of examples: the rows that [`PackedRows`] makes of each part, each once in an epoch, whatever `options.order` says.
    ///
    /// # Errors
    /// [`DataError::TooSmall`] if a part has no example.
    ///
    /// # Panics
    /// If there is no part, a weight is not a number above 0, or the shards are not of examples.
    pub fn of_examples(shards: &Shards, parts: &[Part], options: BatchOptions, seed: Seed) -> Result<Self, DataError> {
        let packed: Vec<_> = parts.iter().map(|part| PackedRows::new(shards, part.start..part.end, options.context_len)).collect();
        if let Some((part, _)) = parts.iter().zip(&packed).find(|(_, rows)| rows.n_rows() == 0) {
            return Err(DataError::TooSmall { split: "training", found: part.end - part.start, expected: 2 });
        }
        Ok(Self::with_packed(parts, options, seed, packed))
    }

    fn with_packed(parts: &[Part], options: BatchOptions, seed: Seed, packed: Vec<PackedRows>) -> Self {
        assert!(
            !parts.is_empty() && parts.iter().all(|part| part.weight > 0.0 && part.weight.is_finite()),
            "each of {parts:?} has a weight"
        );
        let share = |i: usize| parts[i].weight / parts[i..].iter().map(|part| part.weight).sum::<f64>();
        let shares = (0..parts.len()).map(|i| (share(i) * (1u64 << SHARE_BITS) as f64).round() as u64).collect();
        Self { key: seed.stream("batches"), options, parts: parts.to_vec(), shares, packed }
    }

    /// What came of packing, where the rows are of examples.
    pub fn packing(&self) -> Option<PackingStats> {
        self.packed.iter().map(PackedRows::stats).reduce(PackingStats::and)
    }

    /// The batch of `step`, counted from 0: `[B, T]` with B = batch size and T = context length.
    pub fn batch_at(&self, shards: &Shards, step: u64) -> Batch {
        let BatchOptions { context_len, batch_size, order, document_token } = self.options;
        let mut batch = match self.packed.is_empty() {
            true => Batch::with_capacity(batch_size, context_len, document_token),
            false => Batch::of_examples(batch_size, context_len),
        };
        for row in 0..batch_size as u64 {
            let (part, place) = self.place_of(step * batch_size as u64 + row);
            if let Some(packed) = self.packed.get(part) {
                packed.push(self.in_epoch(part, place, packed.n_rows()), shards, &mut batch);
                continue;
            }
            let Part { start, end, .. } = self.parts[part];
            let n_tokens = end - start;
            let first = start
                + match order {
                    Order::Random => {
                        let choices = n_tokens - context_len as u64;
                        // The high half of the product maps 64 random bits evenly to 0..choices.
                        ((u128::from(self.draw([step, row])) * u128::from(choices)) >> 64) as u64
                    }
                    Order::Epoch => self.in_epoch(part, place, n_windows(n_tokens, context_len)) * context_len as u64,
                };
            batch.push(&shards.read(first, (first + context_len as u64 + 1).min(end)), document_token);
        }
        batch
    }

    /// The row of a part of `n` rows that is taken after `place` others.
    fn in_epoch(&self, part: usize, place: u64, n: u64) -> u64 {
        let (epoch, place) = (place / n, place % n);
        permuted(place, n, |round, half| self.draw([part as u64, epoch, round, half]))
    }

    /// Which part row `n` of the run is taken from, and how many rows before it were taken from that part. Without chance: after any
    /// number of rows each of two parts is within one row of its share.
    fn place_of(&self, mut n: u64) -> (usize, u64) {
        let last = self.parts.len() - 1;
        for (part, share) in self.shares[..last].iter().enumerate() {
            let taken = |n: u64| ((u128::from(n) * u128::from(*share)) >> SHARE_BITS) as u64;
            if taken(n + 1) > taken(n) {
                return (part, taken(n));
            }
            n -= taken(n);
        }
        (last, n)
    }

    /// 64 random bits that follow from the seed and `place`.
    fn draw<const N: usize>(&self, place: [u64; N]) -> u64 {
        xxh3_64_with_seed(place.map(u64::to_le_bytes).as_flattened(), self.key)
    }
}

/// Where a permutation of `0..n` takes `place`: a Feistel network over the next even power of two, taken again until it is below n
/// (cycle walking; Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002). `draw(round, half)` gives random bits.
fn permuted(mut place: u64, n: u64, draw: impl Fn(u64, u64) -> u64) -> u64 {
    let half_bits = (u64::BITS - (n - 1).leading_zeros()).div_ceil(2);
    let mask = (1 << half_bits) - 1;
    loop {
        let (mut left, mut right) = (place >> half_bits, place & mask);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ (draw(round, right) & mask));
        }
        place = left << half_bits | right;
        if place < n {
            return place;
        }
    }
}

/// How many non-overlapping windows cover `n_tokens`.
pub fn n_windows(n_tokens: u64, context_len: usize) -> u64 {
    n_tokens.saturating_sub(1).div_ceil(context_len as u64)
}

/// Covers `tokens` in non-overlapping windows of `context_len`, up to `n_rows` a batch: every token but the first is
/// a target exactly once. The last window is padded with weight 0. `document_token` as in [`BatchOptions`].
///
/// `read(start, end)` gives tokens `[start, end)`.
pub fn windows<'a>(
    n_tokens: u64,
    context_len: usize,
    n_rows: usize,
    document_token: Option<u32>,
    read: impl Fn(u64, u64) -> Vec<u32> + 'a,
) -> impl Iterator<Item = Batch> + 'a {
    let n = n_windows(n_tokens, context_len);
    (0..n).step_by(n_rows).map(move |first| {
        let last = (first + n_rows as u64).min(n);
        let mut batch = Batch::with_capacity((last - first) as usize, context_len, document_token);
        for window in first..last {
            let start = window * context_len as u64;
            batch.push(&read(start, (start + context_len as u64 + 1).min(n_tokens)), document_token);
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

    fn options(context_len: usize, batch_size: usize) -> BatchOptions {
        BatchOptions { context_len, batch_size, order: Order::Random, document_token: None }
    }

    fn whole(shards: &Shards) -> [Part; 1] {
        [Part { start: 0, end: shards.n_tokens(), weight: 1.0 }]
    }

    /// Where the rows of a batch begin, in shards that hold 0, 1, 2, ….
    fn starts(batch: &Batch) -> Vec<u32> {
        batch.ids.chunks(batch.row_len).map(|row| row[0]).collect()
    }

    #[test]
    fn windows_predict_every_token_but_the_first_exactly_once() {
        for (n_tokens, context_len, rows) in [(2, 8, 3), (9, 8, 3), (10, 8, 3), (100, 7, 4), (57, 8, 100)] {
            let (_dir, shards) = shards(n_tokens, 1);
            let mut predicted = Vec::new();
            for batch in windows(shards.n_tokens(), context_len, rows, None, |a, b| shards.read(a, b)) {
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
        let sampler = BatchSampler::new(&whole(&one), options(64, 12), Seed(1)).unwrap();
        let other = BatchSampler::new(&whole(&one), options(64, 12), Seed(2)).unwrap();
        assert_eq!(sampler.batch_at(&one, 7), sampler.batch_at(&many, 7));
        assert_ne!(sampler.batch_at(&one, 7), sampler.batch_at(&one, 8));
        assert_ne!(sampler.batch_at(&one, 7), other.batch_at(&one, 7));
    }

    #[test]
    fn windows_begin_everywhere_and_evenly() {
        let (_dir, shards) = shards(20, 1);
        let sampler = BatchSampler::new(&whole(&shards), options(4, 100), Seed(5)).unwrap();
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
    fn draws_are_what_they_always_were() {
        // Runs that began with an older program go on with these.
        let (_dir, shards) = shards(500, 1);
        let sampler = BatchSampler::new(&whole(&shards), options(64, 5), Seed(1)).unwrap();
        assert_eq!(
            [0, 7, 1 << 40].map(|step| starts(&sampler.batch_at(&shards, step))),
            [[393, 226, 98, 2, 324], [14, 311, 287, 145, 42], [120, 277, 407, 114, 183]]
        );
    }

    #[test]
    fn an_epoch_has_each_token_of_each_part_as_a_target_once() {
        let (_dir, shards) = shards(500, 3);
        let parts = [Part { start: 0, end: 137, weight: 1.0 }, Part { start: 137, end: 500, weight: 3.0 }];
        for (context_len, batch_size) in [(8, 5), (7, 4), (64, 3), (99, 16)] {
            let options = BatchOptions { order: Order::Epoch, ..options(context_len, batch_size) };
            let sampler = BatchSampler::new(&parts, options, Seed(3)).unwrap();
            let batches: Vec<Batch> = (0..100).map(|step| sampler.batch_at(&shards, step)).collect();
            for part in parts {
                let rows = batches.iter().flat_map(|batch| (0..batch.n_rows).map(|row| batch.rows(row, row + 1)));
                let rows: Vec<Batch> = rows.filter(|row| (part.start..part.end).contains(&u64::from(row.ids[0]))).collect();
                let epochs = rows.chunks_exact(n_windows(part.end - part.start, context_len) as usize);
                assert!(epochs.len() > 2);
                for epoch in epochs {
                    let pairs = epoch.iter().flat_map(|row| row.targets.iter().zip(&row.weights));
                    let mut targets: Vec<u64> = pairs.filter(|(_, weight)| **weight > 0.0).map(|(id, _)| u64::from(*id)).collect();
                    targets.sort_unstable();
                    assert_eq!(targets, (part.start + 1..part.end).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn a_shuffled_order_has_each_place_once_and_is_the_keys() {
        for n in [1, 2, 3, 5, 16, 17, 100, 4097] {
            let order = |key: u64| -> Vec<u64> {
                let draw = |round: u64, half: u64| xxh3_64_with_seed([round, half].map(u64::to_le_bytes).as_flattened(), key);
                (0..n).map(|place| permuted(place, n, draw)).collect()
            };
            let mut sorted = order(1);
            sorted.sort_unstable();
            assert_eq!(sorted, (0..n).collect::<Vec<_>>());
            let orders: std::collections::BTreeSet<_> = (0..100).map(order).collect();
            // All that there are of up to three places, and of more nearly as many as are asked for.
            let expected = [1, 2, 6].get(n as usize - 1).copied().unwrap_or(60);
            assert!(orders.len() >= expected, "{n} places in {} orders", orders.len());
        }
    }

    #[test]
    fn each_epoch_and_each_seed_has_its_order() {
        let (_dir, shards) = shards(801, 1);
        let epoch = |seed: u64, step: u64| {
            let options = BatchOptions { order: Order::Epoch, ..options(8, 100) };
            starts(&BatchSampler::new(&whole(&shards), options, Seed(seed)).unwrap().batch_at(&shards, step))
        };
        let orders = [epoch(1, 0), epoch(1, 1), epoch(2, 0)];
        for i in 0..3 {
            assert_eq!(epoch([1, 1, 2][i], [0, 1, 0][i]), orders[i]);
            // A random order has one window of a hundred where another has it.
            assert!(orders[i].iter().zip(&orders[(i + 1) % 3]).filter(|(a, b)| a == b).count() < 8);
            let stays = orders[i].iter().zip(0..).filter(|(start, place)| **start == 8 * place).count();
            let follows = orders[i].windows(2).filter(|pair| pair[1] == pair[0] + 8).count();
            assert!(stays < 8 && follows < 8, "{stays} windows stay in their places, and {follows} follow the one before them");
        }
    }

    #[test]
    fn rows_are_shared_out_by_weight() {
        let part = |weight| Part { start: 0, end: 9, weight };
        for weights in [&[1.0][..], &[1.0, 1.0], &[2.0, 1.0, 1.0], &[0.7, 0.2, 0.1], &[0.001, 1000.0, 1.0]] {
            let parts: Vec<Part> = weights.iter().copied().map(part).collect();
            let sampler = BatchSampler::new(&parts, options(8, 1), Seed(1)).unwrap();
            let mut taken = vec![0; parts.len()];
            for n in 0..5000 {
                let (part, place) = sampler.place_of(n);
                assert_eq!(place, taken[part], "row {n} of {weights:?}");
                taken[part] += 1;
                for (taken, weight) in taken.iter().zip(weights) {
                    let expected = (n + 1) as f64 * weight / weights.iter().sum::<f64>();
                    assert!((*taken as f64 - expected).abs() < weights.len() as f64, "{taken} of {n} rows, {expected} by {weights:?}");
                }
            }
        }
    }

    #[test]
    fn no_window_leaves_its_part() {
        let (_dir, shards) = shards(500, 4);
        let parts = [Part { start: 20, end: 120, weight: 1.0 }, Part { start: 120, end: 137, weight: 1.0 }];
        for order in [Order::Random, Order::Epoch] {
            let sampler = BatchSampler::new(&parts, BatchOptions { order, ..options(16, 8) }, Seed(1)).unwrap();
            for step in 0..50 {
                let batch = sampler.batch_at(&shards, step);
                for (row, first) in starts(&batch).into_iter().enumerate() {
                    let within = |part: &Part| {
                        let counted = batch.rows(row, row + 1).weight() as u64;
                        part.start <= u64::from(first) && u64::from(first) + counted < part.end
                    };
                    assert!(parts.iter().any(within), "a window from {first} in {order:?} order");
                }
            }
        }
    }

    #[test]
    fn documents_begin_at_their_token() {
        let tokens = [7, 0, 9, 8, 0, 0, 6, 5, 4];
        let read = |start: u64, end: u64| tokens[start as usize..end as usize].to_vec();
        let batch = windows(9, 6, 2, Some(0), read).next().unwrap();
        assert_eq!(batch.ids, [7, 0, 9, 8, 0, 0, 6, 5, 0, 0, 0, 0]);
        // Padding goes on with the last document.
        assert_eq!(batch.document_starts, Some(vec![0, 1, 1, 1, 4, 5, 0, 0, 0, 0, 0, 0]));
        assert_eq!(batch.rows(0, 1).document_starts, Some(vec![0, 1, 1, 1, 4, 5]));
        assert_eq!(windows(9, 6, 2, None, read).next().unwrap().document_starts, None);

        let (_dir, shards) = shards(20, 1);
        let options = BatchOptions { document_token: Some(15), ..options(16, 3) };
        let batch = BatchSampler::new(&whole(&shards), options, Seed(1)).unwrap().batch_at(&shards, 0);
        let expected = batch.ids.chunks(16).flat_map(|row| row.iter().map(|id| if *id < 15 { 0 } else { 15 - row[0] }));
        assert_eq!(batch.document_starts, Some(expected.collect()));
    }

    #[test]
    fn one_token_too_few_is_an_error() {
        let (_dir, shards) = shards(64, 1);
        assert!(BatchSampler::new(&whole(&shards), options(63, 1), Seed(1)).is_ok());
        assert!(matches!(
            BatchSampler::new(&whole(&shards), options(64, 1), Seed(1)),
            Err(DataError::TooSmall { found: 64, expected: 65, .. })
        ));
    }

    #[test]
    fn rows_cuts_a_batch_into_micro_batches() {
        let (_dir, shards) = shards(500, 1);
        let batch = BatchSampler::new(&whole(&shards), options(8, 5), Seed(1)).unwrap().batch_at(&shards, 0);
        let (a, b) = (batch.rows(0, 3), batch.rows(3, 5));
        assert_eq!([a.ids, b.ids].concat(), batch.ids);
        assert_eq!([a.targets, b.targets].concat(), batch.targets);
    }
}
