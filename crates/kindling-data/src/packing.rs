//! Examples to rows of batches: whole ones side by side, none of which sees another. Looks at no text.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::{Batch, MarkedToken, Shards};

/// Tokens that are read at once.
const CHUNK_TOKENS: u64 = 1 << 18;

/// Examples in rows of a context, by best fit in the order of falling lengths (Johnson 1973): at most 11/9 of the least number of
/// rows and six more. An example that is longer than a row loses its beginning, so that what is learned of it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedRows {
    context_len: usize,
    /// Tokens of the examples of each row, cut where need be.
    rows: Vec<Vec<Range<u64>>>,
    stats: PackingStats,
}

/// What came of packing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PackingStats {
    /// Examples.
    pub n_examples: u64,
    /// Of those, too long for a row.
    pub n_cut: u64,
    /// Tokens of all examples, as they are in rows.
    pub n_tokens: u64,
    /// Of those, learned.
    pub n_learned: u64,
    /// Rows.
    pub n_rows: u64,
}

impl PackingStats {
    /// The same of two sets of rows.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            n_examples: self.n_examples + other.n_examples,
            n_cut: self.n_cut + other.n_cut,
            n_tokens: self.n_tokens + other.n_tokens,
            n_learned: self.n_learned + other.n_learned,
            n_rows: self.n_rows + other.n_rows,
        }
    }
}

impl PackedRows {
    /// Packs the examples among `tokens` of shards of examples.
    ///
    /// # Panics
    /// If the range does not lie in the shards, or they are not of examples.
    pub fn new(shards: &Shards, tokens: Range<u64>, context_len: usize) -> Self {
        let mut stats = PackingStats::default();
        let mut examples: Vec<Range<u64>> = Vec::new();
        // Learned tokens of the examples are counted where they are not cut off.
        let most = context_len as u64 + 1;
        let mut start = tokens.start;
        let mut learned = Vec::new();
        let mut end_example = |range: Range<u64>, learned: &mut Vec<u64>| {
            if range.end - range.start > 1 {
                let cut = range.end.saturating_sub(most).max(range.start)..range.end;
                stats.n_examples += 1;
                stats.n_cut += u64::from(cut != range);
                stats.n_tokens += cut.end - cut.start;
                // The first token of a row is no target.
                stats.n_learned += learned.iter().filter(|place| **place > cut.start).count() as u64;
                examples.push(cut);
            }
            learned.clear();
        };
        for from in (tokens.start..tokens.end).step_by(CHUNK_TOKENS as usize) {
            let chunk = shards.read_marked(from..tokens.end.min(from + CHUNK_TOKENS));
            for (token, place) in chunk.into_iter().zip(from..) {
                if token.begins() {
                    end_example(start..place, &mut learned);
                    start = place;
                }
                if token.is_learned() {
                    learned.push(place);
                }
            }
        }
        end_example(start..tokens.end, &mut learned);
        let rows = packed(examples, context_len);
        stats.n_rows = rows.len() as u64;
        Self { context_len, rows, stats }
    }

    /// How many rows there are.
    pub fn n_rows(&self) -> u64 {
        self.stats.n_rows
    }

    /// What came of packing.
    pub fn stats(&self) -> PackingStats {
        self.stats
    }

    /// The examples, row by row, as ranges of tokens.
    pub fn examples(&self) -> impl Iterator<Item = Range<u64>> {
        self.rows.iter().flatten().cloned()
    }

    /// All rows once, up to `n_rows` a batch.
    pub fn batches<'a>(&'a self, shards: &'a Shards, n_rows: usize) -> impl Iterator<Item = Batch> + 'a {
        (0..self.rows.len()).step_by(n_rows).map(move |first| {
            let last = (first + n_rows).min(self.rows.len());
            let mut batch = Batch::of_examples(last - first, self.context_len);
            (first..last).for_each(|row| self.push(row as u64, shards, &mut batch));
            batch
        })
    }

    /// Appends a row to a batch.
    pub(crate) fn push(&self, row: u64, shards: &Shards, batch: &mut Batch) {
        let examples: Vec<Vec<MarkedToken>> = self.rows[row as usize].iter().map(|range| shards.read_marked(range.clone())).collect();
        batch.push_examples(&examples);
    }
}

