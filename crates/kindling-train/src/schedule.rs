//! The learning rate of a step.

use kindling_config::TrainConfig;

/// Linear warmup to `lr`, then half a cosine down to `min_lr`, which is also what later steps get
/// (Loshchilov and Hutter 2017; the warmup counts as nanoGPT's). `step` counts from 0.
pub fn lr_at(config: &TrainConfig, step: u64) -> f64 {
    let (step, steps, warmup) = (step as f64, config.steps as f64, config.warmup_steps as f64);
    if step < warmup {
        return config.lr * (step + 1.0) / (warmup + 1.0);
    }
    let progress = ((step - warmup) / (steps - warmup)).clamp(0.0, 1.0);
    // 0/0 where the warmup takes the whole run.
    let progress = if progress.is_nan() { 1.0 } else { progress };
    config.min_lr + 0.5 * (config.lr - config.min_lr) * (1.0 + (std::f64::consts::PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use kindling_config::Precision;

    use super::*;

    fn config() -> TrainConfig {
        TrainConfig {
            steps: 1100,
            batch_size: 1,
            micro_batch_size: 0,
            lr: 1e-3,
            min_lr: 1e-4,
            warmup_steps: 100,
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.1,
            grad_clip: 1.0,
            precision: Precision::F32,
            gradient_checkpointing: false,
            log_every: 1,
            eval_every: 1,
            sample_every: 0,
            checkpoint_every: 1,
            keep_checkpoints: 1,
        }
    }

    #[test]
    fn it_rises_then_falls_to_the_floor_and_stays_there() {
        let check = |step, expected: f64| {
            let found = lr_at(&config(), step);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}, expected {expected}");
        };
        check(0, 1e-3 / 101.0);
        check(99, 1e-3 * 100.0 / 101.0);
        check(100, 1e-3);
        check(600, 5.5e-4);
        check(1100, 1e-4);
        check(5000, 1e-4);
    }

    #[test]
    fn a_warmup_longer_than_the_run_is_no_division_by_zero() {
        let config = TrainConfig { steps: 100, ..config() };
        assert!((0..200).all(|step| lr_at(&config, step).is_finite()));
    }
}
