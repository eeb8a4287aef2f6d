//! How fast a device multiplies matrices, measured, and what a training makes of it. Trains nothing.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use kindling_config::RunConfig;
use kindling_kernels::{Precision, linear};

/// Sides of the square matrices that are multiplied. Small ones find no peak, but even a slow device is through with them.
const SIDES: [usize; 5] = [256, 512, 1024, 2048, 4096];

/// The best speed of products of square matrices that is seen on `device` within about `budget`, in FLOP/s, with as many threads
/// as the pool has. The larger the budget, the larger the matrices.
///
/// In f32 the products are Burn's own; with factors in bf16, which Burn does not compute on the CPU, those of
/// [`linear`](fn@linear).
pub fn matmul_peak(device: &Device, precision: Precision, budget: Duration) -> f64 {
    let product = |a: &Tensor<2>| match precision {
        Precision::F32 => a.clone().matmul(a.clone()),
        Precision::Bf16 => linear(a.clone(), a.clone(), None, Precision::Bf16),
    };
    let started = Instant::now();
    let mut best = 0.0f64;
    for (side, share) in SIDES.into_iter().zip(1u32..) {
        let flops = 2.0 * (side as f64).powi(3);
        let fits = |flops: f64, best: f64, budget: Duration| started.elapsed().as_secs_f64() + flops / best < budget.as_secs_f64();
        // Two, since the first is not counted.
        if best > 0.0 && !fits(2.0 * flops, best, budget) {
            break;
        }
        let values = (0..side * side).map(|i| (i % 1000) as f32 / 500.0 - 1.0).collect();
        let a = Tensor::<2>::from_data(TensorData::new::<f32, _>(values, [side, side]), device);
        let time = || {
            let start = Instant::now();
            let c = product(&a);
            // A device that cannot be waited for has failed, which the training will say.
            let _ = device.sync();
            drop(c);
            flops / start.elapsed().as_secs_f64()
        };
        // It meets cold caches, and a kernel that has yet to be compiled.
        time();
        best = best.max(time());
        while fits(flops, best, budget * share / SIDES.len() as u32) {
            best = best.max(time());
        }
    }
    best
}

/// Model FLOPs utilisation: the operations that training takes at this speed, as a share of the device's peak (PaLM,
/// arXiv:2204.02311, appendix B). What is computed twice, as with gradient checkpointing, counts once.
pub fn mfu(config: &RunConfig, tokens_per_s: f64, peak_flops_per_s: f64) -> f64 {
    tokens_per_s * config.flops_per_token() / peak_flops_per_s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_and_precision_has_a_peak() {
        for precision in [Precision::F32, Precision::Bf16] {
            let peak = matmul_peak(&Device::flex(), precision, Duration::from_millis(5));
            assert!(peak.is_finite() && peak > 0.0, "{precision}: {peak}");
        }
    }

    #[test]
    fn a_model_that_takes_all_operations_of_the_device_uses_all_of_it() {
        let overrides = ["model.vocab_size=4096".to_owned()];
        let config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).expect("a valid config");
        let peak = 2e11;
        let all = peak / config.model.flops_per_token();
        assert!((mfu(&config, all, peak) - 1.0).abs() < 1e-12);
        assert!((mfu(&config, all / 4.0, peak) - 0.25).abs() < 1e-12);
    }

    #[test]
    fn frozen_weights_take_no_gradients_of_their_own() {
        let lora = ["base.run=old", "base.weights_hash=00", "base.lora={rank=2,alpha=4,targets=[\"proj\"]}"];
        let overrides: Vec<_> = ["model.vocab_size=4096"].iter().chain(&lora).map(|o| (*o).to_owned()).collect();
        let config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).expect("a valid config");
        let share = config.flops_per_token() / config.model.flops_per_token();
        assert!((2.0 / 3.0..0.9).contains(&share), "{share}");
    }
}
