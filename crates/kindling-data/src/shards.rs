//! The shards of a split as one long sequence of token ids. Makes no batches.

use std::ops::Range;
use std::path::PathBuf;

use crate::shard::Shard;
use crate::{DataError, MarkedToken};

/// One split's tokens, mapped into memory.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    /// `starts[i]` is the position of shard i's first token; the last entry is the total.
    starts: Vec<u64>,
    /// Whether what stands in them are tokens with marks.
    of_examples: bool,
}

impl Shards {
    /// Maps shards in the given order and verifies their checksums.
    ///
    /// # Errors
    /// [`DataError::Damaged`] names the file and the part that does not fit.
    pub fn open(paths: &[PathBuf]) -> Result<Self, DataError> {
        let shards = paths.iter().map(|path| Shard::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut starts = vec![0];
        for shard in &shards {
            starts.push(starts[starts.len() - 1] + shard.n_tokens);
        }
        Ok(Self { shards, starts, of_examples: false })
    }

    /// The same, where they hold examples.
    pub(crate) fn of_examples(self) -> Self {
        Self { of_examples: true, ..self }
    }

    /// Tokens in all.
    pub fn n_tokens(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Size of the vocabulary that the ids are from.
    pub fn vocab_size(&self) -> usize {
        let n = self.shards.iter().map(|shard| shard.vocab_size as usize).max().unwrap_or(0);
        if self.of_examples { n / MarkedToken::count(1) } else { n }
    }

    /// The checksums of the payloads, in order.
    pub(crate) fn sums(&self) -> impl Iterator<Item = u64> {
        self.shards.iter().map(|shard| shard.sum)
    }

    /// Tokens of examples, with what is marked on them.
    ///
    /// # Panics
    /// If the range does not lie in `0..n_tokens`, or these are not shards of examples.
    pub fn read_marked(&self, tokens: Range<u64>) -> Vec<MarkedToken> {
        assert!(self.of_examples, "tokens of text have no marks");
        self.stored(tokens.start, tokens.end).into_iter().map(MarkedToken).collect()
    }

    /// Tokens `[start, end)`, across shards where need be.
    ///
    /// # Panics
    /// If the range does not lie in `0..n_tokens`.
    pub fn read(&self, start: u64, end: u64) -> Vec<u32> {
        let mut out = self.stored(start, end);
        if self.of_examples {
            out.iter_mut().for_each(|token| *token = MarkedToken(*token).id());
        }
        out
    }

    fn stored(&self, start: u64, end: u64) -> Vec<u32> {
        assert!(start <= end && end <= self.n_tokens(), "range {start}..{end} lies within {} tokens", self.n_tokens());
        let mut out = Vec::with_capacity((end - start) as usize);
        for (shard, from) in self.shards.iter().zip(&self.starts) {
            let (a, b) = (start.max(*from), end.min(from + shard.n_tokens));
            if a < b {
                shard.read(a - from, b - from, &mut out);
            }
        }
        out
    }
}
