//! The learning rate of a step.

use kindling_config::{Schedule, TrainConfig};

/// Linear warmup to `lr` (counted as nanoGPT does), then what [`Schedule`] says of a run of `steps` steps; steps after them get
/// what the last would have had. `step` counts from 0.
pub fn lr_at(config: &TrainConfig, steps: u64, step: u64) -> f64 {
    let (step, steps, warmup) = (step as f64, steps as f64, config.warmup_steps as f64);
    if step < warmup {
        return config.lr * (step + 1.0) / (warmup + 1.0);
    }
    // How far between two steps; 1 where there is no way between them, as when the warmup takes the whole run.
    let progress = |from: f64, to: f64| if to > from { ((step - from) / (to - from)).clamp(0.0, 1.0) } else { 1.0 };
    let fallen = match config.schedule {
        Schedule::Constant => 0.0,
        Schedule::Linear => progress(warmup, steps),
        Schedule::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * progress(warmup, steps)).cos(),
        Schedule::Wsd => {
            let decay = (steps * (1.0 - config.decay_fraction)).max(warmup);
            if step < decay { 0.0 } else { progress(decay, steps) }
        }
    };
    config.lr - fallen * (config.lr - config.min_lr)
}

#[cfg(test)]
mod tests {
    use kindling_config::Precision;
    use proptest::prelude::*;

    use super::*;

    fn config() -> TrainConfig {
        TrainConfig {
            steps: 1100,
            batch_size: 1,
            micro_batch_size: 0,
            optimizer: kindling_config::Optimizer::AdamW,
            schedule: Schedule::Cosine,
            lr: 1e-3,
            min_lr: 1e-4,
            warmup_steps: 100,
            decay_fraction: 0.2,
            beta_1: 0.9,
            beta_2: 0.99,
            momentum: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            grad_clip: 1.0,
            precision: Precision::F32,
            gradient_checkpointing: false,
            max_tokens: None,
            max_flops: None,
            max_hours: None,
            patience: 0,
            log_every: 1,
            eval_every: 1,
            sample_every: 0,
            checkpoint_every: 1,
            keep_checkpoints: 1,
            keep_every: 0,
            spike_guard: None,
            ema: 0.0,
            label_smoothing: 0.0,
            z_loss: 0.0,
        }
    }

    fn check(schedule: Schedule, rows: &[(u64, f64)]) {
        let config = TrainConfig { schedule, ..config() };
        for &(step, expected) in rows {
            let found = lr_at(&config, 1100, step);
            assert!((found - expected).abs() < 1e-12, "{schedule:?}, step {step}: {found}, expected {expected}");
        }
    }

    #[test]
    fn it_rises_then_goes_on_as_the_schedule_says() {
        for schedule in [Schedule::Cosine, Schedule::Linear, Schedule::Constant, Schedule::Wsd] {
            check(schedule, &[(0, 1e-3 / 101.0), (99, 1e-3 * 100.0 / 101.0), (100, 1e-3)]);
        }
        check(Schedule::Cosine, &[(350, 1e-4 + 4.5e-4 * (1.0 + 0.5f64.sqrt())), (600, 5.5e-4), (1100, 1e-4), (5000, 1e-4)]);
        check(Schedule::Linear, &[(350, 7.75e-4), (600, 5.5e-4), (1100, 1e-4), (5000, 1e-4)]);
        check(Schedule::Constant, &[(600, 1e-3), (1100, 1e-3), (5000, 1e-3)]);
        check(Schedule::Wsd, &[(600, 1e-3), (880, 1e-3), (990, 5.5e-4), (1100, 1e-4), (5000, 1e-4)]);
    }

    proptest! {
        #[test]
        fn any_schedule_stays_between_its_floor_and_its_peak(
            kind in 0usize..4, warmup_steps in 0usize..300, steps in 1u64..200, step in 0u64..400, decay_fraction in 0.01f64..1.0
        ) {
            let schedule = [Schedule::Cosine, Schedule::Linear, Schedule::Constant, Schedule::Wsd][kind];
            let config = TrainConfig { schedule, warmup_steps, decay_fraction, ..config() };
            let lr = lr_at(&config, steps, step);
            prop_assert!(lr > 0.0 && lr <= config.lr);
            prop_assert!(lr >= config.min_lr || step < warmup_steps as u64);
        }
    }

    #[test]
    fn a_run_that_is_made_longer_before_it_decays_is_as_if_begun_so() {
        let config = TrainConfig { schedule: Schedule::Wsd, ..config() };
        assert!((0..800).all(|step| lr_at(&config, 1000, step) == lr_at(&config, 5000, step)));
    }
}
