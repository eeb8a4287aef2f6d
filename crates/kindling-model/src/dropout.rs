//! Dropout masks as a function of (seed, step, site, sequence, element). Keeps no generator state.
//!
//! The mask of a sequence depends on its place in the step's whole batch and not on the micro-batch it is computed in,
//! so gradient accumulation, a resumed run and the full batch all drop the same activations.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// Says which masks a forward pass draws. Without a key nothing is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropoutKey {
    /// The run's dropout stream.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
    /// Place of the batch's first sequence in the whole batch of the step.
    pub first_row: usize,
}

/// The output function of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit.
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The odd constant by which SplitMix64's counter advances.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl DropoutKey {
    /// The stream of one sequence at one site.
    fn stream(self, site: u64, row: usize) -> u64 {
        [self.step, site, (self.first_row + row) as u64]
            .iter()
            .fold(mix(self.seed ^ GOLDEN), |key, part| mix(key ^ part.wrapping_mul(GOLDEN)))
    }

    /// A mask over `shape`, whose first dimension is the B sequences: 0 with probability `p`, else 1 / (1 - p).
    fn mask<const D: usize>(self, site: u64, p: f64, n_rows: usize, shape: [usize; D], device: &Device) -> Tensor<D> {
        let n: usize = shape.iter().product();
        let mut mask = vec![0f32; n];
        let keep = (1.0 / (1.0 - p)) as f32;
        // A draw below the threshold drops: 24 bits, as many as an f32 in [0, 1) has.
        let threshold = (p * f64::from(1 << 24)) as u64;
        let row_len = n / n_rows;
        mask.par_chunks_mut(row_len.max(1)).enumerate().for_each(|(row, values)| {
            let stream = self.stream(site, row);
            for (i, value) in values.iter_mut().enumerate() {
                let draw = mix(stream.wrapping_add((i as u64).wrapping_mul(GOLDEN))) >> 40;
                *value = if draw < threshold { 0.0 } else { keep };
            }
        });
        Tensor::from_data(TensorData::new(mask, shape), device)
    }
}

/// Drops activations of `x`, whose elements are laid out sequence by sequence, `n_rows` of them.
pub(crate) fn apply<const D: usize>(x: Tensor<D>, key: Option<DropoutKey>, site: u64, p: f64, n_rows: usize) -> Tensor<D> {
    match key {
        Some(key) if p > 0.0 => {
            let mask = key.mask(site, p, n_rows, x.dims(), &x.device().inner());
            let mask = if x.is_autodiff() { Tensor::from_inner(mask) } else { mask };
            x * mask
        }
        _ => x,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn draw(key: DropoutKey, site: u64, p: f64, shape: [usize; 2]) -> Vec<f32> {
        key.mask(site, p, shape[0], shape, &Device::flex()).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn rows_drop_the_same_in_any_micro_batch() {
        let key = DropoutKey { seed: 7, step: 3, first_row: 0 };
        let whole = draw(key, 5, 0.3, [6, 100]);
        let second_half = draw(DropoutKey { first_row: 4, ..key }, 5, 0.3, [2, 100]);
        assert_eq!(whole[400..], second_half);
    }

    #[test]
    fn seed_step_site_and_row_all_matter() {
        let key = DropoutKey { seed: 7, step: 3, first_row: 0 };
        let base = draw(key, 5, 0.5, [1, 200]);
        for other in [
            draw(DropoutKey { seed: 8, ..key }, 5, 0.5, [1, 200]),
            draw(DropoutKey { step: 4, ..key }, 5, 0.5, [1, 200]),
            draw(DropoutKey { first_row: 1, ..key }, 5, 0.5, [1, 200]),
            draw(key, 6, 0.5, [1, 200]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_share_dropped_is_p_and_the_mean_is_one() {
        for p in [0.1, 0.5] {
            let mask = draw(DropoutKey { seed: 1, step: 0, first_row: 0 }, 0, p, [10, 20_000]);
            let dropped = mask.iter().filter(|m| **m == 0.0).count() as f64 / mask.len() as f64;
            // 200,000 draws: standard deviation below 0.0012.
            assert!((dropped - p).abs() < 0.005, "{dropped}");
            let mean = mask.iter().map(|m| f64::from(*m)).sum::<f64>() / mask.len() as f64;
            assert!((mean - 1.0).abs() < 0.01, "{mean}");
        }
    }
}
