//! What the process sets up once, before anything computes: allocator and thread pool. Libraries impose neither.
#![allow(unsafe_code, reason = "the allocator's settings are a C function; the reason it is sound here stands at the call")]

use anyhow::Context;
use kindling_kernels::Isa;

use crate::failure::Advice;

/// Sets the process up, before any other thread exists.
///
/// glibc's allocator is told to keep the memory it gets: every step allocates the same big buffers, and by default each
/// goes back to the kernel and comes back page by page, zeroed, which costs about half of a training step.
/// A file that grows beyond the limit of `ulimit -f` becomes an error that can be reported, instead of a signal that kills.
pub(crate) fn set_up_process() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator, to values from its manual page; where one is refused, the
    // default stays. signal only changes what one signal does, to a handler that the system provides. No other thread
    // exists yet that could allocate or take signals meanwhile.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        libc::mallopt(libc::M_TOP_PAD, 256 << 20);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Starts the global pool, with the calling thread as one of its workers where that `computes`: a thread outside of the pool is parked and
/// woken for every parallel operation, a quarter of the time of a small model. A worker that waits for something else would hold up all.
pub(crate) fn thread_pool(threads: Option<u16>, computes: bool) -> anyhow::Result<()> {
    // As many as the process may use: cgroup quotas and affinity count.
    let threads = threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    let builder = if computes { builder.use_current_thread() } else { builder };
    builder.build_global().context("cannot start the thread pool")
}

/// Computes with other instructions than the best ones.
pub(crate) fn instructions(isa: Option<Isa>) -> anyhow::Result<()> {
    let Some(isa) = isa else { return Ok(()) };
    isa.choose().map_err(|best| {
        Advice { message: format!("this processor has no {isa}"), hint: format!("the best that it has is `--isa {best}`") }.into()
    })
}
