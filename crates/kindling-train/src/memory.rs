//! What a training holds in memory, and what there is. Only Linux tells without a system call.

use kindling_config::RunConfig;
use kindling_kernels::LOGITS_AT_ONCE;

use crate::TrainError;

/// Largest resident set so far, in bytes, where the system tells.
pub fn peak_memory_bytes() -> Option<u64> {
    told_bytes("/proc/self/status", "VmHWM:")
}

/// Resident set now, in bytes, where the system tells.
pub fn resident_memory_bytes() -> Option<u64> {
    told_bytes("/proc/self/status", "VmRSS:")
}

/// Memory that a new allocation can have, in bytes, where the system tells.
fn available_bytes() -> Option<u64> {
    told_bytes("/proc/meminfo", "MemAvailable:")
}

/// A figure of one of Linux's lists, `NAME: 12345 kB`.
fn told_bytes(list: &str, name: &str) -> Option<u64> {
    let list = std::fs::read_to_string(list).ok()?;
    let figure = list.lines().find_map(|line| line.strip_prefix(name))?;
    figure.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The least that a training holds at once, in bytes, where operations are fused: weights, gradients and two moments of what is trained, the
/// logits that exist at once, and what each layer keeps for the backward pass: the residual stream twice, two norms,
/// queries, keys and values, what attention gives, and the MLP's hidden values. With gradient checkpointing only what enters
/// each layer, and one of them whole.
fn least_bytes(config: &RunConfig) -> f64 {
    let (model, float) = (&config.model, 4.0);
    let n = config.train.micro_batch() as f64 * model.context_len as f64;
    let logits = (n * model.vocab_size as f64).min(LOGITS_AT_ONCE as f64);
    let (layer, entered) = (n * (8 * model.d_model + model.d_ff) as f64, n * model.d_model as f64);
    let layers = match config.train.gradient_checkpointing {
        true => layer + (model.n_layers - 1) as f64 * entered,
        false => model.n_layers as f64 * layer,
    };
    let frozen = if config.lora().is_some() { model.n_params() as f64 } else { 0.0 };
    float * (frozen + 4.0 * config.n_trained() as f64 + logits + layers)
}

/// Whether a training on the CPU can fit this machine at all; where the system does not tell, it is taken to.
///
/// # Errors
/// [`TrainError::Memory`] with both figures.
pub fn check_memory(config: &RunConfig) -> Result<(), TrainError> {
    let needed = least_bytes(config);
    match available_bytes() {
        Some(available) if needed > available as f64 => Err(TrainError::Memory { needed, available }),
        _ => Ok(()),
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
    #[cfg(target_os = "linux")]
    fn what_is_resident_is_at_most_the_peak() {
        let resident = resident_memory_bytes().expect("Linux tells");
        assert!(resident > 0 && resident <= peak_memory_bytes().expect("Linux tells"));
    }

    #[test]
    fn a_small_model_fits_and_an_enormous_batch_does_not() {
        assert!(check_memory(&config(&[])).is_ok());
        let error = check_memory(&config(&["train.batch_size=1048576", "model.context_len=8192"]));
        assert!(matches!(error, Err(TrainError::Memory { .. })) || available_bytes().is_none());
        // Peak memory of this config was measured at 153 MiB: the estimate is a floor.
        let mib = least_bytes(&config(&[])) / f64::from(1 << 20);
        assert!((50.0..153.0).contains(&mib), "{mib}");
        assert!(least_bytes(&config(&["train.gradient_checkpointing=true"])) < 0.9 * least_bytes(&config(&[])));
    }
}
