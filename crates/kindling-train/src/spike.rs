//! Which losses are spikes. Decides nothing about what is done then.

use serde::{Deserialize, Serialize};

/// Losses that are known before any can be a spike.
const FEWEST: u64 = 20;
/// Of an average over about fifty steps.
const DECAY: f64 = 0.98;

/// Mean and variance of the losses of late, each step weighing less the longer it is ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecentLosses {
    n: u64,
    mean: f64,
    variance: f64,
}

impl RecentLosses {
    /// Whether a loss lies more than so many standard deviations above the mean, or is no number.
    pub fn is_spike(&self, loss: f64, sigmas: f64) -> bool {
        !loss.is_finite() || (self.n >= FEWEST && loss > self.mean + sigmas * self.variance.sqrt())
    }

    /// Takes a loss in.
    pub fn add(&mut self, loss: f64) {
        self.n += 1;
        // At first the plain mean of all.
        let weight = (1.0 / self.n as f64).max(1.0 - DECAY);
        let difference = loss - self.mean;
        // West 1979, for weights that decay.
        self.mean += weight * difference;
        self.variance = (1.0 - weight) * (self.variance + weight * difference * difference);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_far_above_is_a_spike() {
        let mut losses = RecentLosses::default();
        for step in 0..200u32 {
            // Falls slowly, and swings by 0.1.
            let loss = 5.0 - f64::from(step) * 0.002 + if step % 2 == 0 { 0.1 } else { -0.1 };
            assert!(!losses.is_spike(loss, 6.0), "step {step}");
            losses.add(loss);
        }
        // The mean lags behind what falls, which counts too.
        assert!((0.1..0.15).contains(&losses.variance.sqrt()), "{losses:?}");
        assert!(!losses.is_spike(4.9, 6.0));
        assert!(losses.is_spike(6.0, 6.0));
        assert!(!losses.is_spike(1.0, 6.0), "a fall is none");
        assert!(losses.is_spike(f64::NAN, 6.0));
        assert!(!RecentLosses::default().is_spike(1e9, 6.0), "nothing is known yet");
        assert!(RecentLosses::default().is_spike(f64::INFINITY, 6.0));
    }
}
