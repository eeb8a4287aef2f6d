//! What the machine is, and what its matrix products reach at best.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use kindling_kernels::Isa;

/// The best speed of the `gemm` crate, which Burn computes matrix products on Flex with, on square f32 matrices of 1,024 to
/// 4,096, with as many threads as the pool has, in GFLOP/s.
pub(crate) fn matmul_peak() -> f64 {
    let mut best = 0.0f64;
    for n in [1024usize, 2048, 3072, 4096] {
        let values: Vec<f32> = (0..n * n).map(|i| (i % 1000) as f32 / 500.0 - 1.0).collect();
        let a = Tensor::<2>::from_data(TensorData::new(values, [n, n]), &Device::flex());
        let repeats = (1usize << 34) / (n * n * n) + 2;
        for _ in 0..repeats {
            let start = Instant::now();
            let product = a.clone().matmul(a.clone());
            best = best.max(2.0 * (n * n * n) as f64 / start.elapsed().as_secs_f64() / 1e9);
            drop(product);
        }
    }
    best
}

/// What computes here, in words.
pub(crate) fn machine(threads: usize) -> String {
    format!("{}, {threads} threads, {}", processor(), Isa::chosen())
}

/// The processor's name, as the system says it.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")).map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    name.unwrap_or("unknown").to_owned()
}

/// Resident memory of this process in MiB, where the system tells.
pub(crate) fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib >> 10)
}
