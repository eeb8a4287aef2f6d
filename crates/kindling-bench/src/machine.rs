//! What the machine is, and what its matrix products reach at best.

use std::time::Duration;

use burn::tensor::Device;
use kindling_kernels::{Isa, Precision};

/// How long matrix products are timed: enough for matrices of 2,048 on two cores, and of 4,096 from about 350 GFLOP/s on.
const MATMUL_BUDGET: Duration = Duration::from_secs(4);

/// The best speed of the `gemm` crate, which Burn computes matrix products on Flex with, on square f32 matrices, with as many
/// threads as the pool has, in GFLOP/s.
pub(crate) fn matmul_peak() -> f64 {
    kindling_train::matmul_peak(&Device::flex(), Precision::F32, MATMUL_BUDGET) / 1e9
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
    kindling_train::resident_memory_bytes().map(|bytes| bytes >> 20)
}
