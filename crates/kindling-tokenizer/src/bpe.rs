//! A byte-level BPE vocabulary and its encoder. Does not train (`train.rs`) and reads no files (`json`, `tiktoken`).

mod cache;
mod merge;
mod pairs;
mod share;

use rustc_hash::FxHashMap;

use crate::TokenizerError;
use crate::split::{SplitPattern, Splitter};
use crate::table::TokenTable;
use cache::{Cache, CachePool};
pub(crate) use merge::Merge;
use merge::Rules;

/// A text of this size is encoded on several threads. The ids do not depend on it.
const SHARED_BYTES: usize = 1 << 14;

/// A byte-level BPE vocabulary: every byte is a token, so every text can be encoded, and so can bytes that are no text.
///
/// Made by [`BpeTrainer::train`](crate::BpeTrainer::train), [`Tokenizer::published`](crate::Tokenizer::published) or
/// [`Tokenizer::load`](crate::Tokenizer::load); turned into a [`Tokenizer`](crate::Tokenizer) by `Tokenizer::from`.
#[derive(Clone, Debug)]
pub struct Bpe {
    table: TokenTable,
    pattern: SplitPattern,
    rules: Rules,
    /// Tokens that a pre-token of their bytes becomes. One that is found here needs no merging.
    whole: FxHashMap<Box<[u8]>, u32>,
    caches: CachePool,
}

impl Bpe {
    /// The parts must fit together: the pairs of `merges` are distinct and name tokens of `table`.
    ///
    /// With `ignore_merges` a pre-token that is spelled like a token is that token, also where no merges lead there.
    pub(crate) fn from_merges(
        table: TokenTable,
        pattern: SplitPattern,
        byte_ids: Box<[u32; 256]>,
        merges: Vec<Merge>,
        ignore_merges: bool,
    ) -> Self {
        let rules = Rules::listed(byte_ids, merges, ignore_merges);
        let mut whole = FxHashMap::default();
        let mut ids = Vec::new();
        for (id, bytes) in table.ordinary() {
            ids.clear();
            // A token can be out of reach of its own bytes: an earlier merge may cut across it.
            if !ignore_merges {
                rules.merge(bytes, &whole, &mut ids);
            }
            if ignore_merges || ids == [id] {
                whole.insert(Box::from(bytes), id);
            }
        }
        Self { table, pattern, rules, whole, caches: CachePool::default() }
    }

    /// As in OpenAI's vocabularies: any two neighbours that together are a token can merge, and the lowest id comes first.
    /// Every byte must be a token, and no two tokens may have the same bytes.
    pub(crate) fn from_ranks(table: TokenTable, pattern: SplitPattern) -> Self {
        let whole: FxHashMap<Box<[u8]>, u32> = table.ordinary().map(|(id, bytes)| (Box::from(bytes), id)).collect();
        let rules = Rules::ranked(&whole);
        Self { table, pattern, rules, whole, caches: CachePool::default() }
    }

    pub(crate) fn table(&self) -> &TokenTable {
        &self.table
    }

    /// The merges in the order in which they are applied. Where ids are ranks, all that could ever be.
    pub(crate) fn merges(&self) -> Vec<Merge> {
        self.rules.merges(&self.table, &self.whole)
    }

    /// Whether a pre-token that is spelled like a token is that token, also where no merges lead there.
    pub(crate) fn ignore_merges(&self) -> bool {
        self.rules.ignore_merges()
    }

    /// How text is cut before merging.
    #[must_use]
    pub fn pattern(&self) -> &SplitPattern {
        &self.pattern
    }

