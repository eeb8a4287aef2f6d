//! Remembers what short pre-tokens became, from text to text. Merges nothing.
//!
//! Most pre-tokens have come before. A thread that encodes takes a cache from the pool of its vocabulary and gives it back,
//! so that the next text finds it filled. A cache has a bounded size: of those that are short, two share a pair of places, and a
//! third drives out the one that came longer ago; of the others, the last one stays.

use std::hash::Hasher;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHasher;

use crate::key::{Key, place, short_key};
use crate::split::ENDS;

/// The caches that no thread uses now.
#[derive(Clone, Debug, Default)]
pub(super) struct CachePool(Arc<Mutex<Vec<Cache>>>);

impl CachePool {
    pub(super) fn take(&self) -> Cache {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, cache: Cache) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(cache);
    }
}

/// A pre-token of at most seven bytes and two ids: most are.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(16))]
struct Short {
    key: u64,
    /// The second is [`NONE`] where there is one alone.
    ids: [u32; 2],
}

/// A pre-token of at most fifteen bytes and [`MOST_IDS`] ids.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Long {
    key: Key,
    /// [`NONE`] behind the last.
    ids: [u32; MOST_IDS],
}

/// A pre-token of more bytes or more ids.
#[derive(Clone, Debug, Default)]
struct Other {
    bytes: Vec<u8>,
    ids: Vec<u32>,
}

const NONE: u32 = u32::MAX;
const MOST_IDS: usize = 4;
/// 512 KiB.
const SHORT_LOG2: u32 = 15;
/// 512 KiB.
const LONG_LOG2: u32 = 14;

/// A few hundred KiB, and 3 MiB at most.
const OTHER_LOG2: u32 = 12;
/// Bytes of the longest pre-token that is remembered.
const LONGEST: usize = 128;

/// Room for the ids of all pre-tokens of one call, and for one copy more.
const STAGE: usize = MOST_IDS * (ENDS + 1);

/// What one thread remembers.
#[derive(Debug)]
pub(super) struct Cache {
    short: Box<[Short; 1 << SHORT_LOG2]>,
    long: Box<[Long; 1 << LONG_LOG2]>,
    other: Box<[Other; 1 << OTHER_LOG2]>,
    /// Ids that wait to be appended, for pre-tokens of one call and a little more.
    stage: Box<[u32; STAGE]>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { short: table(), long: table(), other: table(), stage: table() }
    }
}

impl Cache {
    /// Appends the ids of the pre-tokens that end at `ends`, the first of which begins at `start`, up to the first that is not
    /// remembered. Returns how many that are, and where the next begins.
    #[inline(never)]
    pub(super) fn append_known(&mut self, bytes: &[u8], mut start: usize, ends: &[usize], ids: &mut Vec<u32>) -> (usize, usize) {
        let short: &mut [Short; 1 << SHORT_LOG2] = &mut self.short;
        let long: &mut [Long; 1 << LONG_LOG2] = &mut self.long;
        let stage: &mut [u32; STAGE] = &mut self.stage;
        let (mut n_staged, mut n_done) = (0, 0);
        for &end in ends {
            if end - start < 8
                && let Some(found) = find_short(short, short_key(bytes, start, end))
            {
                // Both are copied, for that is one store; a second that is none is written over.
                let Some(room) = stage[n_staged..].first_chunk_mut() else { break };
                *room = found;
                n_staged += 1 + usize::from(found[1] != NONE);
            } else {
                let Some(found) = find_long(long, Key::new(bytes, start, end)) else { break };
                let Some(room) = stage[n_staged..].first_chunk_mut() else { break };
                *room = found;
                n_staged += 1 + found[1..].iter().map(|&id| usize::from(id != NONE)).sum::<usize>();
            }
            start = end;
            n_done += 1;
        }
        ids.extend_from_slice(&stage[..n_staged]);
        (n_done, start)
    }

    /// Appends the ids of one pre-token that [`append_known`](Self::append_known) does not know. Returns whether it is known here.
    pub(super) fn append_other(&mut self, piece: &[u8], ids: &mut Vec<u32>) -> bool {
        let found = &self.other[other_place(piece)];
        let is_known = found.bytes == piece;
        if is_known {
            ids.extend_from_slice(&found.ids);
        }
        is_known
    }

    /// Remembers what the pre-token `bytes[start..end]` became, if that is short enough.
    pub(super) fn put(&mut self, bytes: &[u8], start: usize, end: usize, ids: &[u32]) {
        if end - start < 8 && ids.len() <= 2 {
            let key = short_key(bytes, start, end);
            let at = place(key, SHORT_LOG2);
            let entry = Short { key, ids: [ids[0], ids.get(1).copied().unwrap_or(NONE)] };
            self.short[at ^ 1] = std::mem::replace(&mut self.short[at], entry);
            return;
        }
        let key = Key::new(bytes, start, end);
        if !key.is_none() && ids.len() <= MOST_IDS {
            let at = key.place(LONG_LOG2);
            let mut entry = Long { key, ids: [NONE; MOST_IDS] };
            entry.ids[..ids.len()].copy_from_slice(ids);
            self.long[at ^ 1] = std::mem::replace(&mut self.long[at], entry);
        } else if end - start <= LONGEST {
            let piece = &bytes[start..end];
            let entry = &mut self.other[other_place(piece)];
            // What stood there lends its room.
            entry.bytes.clear();
            entry.bytes.extend_from_slice(piece);
            entry.ids.clear();
            entry.ids.extend_from_slice(ids);
        }
    }
}

/// Looks at both places of a key; what is found moves to the first.
#[inline(always)]
fn find_short(short: &mut [Short; 1 << SHORT_LOG2], key: u64) -> Option<[u32; 2]> {
    let at = place(key, SHORT_LOG2);
    if short[at].key != key {
        if short[at ^ 1].key != key {
            return None;
        }
        short.swap(at, at ^ 1);
    }
    Some(short[at].ids)
}

/// As [`find_short`].
#[inline(always)]
fn find_long(long: &mut [Long; 1 << LONG_LOG2], key: Key) -> Option<[u32; MOST_IDS]> {
    let at = key.place(LONG_LOG2);
    if long[at].key != key {
        if long[at ^ 1].key != key {
            return None;
        }
        long.swap(at, at ^ 1);
    }
    // A place that nothing has taken yet has the key of none.
    (!key.is_none()).then(|| long[at].ids)
}

fn other_place(piece: &[u8]) -> usize {
    let mut hasher = FxHasher::default();
    hasher.write(piece);
    place(hasher.finish(), OTHER_LOG2)
}

/// A table in the heap, made there: it does not fit on the stack.
pub(super) fn table<T: Clone + Default, const N: usize>() -> Box<[T; N]> {
    match vec![T::default(); N].into_boxed_slice().try_into() {
        Ok(table) => table,
        Err(_) => unreachable!("it has N entries"),
    }
}
