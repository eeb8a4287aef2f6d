//! The learning-rate range test (Smith, arXiv:1506.01186): the loss while the learning rate rises. Keeps nothing of what it trains.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use kindling_config::RunConfig;
use kindling_data::Prepared;
use kindling_model::Gpt;
use serde::Serialize;

use crate::pretrain::sampler;
use crate::{Optimizer, TrainError, TrainingPrecision, gradients};

/// From the first of these rates to the last, by the same factor each step.
const RATES: (f64, f64) = (1e-6, 1.0);
/// The test ends when the smoothed loss is above the first by this share of how far it had fallen, or of a tenth of the first.
const MUCH_ABOVE: f64 = 0.5;
/// What a loss counts in the smoothed one.
const WEIGHT: f64 = 0.1;

/// A step of the test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LrPoint {
    /// Learning rate.
    pub lr: f64,
    /// Mean loss of the batch before the step, nats a token.
    pub loss: f64,
    /// Smoothed over the steps up to this one.
    pub smoothed: f64,
}

/// What the test found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LrCurve {
    /// Step by step.
    pub points: Vec<LrPoint>,
    /// The rate at which the smoothed loss falls fastest, in its logarithm; none if it never falls.
    pub steepest: Option<f64>,
    /// A tenth of the rate at which the smoothed loss is lowest: a peak rate that is likely to work.
    pub suggested: Option<f64>,
}

/// Trains for at most `steps` steps while the learning rate rises, or until the loss does. `progress` hears of each step.
///
/// # Errors
/// As [`train`](crate::train); a loss that is no number ends the test instead.
pub fn find_lr(
    config: &RunConfig,
    data: &Prepared,
    device: &Device,
    steps: u64,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64, LrPoint),
) -> Result<LrCurve, TrainError> {
    let sampler = sampler(config, data)?;
    let precision = TrainingPrecision::on(device, config.train.precision).precision;
    let mut model = Gpt::new(&config.model, config.seed, &device.clone().autodiff()).with_precision(precision);
    let mut optimizer = Optimizer::new(&config.train);
    let mut points: Vec<LrPoint> = Vec::new();
    let (mut sum, mut weight, mut lowest) = (0.0, 0.0, f64::INFINITY);
    for step in 0..steps {
        let lr = RATES.0 * (RATES.1 / RATES.0).powf(step as f64 / (steps - 1).max(1) as f64);
        let (loss, grads) = match gradients(&model, &sampler.batch_at(&data.training, step), config, step) {
            Err(TrainError::NotFinite { .. }) => break,
            result => result?,
        };
        // Weights that decay, and add up to one from the first step on.
        (sum, weight) = ((1.0 - WEIGHT) * sum + WEIGHT * loss, (1.0 - WEIGHT) * weight + WEIGHT);
        let point = LrPoint { lr, loss, smoothed: sum / weight };
        points.push(point);
        progress(step + 1, point);
        lowest = point.smoothed.min(lowest);
        let first = points[0].smoothed;
        if point.smoothed > first + MUCH_ABOVE * (first - lowest).max(0.1 * first) || stop.load(Ordering::Relaxed) {
            break;
        }
        let (next, norm) = optimizer.step(lr, model, grads);
        model = next;
        if norm.is_err() {
            break;
        }
    }
    Ok(curve(points))
}

/// What the points say.
fn curve(points: Vec<LrPoint>) -> LrCurve {
    // Slopes over a few steps, for neighbours are noisy.
    const SPAN: usize = 5;
    let slope = |pair: &[LrPoint]| {
        let (from, to) = (pair[0], pair[SPAN]);
        ((to.smoothed - from.smoothed) / (to.lr / from.lr).ln(), (from.lr * to.lr).sqrt())
    };
    let steepest = points.windows(SPAN + 1).map(slope).min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(slope, _)| *slope < 0.0);
    let lowest = points.iter().min_by(|a, b| a.smoothed.total_cmp(&b.smoothed)).map(|point| point.lr);
    LrCurve { steepest: steepest.map(|(_, lr)| lr), suggested: lowest.filter(|_| steepest.is_some()).map(|lr| lr / 10.0), points }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valley_is_found() {
        // Flat up to 1e-4, falls to 1e-2, and rises.
        let loss = |log: f64| {
            if log < -4.0 {
                5.0
            } else if log < -2.0 {
                5.0 - (log + 4.0)
            } else {
                3.0 + 2.0 * (log + 2.0)
            }
        };
        let points =
            (0..=60).map(|i| f64::from(i).mul_add(0.1, -6.0)).map(|log| LrPoint { lr: 10f64.powf(log), loss: 0.0, smoothed: loss(log) });
        let curve = curve(points.collect());
        assert!((curve.suggested.map_or(0.0, f64::log10) + 3.0).abs() < 0.11, "{:?}", curve.suggested);
        assert!(curve.steepest.is_some_and(|lr| (1e-4..1e-2).contains(&lr)), "{:?}", curve.steepest);
    }

    #[test]
    fn what_never_falls_suggests_nothing() {
        let rising = (0..20).map(|i| LrPoint { lr: 1e-6 * f64::from(i + 1), loss: 0.0, smoothed: f64::from(i) }).collect();
        assert_eq!(curve(rising).suggested, None);
        assert_eq!(curve(Vec::new()).suggested, None);
    }
}
