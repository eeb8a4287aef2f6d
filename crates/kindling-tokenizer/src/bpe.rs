//! A byte-level BPE vocabulary and its encoder. Does not train (`train.rs`) and reads no files (`json`).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use crate::split::pre_tokens;
use crate::table::TokenTable;

/// A byte-level BPE vocabulary: every byte is a token, so every text can be encoded.
///
/// Made by [`BpeTrainer::train`](crate::BpeTrainer::train) or by [`Tokenizer::load`](crate::Tokenizer::load);
/// turned into a [`Tokenizer`](crate::Tokenizer) by `Tokenizer::from`.
#[derive(Clone, Debug)]
pub struct Bpe {
    table: TokenTable,
    /// Id of each byte's token.
    byte_ids: Box<[u32; 256]>,
    /// In the order in which they are applied: the position is the rank.
    merges: Vec<Merge>,
    /// Rank of the merge of a pair of ids.
    ranks: FxHashMap<(u32, u32), u32>,
    /// Tokens that their own bytes encode to. A pre-token found here needs no merging.
    whole: FxHashMap<Box<[u8]>, u32>,
}

/// Two neighbouring tokens that become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) left: u32,
    pub(crate) right: u32,
    pub(crate) result: u32,
}

impl Merge {
    pub(crate) fn pair(self) -> (u32, u32) {
        (self.left, self.right)
    }
}

/// Rank of a pair that does not merge.
const NEVER: u32 = u32::MAX;
/// Up to this many bytes a scan for the best pair costs less than a heap. Both give the same ids.
const SHORT_PIECE: usize = 48;
/// Longer pre-tokens hardly ever come again.
const LONGEST_REMEMBERED: usize = 64;
/// Bounds what one call remembers (about 3 MB).
const MOST_REMEMBERED: usize = 1 << 16;

impl Bpe {
    /// The parts must fit together: the pairs of `merges` are distinct and name tokens of `table`.
    pub(crate) fn from_parts(table: TokenTable, byte_ids: Box<[u32; 256]>, merges: Vec<Merge>) -> Self {
        let ranks = (0u32..).zip(&merges).map(|(rank, merge)| (merge.pair(), rank)).collect();
        let mut bpe = Self { table, byte_ids, merges, ranks, whole: FxHashMap::default() };
        let mut whole = FxHashMap::default();
        let (mut scratch, mut ids) = (Scratch::default(), Vec::new());
        for (id, bytes) in bpe.table.iter() {
            ids.clear();
            // A token can be out of reach of its own bytes: an earlier merge may cut across it.
            if !bpe.table.is_special(id) && !bytes.is_empty() {
                bpe.merge_piece(bytes, &mut scratch, &mut ids);
                if ids == [id] {
                    whole.insert(Box::from(bytes), id);
                }
            }
        }
        bpe.whole = whole;
        bpe
    }

    pub(crate) fn table(&self) -> &TokenTable {
        &self.table
    }

    pub(crate) fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// Number of merges, the best first.
    #[must_use]
    pub fn n_merges(&self) -> usize {
        self.merges.len()
    }

