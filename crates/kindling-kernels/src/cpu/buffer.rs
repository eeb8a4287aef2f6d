//! Memory that is written before it is read, and pointers that cross threads.
#![allow(unsafe_code, reason = "every buffer would otherwise be written twice, once with zeros, by one thread")]

use std::cell::Cell;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::rows::VALUES_PER_TASK;

/// A vector of `n` values that `write` fills.
///
/// # Safety
/// `write` must have written all `n` values when it returns.
pub(crate) unsafe fn filled<T: Copy>(n: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut values = Vec::with_capacity(n);
    write(&mut values.spare_capacity_mut()[..n]);
    // SAFETY: the capacity is at least n, and the caller vouches that n values are written.
    unsafe { values.set_len(n) };
    values
}

/// Room for `n` values in large pages, where the system has such on demand: what is read from beginning to end is then read faster. Values
/// are written later.
pub(crate) fn in_large_pages<T>(n: usize) -> Vec<T> {
    let values = Vec::<T>::with_capacity(n);
    ask_for_large_pages(values.as_ptr(), n);
    values
}

/// `n` zeros in large pages, each of which takes memory when something is first written to it.
#[cfg(feature = "flex")]
pub(crate) fn zeros_in_large_pages(n: usize) -> Vec<f32> {
    let zeros = vec![0.0; n];
    ask_for_large_pages(zeros.as_ptr(), n);
    zeros
}

fn ask_for_large_pages<T>(from: *const T, n: usize) {
    #[cfg(target_os = "linux")]
    {
        /// Addresses that are asked for begin with a page.
        const PAGE: usize = 4096;
        let (from, len) = (from as usize, n * size_of::<T>());
        let (begin, end) = (from.next_multiple_of(PAGE), (from + len) / PAGE * PAGE);
        if end > begin {
            // SAFETY: the advice changes nothing of what is in a range. Where it is not taken, nothing is lost.
            unsafe { libc::madvise(begin as *mut libc::c_void, end - begin, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (from, n);
}

/// Uninitialised room for `n` values.
fn room<T: Copy>(n: usize) -> Vec<MaybeUninit<T>> {
    let mut values = Vec::with_capacity(n);
    // SAFETY: the capacity is n, and a `MaybeUninit` needs no initialisation.
    unsafe { values.set_len(n) };
    values
}

/// Room for several buffers of changing sizes.
#[derive(Default)]
pub(crate) struct Buffers(Vec<Vec<MaybeUninit<f32>>>);

impl Buffers {
    /// The i-th buffer, of at least `n` values, whatever they are.
    pub(crate) fn get(&mut self, i: usize, n: usize) -> &mut [MaybeUninit<f32>] {
        if self.0.len() <= i {
            self.0.resize_with(i + 1, Vec::new);
        }
        if self.0[i].len() < n {
            self.0[i] = room(n);
        }
        &mut self.0[i][..n]
    }
}

/// Who uses the buffers that a thread keeps.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    /// The one that shares out work among threads, until they are done.
    Whole = 0,
    /// A part of such work.
    Part = 1,
}

/// Calls `compute` with the buffers that this thread keeps from one call to the next: allocators give the memory of other
/// threads than the first back to the system, and it would come back page by page, zeroed. Calls may be nested, for a
/// thread that waits for others may be given other work meanwhile; the inner one has buffers of its own.
pub(crate) fn with_buffers<T>(user: Use, compute: impl FnOnce(&mut Buffers) -> T) -> T {
    thread_local! {
        static KEPT: [Cell<Buffers>; 2] = const { [Cell::new(Buffers(Vec::new())), Cell::new(Buffers(Vec::new()))] };
    }
    let mut buffers = KEPT.with(|kept| kept[user as usize].take());
    let result = compute(&mut buffers);
    KEPT.with(|kept| kept[user as usize].set(buffers));
    result
}

/// Copies `from` into uninitialised room of the same length.
pub(crate) fn initialised<'a, T: Copy>(room: &'a mut [MaybeUninit<T>], from: &[T]) -> &'a mut [T] {
    room.write_copy_of_slice(from)
}

/// A copy, made by all threads.
#[cfg(feature = "flex")]
pub(crate) fn copied(from: &[f32]) -> Vec<f32> {
    // SAFETY: the chunks are all that there is.
    unsafe {
        filled(from.len(), |room: &mut [MaybeUninit<f32>]| {
            let chunks = room.par_chunks_mut(VALUES_PER_TASK).zip(from.par_chunks(VALUES_PER_TASK));
            chunks.for_each(|(room, from)| {
                initialised(room, from);
            });
        })
    }
}

/// A pointer that several threads write through, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: a `Shared` does nothing by itself; who dereferences what `at` gives vouches that no two threads touch one place.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The pointer, `offset` values further.
    ///
    /// # Safety
    /// The place must lie in the allocation that the pointer came from.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller vouches for the offset.
        unsafe { self.0.add(offset) }
    }
}
