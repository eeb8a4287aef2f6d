//! What the process sets up once, before anything computes: allocator and thread pool. Libraries impose neither.
#![allow(unsafe_code, reason = "the allocator's settings are a C function; the reason it is sound here stands at the call")]

use anyhow::Context;

/// Tells glibc's allocator to keep the memory it gets. Every step allocates the same big buffers; by default each goes
/// back to the kernel and comes back page by page, zeroed, which costs about half of a training step.
pub(crate) fn tune_allocator() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator. It is called once, before any other thread exists, with
    // parameters and values from its manual page; where one is refused, the default stays.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 256 << 20);
    }
}

/// Starts the global pool with the calling thread as one of its workers: a thread outside of the pool is parked and
/// woken for every parallel operation, a quarter of the time of a small model.
pub(crate) fn thread_pool(threads: Option<u16>) -> anyhow::Result<()> {
    // As many as the process may use: cgroup quotas and affinity count.
    let threads = threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global().context("cannot start the thread pool")
}