    /// The ids of a text. Cannot fail, and never yields the id of a special token.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        let mut scratch = Scratch::default();
        // Where in `ids` a pre-token was encoded before. Borrows from the text and lives for this call.
        let mut seen: FxHashMap<&str, (usize, usize)> = FxHashMap::default();
        for piece in pre_tokens(text) {
            if let [byte] = piece.as_bytes() {
                ids.push(self.byte_ids[*byte as usize]);
            } else if let Some(&id) = self.whole.get(piece.as_bytes()) {
                ids.push(id);
            } else if piece.len() > LONGEST_REMEMBERED {
                self.merge_piece(piece.as_bytes(), &mut scratch, &mut ids);
            } else if let Some(&(start, end)) = seen.get(piece) {
                ids.extend_from_within(start..end);
            } else {
                let start = ids.len();
                self.merge_piece(piece.as_bytes(), &mut scratch, &mut ids);
                if seen.len() < MOST_REMEMBERED {
                    seen.insert(piece, (start, ids.len()));
                }
            }
        }
        ids
    }

    fn rank(&self, left: u32, right: u32) -> u32 {
        self.ranks.get(&(left, right)).copied().unwrap_or(NEVER)
    }

    /// Applies the merges to one pre-token, the lowest rank first and among equals the leftmost.
    fn merge_piece(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if piece.len() <= SHORT_PIECE {
            self.merge_short(piece, &mut scratch.parts, ids);
        } else {
            self.merge_long(piece, ids);
        }
    }

    /// By scanning for the best pair each time: quadratic, with a small constant.
    fn merge_short(&self, piece: &[u8], parts: &mut Vec<(u32, u32)>, ids: &mut Vec<u32>) {
        // A part is an id and the rank of its pair with the next part.
        parts.clear();
        parts.extend(piece.iter().map(|&byte| (self.byte_ids[byte as usize], NEVER)));
        for at in 1..parts.len() {
            parts[at - 1].1 = self.rank(parts[at - 1].0, parts[at].0);
        }
        loop {
            let (mut best, mut best_at) = (NEVER, 0);
            for (at, &(_, rank)) in parts.iter().enumerate() {
                if rank < best {
                    (best, best_at) = (rank, at);
                }
            }
            if best == NEVER {
                break;
            }
            parts.remove(best_at + 1);
            let merged = self.merges[best as usize].result;
            let after = parts.get(best_at + 1).map_or(NEVER, |&(next, _)| self.rank(merged, next));
            parts[best_at] = (merged, after);
            if best_at > 0 {
                parts[best_at - 1].1 = self.rank(parts[best_at - 1].0, merged);
            }
        }
        ids.extend(parts.iter().map(|&(id, _)| id));
    }

    /// By a heap over a linked list: O(n log n), so that a megabyte without a space is no trap.
    fn merge_long(&self, piece: &[u8], ids: &mut Vec<u32>) {
        let n = piece.len();
        let mut parts: Vec<u32> = piece.iter().map(|&byte| self.byte_ids[byte as usize]).collect();
        // `next[at]` is `n` at the end; a part that was swallowed has `next[at] == 0`.
        let mut next: Vec<usize> = (1..=n).collect();
        let mut previous: Vec<usize> = (0..n).map(|at| at.saturating_sub(1)).collect();
        let mut heap: BinaryHeap<Reverse<(u32, usize)>> =
            (1..n).map(|at| Reverse((self.rank(parts[at - 1], parts[at]), at - 1))).filter(|&Reverse((rank, _))| rank != NEVER).collect();
        while let Some(Reverse((rank, at))) = heap.pop() {
            // Entries go stale when a neighbour merges. One is good if its pair still stands there.
            let swallowed = next[at];
            if swallowed == 0 || swallowed == n {
                continue;
            }
            let merge = self.merges[rank as usize];
            if (parts[at], parts[swallowed]) != merge.pair() {
                continue;
            }
            parts[at] = merge.result;
            let after = next[swallowed];
            next[at] = after;
            next[swallowed] = 0;
            if after < n {
                previous[after] = at;
                let rank = self.rank(merge.result, parts[after]);
                if rank != NEVER {
                    heap.push(Reverse((rank, at)));
                }
            }
            if at > 0 {
                let before = previous[at];
                let rank = self.rank(parts[before], merge.result);
                if rank != NEVER {
                    heap.push(Reverse((rank, before)));
                }
            }
        }
        let mut at = 0;
        while at < n {
            ids.push(parts[at]);
            at = next[at];
        }
    }
}

/// Memory that one call to `encode` uses again for each pre-token.
#[derive(Default)]
struct Scratch {
    parts: Vec<(u32, u32)>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::BpeTrainer;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn trained(texts: &[&str], vocab_size: usize) -> Bpe {
        BpeTrainer { vocab_size, special_tokens: Vec::new() }.train(texts).unwrap()
    }

    /// As the paper has it: every time look at all pairs, merge one, begin again.
    fn merge_naive(bpe: &Bpe, piece: &[u8]) -> Vec<u32> {
        let mut ids: Vec<u32> = piece.iter().map(|&byte| bpe.byte_ids[byte as usize]).collect();
        while let Some((rank, at)) = (1..ids.len()).filter_map(|at| Some((*bpe.ranks.get(&(ids[at - 1], ids[at]))?, at - 1))).min() {
            ids[at] = bpe.merges[rank as usize].result;
            ids.remove(at + 1);
        }
        ids
    }

    proptest! {
        #[test]
        fn short_long_and_naive_merging_agree(corpus in "[abc]{0,200}", text in "[abc]{1,60}", extra in 0usize..60) {
            let bpe = trained(&[&corpus], 256 + extra);
            let expected = merge_naive(&bpe, text.as_bytes());
            let (mut short, mut long) = (Vec::new(), Vec::new());
            bpe.merge_short(text.as_bytes(), &mut Vec::new(), &mut short);
            bpe.merge_long(text.as_bytes(), &mut long);
            prop_assert_eq!(&short, &expected);
            prop_assert_eq!(&long, &expected);
            prop_assert_eq!(&bpe.encode(&text), &expected);
        }

        #[test]
        fn what_is_remembered_is_what_is_computed(corpus in "[abc ]{0,200}", text in "[abc ]{0,200}") {
            let bpe = trained(&[&corpus], 290);
            let expected: Vec<u32> = pre_tokens(&text).flat_map(|piece| merge_naive(&bpe, piece.as_bytes())).collect();
            prop_assert_eq!(bpe.encode(&text), expected);
        }
    }

    #[test]
    fn a_megabyte_without_a_space_is_not_quadratic() {
        let bpe = trained(&["abab cdcd abcd aaaa bcbc dada"], 300);
        for text in ["a".repeat(1 << 20), "abcd".repeat(1 << 18), "é".repeat(1 << 19), " ".repeat(1 << 20)] {
            let start = Instant::now();
            let ids = bpe.encode(&text);
            // Measured at most 0.22 s on two cores; the bound only has to tell n log n from n².
            assert!(start.elapsed() < Duration::from_secs(20));
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| bpe.table.get(id).unwrap()).copied().collect();
            assert_eq!(bytes, text.as_bytes());
        }
    }
}
