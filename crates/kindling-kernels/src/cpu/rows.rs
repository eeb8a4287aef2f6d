//! How rows are shared out among threads, so that sums over rows come out the same whatever the number of threads.

/// Rows that one task takes: a 64th of all, and at least about 16,384 values, the same for any number of threads.
pub(crate) fn rows_per_task(n_rows: usize, row_len: usize) -> usize {
    n_rows.div_ceil(64).max(VALUES_PER_TASK / row_len.max(1)).clamp(1, n_rows.max(1))
}

/// Values that one task takes of a flat buffer.
pub(crate) const VALUES_PER_TASK: usize = 1 << 14;
