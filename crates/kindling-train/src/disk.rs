//! What a training's checkpoints take on disk, and what there is. Only Unix tells.

use std::path::Path;

use kindling_config::{Optimizer, RunConfig};

use crate::TrainError;

/// Bytes of the checkpoints that lie there at once at most: those that are kept, one that is being written beside them, and the
/// best twice for the same reason.
fn checkpoint_bytes(config: &RunConfig) -> f64 {
    let train = &config.train;
    let n_trained = config.n_trained() as f64;
    let (ema, remembered) = (
        f64::from(u8::from(train.ema > 0.0)),
        match train.optimizer {
            Optimizer::AdamW => 2.0,
            // One value for each that hidden matrices have, two for the others.
            // Of adapters it leaves everything to AdamW.
            Optimizer::Muon if config.lora().is_some() => 2.0,
            Optimizer::Muon => {
                let embedded = (config.model.vocab_size + config.model.context_len) * config.model.d_model;
                1.0 + embedded as f64 / n_trained
            }
            Optimizer::Lion => 1.0,
            Optimizer::Sgd => f64::from(u8::from(train.momentum > 0.0)),
        },
    );
    let steps = train.last_step(&config.model);
    let (every, keep_every) = (train.checkpoint_every as u64, train.keep_every as u64);
    // Steps that both divide.
    let for_good = steps.checked_div((keep_every / gcd(every, keep_every)).saturating_mul(every)).unwrap_or(0);
    let kept = (train.keep_checkpoints as u64 + for_good).min(steps.div_ceil(every));
    4.0 * n_trained * ((kept + 1) as f64 * (1.0 + remembered + ema) + 2.0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether the checkpoints of a run can fit where `dir` lies, of which `there` bytes lie there already; where the system does not tell, they are
/// taken to.
///
/// # Errors
/// [`TrainError::Disk`] with both figures.
pub fn check_disk(config: &RunConfig, dir: &Path, there: u64) -> Result<(), TrainError> {
    // A new run copies its base.
    let base = if there == 0 && config.base.is_some() { 4.0 * config.model.n_params() as f64 } else { 0.0 };
    let needed = checkpoint_bytes(config) + base - there as f64;
    match available_bytes(dir) {
        Some(available) if needed > available as f64 => Err(TrainError::Disk { needed, available, dir: dir.to_owned() }),
        _ => Ok(()),
    }
}

/// Bytes that a process without privileges can write below a folder, or below the nearest one above it that is there.
fn available_bytes(dir: &Path) -> Option<u64> {
    let dir = std::path::absolute(dir).ok()?;
    let there = dir.ancestors().find(|dir| dir.is_dir())?;
    #[cfg(unix)]
    return rustix::fs::statvfs(there).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    #[cfg(not(unix))]
    {
        let _ = there;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(overrides: &[&str]) -> RunConfig {
        let overrides: Vec<_> = ["model.vocab_size=4096"].iter().chain(overrides).map(|o| (*o).to_owned()).collect();
        RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).expect("a valid config")
    }

    #[test]
    fn what_is_kept_is_counted() {
        let weights = 4.0 * config(&[]).model.n_params() as f64;
        let check = |overrides: &[&str], expected: f64| {
            let found = checkpoint_bytes(&config(overrides)) / weights;
            assert!((found - expected).abs() < 1e-9, "{overrides:?}: {found}, expected {expected}");
        };
        // 800 steps and a checkpoint every 400: two of three times the weights, one being written, and the best twice.
        check(&[], 3.0 * 3.0 + 2.0);
        check(&["train.keep_checkpoints=10"], 3.0 * 3.0 + 2.0);
        check(&["train.optimizer=lion", "train.ema=0.9"], 3.0 * 3.0 + 2.0);
        check(&["train.optimizer=sgd", "train.momentum=0"], 3.0 + 2.0);
        // Of adapters, theirs alone.
        let lora = ["base.run=old", "base.weights_hash=00", "base.lora={rank=2,alpha=4,targets=[\"proj\"]}", "train.optimizer=muon"];
        let share = 4.0 * config(&lora).n_trained() as f64 / weights;
        assert!(share < 0.05, "{share}");
        check(&lora, share * (3.0 * 3.0 + 2.0));
        check(&["train.checkpoint_every=10", "train.keep_every=100"], 11.0 * 3.0 + 2.0);
        check(&["train.checkpoint_every=10", "train.keep_every=15"], (2.0 + 26.0 + 1.0) * 3.0 + 2.0);
        assert!(check_disk(&config(&[]), Path::new("runs/not/there"), 0).is_ok());
        let huge = config(&["train.checkpoint_every=1", "train.keep_every=1", "train.steps=1000000000"]);
        assert!(available_bytes(Path::new(".")).is_none() || matches!(check_disk(&huge, Path::new("."), 0), Err(TrainError::Disk { .. })));
    }
}
