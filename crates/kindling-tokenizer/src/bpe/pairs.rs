//! What a pair of ids becomes, and its rank. Most pairs have none, and are told so by a small table of bits.

use super::merge::Merge;

/// Pairs that merge.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    /// A bit for each hash; where it is not set there is no pair. About sixteen bits a pair.
    filter: Vec<u64>,
    /// Pairs with ranks and results, each at the place of its hash or after it; half of the slots are free.
    slots: Vec<(u64, (u32, u32))>,
    filter_log2: u32,
    slots_log2: u32,
}

/// No pair is of this number twice.
const FREE: u64 = u64::MAX;

fn number(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// Multiplies with high and low halves folded, for ids differ in low bits of both halves.
#[inline(always)]
fn hash(number: u64) -> u64 {
    let product = u128::from(number) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ (product >> 64) as u64
}

impl Pairs {
    /// The pairs must be distinct; their ranks are their places in the list.
    pub(super) fn new(merges: &[Merge]) -> Self {
        let n_log2 = merges.len().max(32).next_power_of_two().trailing_zeros();
        let (filter_log2, slots_log2) = (n_log2 + 4, n_log2 + 1);
        let mut table =
            Self { filter: vec![0; 1 << (filter_log2 - 6)], slots: vec![(FREE, (0, 0)); 1 << slots_log2], filter_log2, slots_log2 };
        for (rank, merge) in (0u32..).zip(merges) {
            let number = number(merge.left, merge.right);
            let hash = hash(number);
            let bit = hash >> (64 - filter_log2);
            table.filter[(bit / 64) as usize] |= 1 << (bit % 64);
            let mut at = (hash >> (64 - slots_log2)) as usize;
            while table.slots[at].0 != FREE {
                at = (at + 1) % table.slots.len();
            }
            table.slots[at] = (number, (rank, merge.result));
        }
        table
    }

    /// The rank of a pair, and its result.
    #[inline]
    pub(super) fn get(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let number = number(left, right);
        let hash = hash(number);
        let bit = hash >> (64 - self.filter_log2);
        if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return None;
        }
        let mut at = (hash >> (64 - self.slots_log2)) as usize;
        loop {
            match self.slots[at] {
                (found, step) if found == number => return Some(step),
                (FREE, _) => return None,
                _ => at = (at + 1) % self.slots.len(),
            }
        }
    }
}