    /// The ids of a text, never that of a special token. A long text is encoded on all threads of the current rayon pool.
    ///
    /// # Errors
    /// Only where the split pattern is a regular expression, if matching it takes too many steps.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        self.encode_into(text, &mut ids)?;
        Ok(ids)
    }

    /// The ids of any bytes: stretches of UTF-8 as texts of their own, and between them each byte that belongs to no
    /// character as its own token. Decoding gives back the bytes.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(bytes.len() / 3 + 1);
        for chunk in bytes.utf8_chunks() {
            self.encode_into(chunk.valid(), &mut ids)?;
            ids.extend(chunk.invalid().iter().map(|&byte| self.rules.byte_id(byte)));
        }
        Ok(ids)
    }

    /// As [`encode`](Self::encode), behind what `ids` holds.
    fn encode_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let encode = |text: &str, ids: &mut Vec<u32>| self.encode_alone(text, ids);
        if text.len() < SHARED_BYTES { encode(text, ids) } else { share::encode(text, &self.pattern, ids, encode) }
    }

    fn encode_alone(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut cache = self.caches.take();
        let result = self.encode_with(text, &mut cache, ids);
        self.caches.give_back(cache);
        result
    }

    fn encode_with(&self, text: &str, cache: &mut Cache, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let bytes = text.as_bytes();
        let mut splitter = Splitter::new(&self.pattern, text);
        let mut start = 0;
        while let Some(mut ends) = splitter.next_ends()? {
            loop {
                let n_done;
                (n_done, start) = cache.append_known(bytes, start, ends, ids);
                let Some((&end, rest)) = ends[n_done..].split_first() else { break };
                if !cache.append_other(&bytes[start..end], ids) {
                    let before = ids.len();
                    self.encode_piece(&bytes[start..end], ids);
                    cache.put(bytes, start, end, &ids[before..]);
                }
                (start, ends) = (end, rest);
            }
        }
        Ok(())
    }

    fn encode_piece(&self, piece: &[u8], ids: &mut Vec<u32>) {
        match self.whole.get(piece) {
            Some(&id) => ids.push(id),
            None => self.rules.merge(piece, &self.whole, ids),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::BpeTrainer;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn trained(texts: &[&str], vocab_size: usize) -> Bpe {
        BpeTrainer::new(vocab_size).train(texts).unwrap()
    }

    /// As the paper has it: every time look at all pairs, merge one, begin again.
    fn merge_naive(bpe: &Bpe, piece: &[u8]) -> Vec<u32> {
        let merges = bpe.merges();
        let rank = |pair: (u32, u32)| merges.iter().position(|merge| merge.pair() == pair);
        let mut ids: Vec<u32> = piece.iter().map(|&byte| bpe.rules.byte_id(byte)).collect();
        while let Some((rank, at)) = (1..ids.len()).filter_map(|at| Some((rank((ids[at - 1], ids[at]))?, at - 1))).min() {
            ids[at] = merges[rank].result;
            ids.remove(at + 1);
        }
        ids
    }

    proptest! {
        #[test]
        fn short_long_and_naive_merging_agree(corpus in "[abc]{0,200}", text in "[abc]{1,48}", extra in 0usize..60) {
            let bpe = trained(&[&corpus], 256 + extra);
            let expected = merge_naive(&bpe, text.as_bytes());
            let (short, long) = bpe.rules.both_ways(text.as_bytes(), &bpe.whole);
            prop_assert_eq!(&short, &expected);
            prop_assert_eq!(&long, &expected);
            prop_assert_eq!(&bpe.encode(&text).unwrap(), &expected);
        }

        #[test]
        fn what_is_remembered_is_what_is_computed(corpus in "[abc ]{0,200}", text in "[abc ]{0,200}") {
            let bpe = trained(&[&corpus], 290);
            let pieces = bpe.pattern.pre_tokens(&text).unwrap();
            let expected: Vec<u32> = pieces.iter().flat_map(|piece| merge_naive(&bpe, piece.as_bytes())).collect();
            for _ in 0..2 {
                prop_assert_eq!(&bpe.encode(&text).unwrap(), &expected);
            }
        }

        #[test]
        fn ranks_merge_as_all_their_merges(corpus in "[abc]{0,200}", text in "[abc]{1,48}", extra in 0usize..60) {
            let listed = trained(&[&corpus], 256 + extra);
            let ranked = Bpe::from_ranks(listed.table.clone(), SplitPattern::Gpt2);
            let (short, long) = ranked.rules.both_ways(text.as_bytes(), &ranked.whole);
            prop_assert_eq!(&short, &long);
            let all = Bpe::from_merges(ranked.table.clone(), SplitPattern::Gpt2, ranked.rules.byte_ids(), ranked.merges(), true);
            prop_assert_eq!(ranked.encode(&text).unwrap(), all.encode(&text).unwrap());
        }
    }

    #[test]
    fn a_megabyte_without_a_space_is_not_quadratic() {
        let listed = trained(&["abab cdcd abcd aaaa bcbc dada"], 300);
        let ranked = Bpe::from_ranks(listed.table.clone(), SplitPattern::Gpt2);
        for bpe in [listed, ranked] {
            for text in ["a".repeat(1 << 20), "abcd".repeat(1 << 18), "é".repeat(1 << 19), " ".repeat(1 << 20)] {
                let start = Instant::now();
                let ids = bpe.encode(&text).unwrap();
                // Measured at most 0.22 s on two cores; the bound only has to tell n log n from n².
                assert!(start.elapsed() < Duration::from_secs(20));
                let bytes: Vec<u8> = ids.iter().flat_map(|&id| bpe.table.get(id).unwrap()).copied().collect();
                assert_eq!(bytes, text.as_bytes());
            }
        }
    }
}
