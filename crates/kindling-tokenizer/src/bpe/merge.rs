//! Merges one pre-token. Knows no text and remembers nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::cache::table;
use super::pairs::Pairs;
use crate::table::TokenTable;

/// Ordinary tokens by their bytes.
pub(super) type Tokens = FxHashMap<Box<[u8]>, u32>;

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

/// Which neighbours merge, and which of them first.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Id of each byte's token.
    byte_ids: Box<[u32; 256]>,
    /// Rank and result of each pair of bytes, the first byte above the second.
    byte_steps: Box<[Step; 1 << 16]>,
    order: Order,
}

#[derive(Clone, Debug)]
enum Order {
    /// Pairs of ids, in the order of a list.
    Listed { merges: Vec<Merge>, pairs: Pairs, ignore_merges: bool },
    /// All pairs whose bytes together are a token, in the order of its ids.
    Ranked,
}

/// The rank of a pair, and what it becomes.
type Step = (u32, u32);
/// The rank of a pair that does not merge.
const NEVER: u32 = u32::MAX;
/// Up to this many bytes a scan for the best pair costs less than a heap. Both give the same ids.
const SHORT_PIECE: usize = 48;

impl Rules {
    pub(super) fn listed(byte_ids: Box<[u32; 256]>, merges: Vec<Merge>, ignore_merges: bool) -> Self {
        let pairs = Pairs::new(&merges);
        Self::new(byte_ids, Order::Listed { merges, pairs, ignore_merges }, &Tokens::default())
    }

    /// Every byte must be among the tokens.
    pub(super) fn ranked(tokens: &Tokens) -> Self {
        let byte_ids = Box::new(std::array::from_fn(|byte| tokens[&[u8::try_from(byte).expect("256 bytes")][..]]));
        Self::new(byte_ids, Order::Ranked, tokens)
    }

    fn new(byte_ids: Box<[u32; 256]>, order: Order, tokens: &Tokens) -> Self {
        let mut byte_steps = table();
        for pair in 0..=u16::MAX {
            let bytes = pair.to_be_bytes();
            let [left, right] = bytes.map(|byte| byte_ids[byte as usize]);
            byte_steps[pair as usize] = match &order {
                Order::Listed { pairs, .. } => pairs.get(left, right).unwrap_or((NEVER, 0)),
                Order::Ranked => by_rank(tokens, &bytes),
            };
        }
        Self { byte_ids, byte_steps, order }
    }

    pub(super) fn byte_id(&self, byte: u8) -> u32 {
        self.byte_ids[byte as usize]
    }

    #[cfg(test)]
    pub(super) fn byte_ids(&self) -> Box<[u32; 256]> {
        self.byte_ids.clone()
    }

    pub(super) fn ignore_merges(&self) -> bool {
        matches!(self.order, Order::Ranked | Order::Listed { ignore_merges: true, .. })
    }

    /// All pairs that merge, the first to be merged first.
    pub(super) fn merges(&self, table: &TokenTable, tokens: &Tokens) -> Vec<Merge> {
        match &self.order {
            Order::Listed { merges, .. } => merges.clone(),
            Order::Ranked => {
                let mut merges = Vec::new();
                for (id, bytes) in table.ordinary() {
                    for at in 1..bytes.len() {
                        if let (Some(&left), Some(&right)) = (tokens.get(&bytes[..at]), tokens.get(&bytes[at..])) {
                            merges.push(Merge { left, right, result: id });
                        }
                    }
                }
                merges
            }
        }
    }

    /// Applies the merges to one pre-token, the first of their order first and among equals the leftmost.
    pub(super) fn merge(&self, piece: &[u8], tokens: &Tokens, ids: &mut Vec<u32>) {
        self.merge_in(piece, tokens, piece.len() <= SHORT_PIECE, ids);
    }

    fn merge_in(&self, piece: &[u8], tokens: &Tokens, by_scan: bool, ids: &mut Vec<u32>) {
        match &self.order {
            Order::Listed { pairs, .. } => {
                self.merge_by(piece, |left, right, _| pairs.get(left, right).unwrap_or((NEVER, 0)), by_scan, ids);
            }
            Order::Ranked => self.merge_by(piece, |_, _, bytes| by_rank(tokens, bytes), by_scan, ids),
        }
    }

    /// `step` is that of a pair of ids, whose bytes together it is given too.
    #[inline(always)]
    fn merge_by(&self, piece: &[u8], step: impl Fn(u32, u32, &[u8]) -> Step, by_scan: bool, ids: &mut Vec<u32>) {
        if by_scan {
            self.merge_short(piece, step, ids);
        } else {
            self.merge_long(piece, step, ids);
        }
    }

