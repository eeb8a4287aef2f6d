//! Encodes one text on several threads. Knows no ids and no merges.
//!
//! Waking a thread can take a third of the time that a text of 100,000 characters takes. So nobody waits for one: the thread that
//! asks works off the text from its front, whoever wakes up takes from its back, and a thread that is done looks on for a moment
//! before it goes back to its pool, for the next text often comes at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::TokenizerError;
use crate::split::SplitPattern;

/// The least and the most of a text that a thread takes at once.
const TAKEN_BYTES: (usize, usize) = (1 << 11, 1 << 18);
/// So much of a text for every thread, or fewer are asked.
const BYTES_A_THREAD: usize = 1 << 13;
/// How long a thread looks on.
const PATIENCE: Duration = Duration::from_micros(50);

/// Appends the ids of a text, of which `encode` appends those of any part. The ids do not depend on who takes what.
pub(super) fn encode(
    text: &str,
    pattern: &SplitPattern,
    ids: &mut Vec<u32>,
    encode: impl Fn(&str, &mut Vec<u32>) -> Result<(), TokenizerError> + Sync,
) -> Result<(), TokenizerError> {
    let n_threads = rayon::current_num_threads().min(text.len() / BYTES_A_THREAD);
    if n_threads < 2 || !pattern.has_safe_cuts() {
        return encode(text, ids);
    }
    let untaken = Untaken { text: Mutex::new(text), pattern, n_threads };
    let behind: Mutex<Vec<Behind>> = Mutex::default();
    let append_behind = |ids: &mut Vec<u32>| {
        let mut behind = std::mem::take(&mut *lock(&behind));
        behind.sort_unstable_by_key(|part| part.address);
        behind.into_iter().try_for_each(|part| part.ids.map(|part| ids.extend(part)))
    };
    let n_bytes_behind = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    rayon::in_place_scope(|scope| -> Result<(), TokenizerError> {
        for _ in 1..n_threads {
            scope.spawn(|_| {
                while let Some(part) = untaken.take_back() {
                    let mut ids = Vec::with_capacity(part.len() / 3 + 1);
                    let ids = encode(part, &mut ids).map(|()| ids);
                    lock(&behind).push(Behind { address: part.as_ptr().addr(), ids });
                    n_bytes_behind.fetch_add(part.len(), Ordering::Release);
                }
                look_on(|| is_over.load(Ordering::Relaxed));
            });
        }
        let mut n_bytes = 0;
        while let Some(part) = untaken.take_front() {
            encode(part, ids)?;
            n_bytes += part.len();
        }
        // Here the others are still awake.
        if look_on(|| n_bytes + n_bytes_behind.load(Ordering::Acquire) == text.len()) {
            append_behind(ids)?;
        }
        is_over.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    append_behind(ids)
}

/// A part that was taken from the back.
struct Behind {
    /// Where it lies.
    address: usize,
    ids: Result<Vec<u32>, TokenizerError>,
}

/// What no thread has taken yet.
struct Untaken<'t> {
    text: Mutex<&'t str>,
    pattern: &'t SplitPattern,
    n_threads: usize,
}

impl<'t> Untaken<'t> {
    /// The less is left the less is taken, so that all end at the same time.
    fn taken_bytes(&self, text: &str) -> usize {
        (text.len() / (2 * self.n_threads)).clamp(TAKEN_BYTES.0, TAKEN_BYTES.1)
    }

    fn take_front(&self) -> Option<&'t str> {
        let mut text = lock(&self.text);
        let mut size = self.taken_bytes(&text);
        let cut = loop {
            match text.as_bytes().get(..size) {
                None => break text.len(),
                Some(front) => match self.pattern.last_safe_cut(front) {
                    Some(cut) => break cut,
                    None => size *= 2,
                },
            }
        };
        let taken;
        (taken, *text) = text.split_at(cut);
        (!taken.is_empty()).then_some(taken)
    }

    fn take_back(&self) -> Option<&'t str> {
        let mut text = lock(&self.text);
        let front = &text.as_bytes()[..text.len().saturating_sub(self.taken_bytes(&text))];
        let cut = self.pattern.last_safe_cut(front).unwrap_or(0);
        let taken;
        (*text, taken) = text.split_at(cut);
        (!taken.is_empty()).then_some(taken)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits a moment without sleeping. Returns whether what it waits for came.
fn look_on(has_come: impl Fn() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        for _ in 0..64 {
            if has_come() {
                return true;
            }
            std::hint::spin_loop();
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Each part is marked where it begins, and its bytes follow.
    fn shared(text: &str, pattern: &SplitPattern, n_threads: usize) -> Vec<u32> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let mut ids = Vec::new();
        let append = |part: &str, ids: &mut Vec<u32>| {
            ids.push(u32::MAX);
            ids.extend(part.bytes().map(u32::from));
            Ok(())
        };
        pool.install(|| encode(text, pattern, &mut ids, append)).unwrap();
        ids
    }

    #[test]
    fn all_parts_come_in_order_whoever_takes_them() {
        let texts =
            ["word and\nword ".repeat(40_000), "日本語 and ".repeat(9_000), "x".repeat(300_000), format!("ab {}", "x".repeat(99_999))];
        for (i, text) in texts.iter().enumerate() {
            for n_threads in [2, 3, 8] {
                for _ in 0..20 {
                    let mut ids = shared(text, &SplitPattern::Gpt2, n_threads);
                    let n_parts = ids.iter().filter(|&&id| id == u32::MAX).count();
                    assert!(i > 1 || n_parts > n_threads, "{n_parts}");
                    ids.retain(|&id| id != u32::MAX);
                    assert!(ids.into_iter().eq(text.bytes().map(u32::from)), "text {i}");
                }
            }
        }
    }

    #[test]
    fn what_may_not_be_cut_is_one_part() {
        let text = "word and\nword ".repeat(40_000);
        let ids = shared(&text, &"[a-z]+".parse().unwrap(), 4);
        assert_eq!(ids.iter().filter(|&&id| id == u32::MAX).count(), 1);
    }

    #[test]
    fn an_error_of_any_part_is_returned() {
        let text = "word and\nword ".repeat(40_000);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        for place in [0, text.len() / 2, text.len() - 10] {
            let at = text.as_ptr().addr() + place;
            let refuse = |part: &str, _: &mut Vec<u32>| match part.as_bytes().as_ptr_range() {
                range if (range.start.addr()..range.end.addr()).contains(&at) => Err(TokenizerError::NotUtf8 { offset: 7 }),
                _ => Ok(()),
            };
            let result = pool.install(|| encode(&text, &SplitPattern::Gpt2, &mut Vec::new(), refuse));
            assert!(matches!(result, Err(TokenizerError::NotUtf8 { offset: 7 })), "{result:?}");
        }
    }
}