/// Ranges of at most `context_len` + 1 tokens in rows of `context_len`: the last token of each is only a target.
fn packed(mut examples: Vec<Range<u64>>, context_len: usize) -> Vec<Vec<Range<u64>>> {
    let len = |example: &Range<u64>| example.end - example.start - 1;
    examples.sort_by_key(|example| (std::cmp::Reverse(len(example)), example.start));
    let mut rows: Vec<Vec<Range<u64>>> = Vec::new();
    // Rows by the room that they have left.
    let mut open: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for example in examples {
        let len = len(&example);
        let room = open.range(len..).next().map(|(room, _)| *room);
        let row = match room {
            Some(room) => {
                let rows = open.get_mut(&room).expect("it was found");
                let row = rows.pop().expect("none is kept empty");
                if rows.is_empty() {
                    open.remove(&room);
                }
                row
            }
            None => {
                rows.push(Vec::new());
                rows.len() - 1
            }
        };
        rows[row].push(example);
        let left = room.unwrap_or(context_len as u64) - len;
        if left > 0 {
            open.entry(left).or_default().push(row);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use kindling_config::{Order, Seed};
    use proptest::prelude::*;

    use super::*;
    use crate::{BatchOptions, BatchSampler, Part, ShardWriter};

    /// Shards of examples of these lengths, whose ids count up; the last half of each is learned.
    fn shards(lens: &[usize], n_shards: usize) -> (tempfile::TempDir, Shards) {
        let mut id = 0;
        let mut tokens = Vec::new();
        for len in lens {
            for place in 0..*len {
                tokens.push(MarkedToken::new(id, place == 0, place > 0 && place >= len / 2).0);
                id += 1;
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..n_shards)
            .map(|i| {
                let path = dir.path().join(format!("{i}.bin"));
                let mut writer = ShardWriter::create(&path, MarkedToken::count(id as usize)).unwrap();
                writer.write(&tokens[i * tokens.len() / n_shards..(i + 1) * tokens.len() / n_shards]).unwrap();
                writer.finish().unwrap();
                path
            })
            .collect();
        let shards = Shards::open(&paths).unwrap().of_examples();
        (dir, shards)
    }

    proptest! {
        #[test]
        fn every_example_is_whole_in_one_row(lens in prop::collection::vec(2usize..40, 1..60), context_len in 4usize..32) {
            let (_dir, shards) = shards(&lens, 3);
            let rows = PackedRows::new(&shards, 0..shards.n_tokens(), context_len);
            let mut found = Vec::new();
            let mut learned = 0;
            for batch in rows.batches(&shards, 4) {
                prop_assert!(batch.restart_positions);
                let starts = batch.document_starts.clone().unwrap();
                for row in 0..batch.n_rows {
                    let at = row * context_len;
                    let mut place = 0;
                    while place < context_len && (place == 0 || batch.weights[at + place..at + context_len].iter().any(|w| *w > 0.0)) {
                        let len = starts[at + place..at + context_len].iter().take_while(|start| **start == place as u32).count();
                        // Padding belongs to the last example.
                        let ids = &batch.ids[at + place..at + place + len];
                        let n = ids.windows(2).take_while(|pair| pair[1] == pair[0] + 1).count() + 1;
                        found.push((ids[0], n + 1));
                        for i in at + place..at + place + n {
                            prop_assert_eq!(batch.targets[i], batch.ids[i] + 1);
                        }
                        prop_assert!(batch.weights[at + place + n..at + place + len].iter().all(|w| *w == 0.0));
                        place += len;
                    }
                }
                learned += batch.weights.iter().filter(|w| **w > 0.0).count();
            }
            found.sort_unstable();
            let mut start = 0;
            let expected: Vec<(u32, usize)> = lens.iter().map(|len| {
                let cut = len.saturating_sub(context_len + 1);
                start += len;
                ((start - len + cut) as u32, len - cut)
            }).collect();
            prop_assert_eq!(found, expected);
            let stats = rows.stats();
            prop_assert_eq!(stats.n_learned, learned as u64);
            prop_assert_eq!(stats.n_examples, lens.len() as u64);
            prop_assert_eq!(stats.n_cut, lens.iter().filter(|len| **len > context_len + 1).count() as u64);
        }
    }

    #[test]
    fn an_epoch_has_every_row_once_of_each_part() {
        let (_dir, shards) = shards(&[7; 30], 2);
        let parts = [Part { start: 0, end: 70, weight: 1.0 }, Part { start: 70, end: 210, weight: 2.0 }];
        let options = BatchOptions { context_len: 13, batch_size: 3, order: Order::Epoch, document_token: None };
        let sampler = BatchSampler::of_examples(&shards, &parts, options, Seed(1)).unwrap();
        // Two examples a row: five rows and ten, in the proportion of their weights.
        assert_eq!(sampler.packing().map(|stats| (stats.n_examples, stats.n_rows)), Some((30, 15)));
        let epochs: Vec<Vec<u32>> = (0..2)
            .map(|epoch| (5 * epoch..5 * epoch + 5).flat_map(|step| sampler.batch_at(&shards, step).ids.into_iter().step_by(13)).collect())
            .collect();
        let sorted = |epoch: &[u32]| {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            sorted
        };
        assert_eq!(sorted(&epochs[0]), (0..15).map(|row| row * 14).collect::<Vec<_>>());
        assert_eq!(sorted(&epochs[0]), sorted(&epochs[1]));
        assert_ne!(epochs[0], epochs[1]);
    }

    #[test]
    fn packing_is_what_it_always_was() {
        // Runs that began with an older program go on with these rows.
        let lens: Vec<usize> = (0..20).map(|i| 2 + (i * 7) % 13).collect();
        let (_dir, shards) = shards(&lens, 2);
        let rows = PackedRows::new(&shards, 0..shards.n_tokens(), 16);
        let examples: Vec<_> = rows.examples().map(|example| (example.start, example.end)).collect();
        let of_rows = [[(82, 96), (24, 28)], [(62, 75), (39, 44)], [(44, 56), (56, 62)]];
        assert_eq!(examples[..6], of_rows.concat());
        assert_eq!(
            examples[6..],
            [
                (28, 39),
                (143, 148),
                (11, 14),
                (132, 143),
                (75, 82),
                (14, 24),
                (128, 132),
                (115, 118),
                (0, 2),
                (104, 106),
                (118, 128),
                (96, 104),
                (2, 11),
                (106, 115),
            ]
        );
    }

    #[test]
    fn rows_are_well_filled() {
        // Seven of more than half a row, and one that fits beside each.
        let lens: Vec<usize> = (0..7).flat_map(|i| [10 + i, 8 - i]).collect();
        let (_dir, shards) = shards(&lens, 1);
        assert_eq!(PackedRows::new(&shards, 0..shards.n_tokens(), 16).n_rows(), 7);
    }
}