    /// By scanning for the best pair each time: quadratic, with a small constant.
    #[inline(always)]
    fn merge_short(&self, piece: &[u8], step: impl Fn(u32, u32, &[u8]) -> Step, ids: &mut Vec<u32>) {
        // A part begins at the place of its first byte, and keeps it: `next` leads over the places of those it has swallowed.
        let n = piece.len();
        let mut parts = [0u32; SHORT_PIECE];
        let mut next = [0u8; SHORT_PIECE + 1];
        let mut previous = [0u8; SHORT_PIECE + 1];
        // Of the pair with the next part.
        let mut ranks = [NEVER; SHORT_PIECE];
        let mut results = [0u32; SHORT_PIECE];
        for (at, &byte) in piece.iter().enumerate() {
            parts[at] = self.byte_id(byte);
            (next[at], previous[at + 1]) = (at as u8 + 1, at as u8);
        }
        for (at, pair) in piece.windows(2).enumerate() {
            (ranks[at], results[at]) = self.byte_steps[usize::from(u16::from_be_bytes([pair[0], pair[1]]))];
        }
        loop {
            let (mut best, mut at) = (NEVER, 0);
            for (idx, &rank) in ranks[..n].iter().enumerate() {
                if rank < best {
                    (best, at) = (rank, idx);
                }
            }
            if best == NEVER {
                break;
            }
            let swallowed = next[at] as usize;
            let after = next[swallowed] as usize;
            parts[at] = results[at];
            next[at] = after as u8;
            previous[after] = at as u8;
            ranks[swallowed] = NEVER;
            (ranks[at], results[at]) = match after < n {
                true => step(parts[at], parts[after], &piece[at..next[after] as usize]),
                false => (NEVER, 0),
            };
            if at > 0 {
                let before = previous[at] as usize;
                (ranks[before], results[before]) = step(parts[before], parts[at], &piece[before..after]);
            }
        }
        let mut at = 0;
        while at < n {
            ids.push(parts[at]);
            at = next[at] as usize;
        }
    }

    /// By a heap over a linked list: O(n log n), so that a megabyte without a space is no trap.
    #[inline(always)]
    fn merge_long(&self, piece: &[u8], step: impl Fn(u32, u32, &[u8]) -> Step, ids: &mut Vec<u32>) {
        let n = piece.len();
        let mut parts: Vec<u32> = piece.iter().map(|&byte| self.byte_id(byte)).collect();
        // `next[at]` is `n` at the end; a part that was swallowed has `next[at] == 0`.
        let mut next: Vec<usize> = (1..=n).collect();
        let mut previous: Vec<usize> = (0..n).map(|at| at.saturating_sub(1)).collect();
        let step_at = |at: usize, parts: &[u32], next: &[usize]| match next[at] {
            after if after == 0 || after == n => (NEVER, 0),
            after => step(parts[at], parts[after], &piece[at..next[after]]),
        };
        let mut heap: BinaryHeap<Reverse<(u32, usize)>> =
            (0..n).map(|at| Reverse((step_at(at, &parts, &next).0, at))).filter(|&Reverse((rank, _))| rank != NEVER).collect();
        while let Some(Reverse((best, at))) = heap.pop() {
            // Entries go stale when a neighbour merges. One is good if it would be made again.
            let (rank, result) = step_at(at, &parts, &next);
            if rank != best {
                continue;
            }
            let swallowed = next[at];
            let after = next[swallowed];
            parts[at] = result;
            next[at] = after;
            next[swallowed] = 0;
            if after < n {
                previous[after] = at;
            }
            let before = (at > 0).then(|| previous[at]);
            for at in [Some(at), before].into_iter().flatten() {
                let (rank, _) = step_at(at, &parts, &next);
                if rank != NEVER {
                    heap.push(Reverse((rank, at)));
                }
            }
        }
        let mut at = 0;
        while at < n {
            ids.push(parts[at]);
            at = next[at];
        }
    }

    /// What both ways of merging give.
    #[cfg(test)]
    pub(super) fn both_ways(&self, piece: &[u8], tokens: &Tokens) -> (Vec<u32>, Vec<u32>) {
        let (mut short, mut long) = (Vec::new(), Vec::new());
        self.merge_in(piece, tokens, true, &mut short);
        self.merge_in(piece, tokens, false, &mut long);
        (short, long)
    }
}

/// The bytes of two neighbours together, if they are a token, have its id for rank and result.
fn by_rank(tokens: &Tokens, bytes: &[u8]) -> Step {
    tokens.get(bytes).map_or((NEVER, 0), |&id| (id, id))
}
