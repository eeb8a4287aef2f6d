//! Where the keys and values of tokens are that a model has seen. Computes nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kindling_kernels::KvTables;

/// Keys and values of tokens that a model has seen, each in a slot, as a page of one token in PagedAttention (Kwon et al. 2023). A slot is
/// written once while sequences have it, so that sequences may share those of a common beginning; when no sequence has it any more, it is free again.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) tables: KvTables,
    slots: Slots,
}

/// The tokens that a sequence has in a [`KvCache`], by their slots. A clone goes on by itself behind what both have seen; slots that no
/// sequence has any more are free.
#[derive(Debug, Default)]
pub struct Sequence {
    slots: Vec<u32>,
    /// Of the cache, once there are slots.
    of: Option<Slots>,
}

/// Who has which slot.
#[derive(Clone, Debug, Default)]
struct Slots(Arc<Mutex<Owners>>);

#[derive(Debug, Default)]
struct Owners {
    /// Sequences that have each slot.
    n_owners: Vec<u32>,
    /// Slots without any; the lowest is taken first, so that neighbours in a text are often neighbours in memory.
    free: BinaryHeap<Reverse<u32>>,
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, Owners> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KvCache {
    /// An empty cache.
    pub(crate) fn new(tables: KvTables) -> Self {
        Self { tables, slots: Slots::default() }
    }

    /// Tokens that sequences have in it, those that they share once.
    pub fn n_used(&self) -> usize {
        let owners = self.slots.lock();
        owners.n_owners.len() - owners.free.len()
    }

    /// Gives `n` more tokens to a sequence.
    ///
    /// # Panics
    /// If the sequence has slots of another cache.
    pub(crate) fn extend(&mut self, sequence: &mut Sequence, n: usize) {
        let of = sequence.of.get_or_insert_with(|| self.slots.clone());
        assert!(Arc::ptr_eq(&of.0, &self.slots.0), "a sequence is stepped with the cache that it began with");
        let mut owners = self.slots.lock();
        for _ in 0..n {
            let slot = match owners.free.pop() {
                Some(Reverse(slot)) => slot,
                None => {
                    owners.n_owners.push(0);
                    owners.n_owners.len() as u32 - 1
                }
            };
            owners.n_owners[slot as usize] = 1;
            sequence.slots.push(slot);
        }
    }

    /// Makes room for every slot that has been given away.
    pub(crate) fn grow(&mut self) {
        let n_slots = self.slots.lock().n_owners.len();
        self.tables.grow(n_slots);
    }
}

impl Sequence {
    /// Tokens that it has seen.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether that is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Forgets all but the first `n` tokens.
    pub fn truncate(&mut self, n: usize) {
        let dropped = self.slots.split_off(n.min(self.slots.len()));
        if let Some(of) = self.of.as_ref().filter(|_| !dropped.is_empty()) {
            let mut owners = of.lock();
            for slot in dropped {
                owners.n_owners[slot as usize] -= 1;
                if owners.n_owners[slot as usize] == 0 {
                    owners.free.push(Reverse(slot));
                }
            }
        }
    }

    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots
    }
}

impl Clone for Sequence {
    fn clone(&self) -> Self {
        if let Some(of) = &self.of {
            let mut owners = of.lock();
            self.slots.iter().for_each(|slot| owners.n_owners[*slot as usize] += 1);
        }
        Self { slots: self.slots.clone(), of: self.of.clone() }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use kindling_kernels::Precision;

    use super::*;

    #[test]
    fn slots_are_free_when_nobody_has_them() {
        let mut cache = KvCache::new(KvTables::new(1, 1, 4, Precision::F32, &Device::flex()));
        let mut one = Sequence::default();
        cache.extend(&mut one, 5);
        let mut two = one.clone();
        cache.extend(&mut two, 2);
        assert_eq!((one.slots(), two.slots(), cache.n_used()), (&[0, 1, 2, 3, 4][..], &[0, 1, 2, 3, 4, 5, 6][..], 7));
        two.truncate(4);
        assert_eq!(cache.n_used(), 5, "the fifth is the first sequence's too");
        one.truncate(2);
        assert_eq!(cache.n_used(), 4);
        cache.extend(&mut one, 2);
        // The lowest that are free.
        assert_eq!(one.slots(), [0, 1, 4, 5]);
        drop(two);
        assert_eq!(cache.n_used(), 4);
        drop(one);
        assert_eq!(cache.n_used(), 0);
        let mut all = Sequence::default();
        cache.extend(&mut all, 8);
        assert_eq!(all.slots(), [0, 1, 2, 3, 4, 5, 6, 7]);
        cache.grow();
        assert!(cache.tables.n_slots() >= 8);
    }
}
