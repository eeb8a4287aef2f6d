//! From logits to a token: greedy, temperature, top-k, top-p. Runs no model.

use kindling_config::SamplingConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws tokens. The same seed draws the same tokens from the same logits.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler with its own generator.
    pub fn new(config: &SamplingConfig, seed: u64) -> Self {
        Self { temperature: config.temperature, top_k: config.top_k, top_p: config.top_p, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Draws one of the tokens that `logits`, `[V]`, weigh: the k likeliest, of those the fewest that reach probability
    /// p together, each with its share. Temperature 0 takes the likeliest; ties go to the lowest id.
    ///
    /// # Panics
    /// If `logits` is empty.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.temperature == 0.0 {
            return (0..logits.len() as u32).min_by(by_logit).expect("a vocabulary is not empty");
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        if self.top_k > 0 && self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k - 1, by_logit);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(by_logit);
        let largest = f64::from(logits[order[0] as usize]);
        let mut weights: Vec<f64> = order.iter().map(|id| ((f64::from(logits[*id as usize]) - largest) / self.temperature).exp()).collect();
        if self.top_p < 1.0 {
            let needed = self.top_p * weights.iter().sum::<f64>();
            let mut reached = 0.0;
            let is_needed = |weight: &&f64| {
                let before = reached;
                reached += **weight;
                before < needed
            };
            let n = weights.iter().take_while(is_needed).count();
            weights.truncate(n.max(1));
        }
        let mut left = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        for (id, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *id;
            }
        }
        // Rounding can leave a sliver beyond the last weight.
        order[weights.len() - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(temperature: f64, top_k: usize, top_p: f64) -> SamplingConfig {
        SamplingConfig { prompt: String::new(), max_new_tokens: 1, temperature, top_k, top_p }
    }

    /// Shares of 40,000 draws from four tokens.
    fn shares(config: &SamplingConfig, logits: &[f32; 4]) -> [f64; 4] {
        let mut sampler = Sampler::new(config, 1);
        let mut counts = [0.0; 4];
        for _ in 0..40_000 {
            counts[sampler.sample(logits) as usize] += 1.0 / 40_000.0;
        }
        counts
    }

    fn check(config: &SamplingConfig, expected: [f64; 4]) {
        // Probabilities 0.1, 0.2, 0.3, 0.4 at temperature 1.
        let logits = [0.1f32.ln(), 0.2f32.ln(), 0.3f32.ln(), 0.4f32.ln()];
        let found = shares(config, &logits);
        for (a, b) in found.iter().zip(expected) {
            // Four standard deviations of a share of 40,000 draws are at most 0.01.
            assert!((a - b).abs() < 0.01 && (b > 0.0 || *a == 0.0), "{config:?}: {found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn each_setting_draws_its_own_distribution() {
        check(&config(1.0, 0, 1.0), [0.1, 0.2, 0.3, 0.4]);
        check(&config(0.0, 0, 1.0), [0.0, 0.0, 0.0, 1.0]);
        check(&config(1.0, 2, 1.0), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        check(&config(1.0, 0, 0.6), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        check(&config(1.0, 0, 0.75), [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        check(&config(1.0, 3, 0.5), [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        // Temperature 1/2 squares the probabilities: 1, 4, 9, 16 of 30.
        check(&config(0.5, 0, 1.0), [1.0 / 30.0, 4.0 / 30.0, 9.0 / 30.0, 16.0 / 30.0]);
        check(&config(1.0, 1, 1.0), [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn greedy_breaks_ties_by_the_lowest_id() {
        assert_eq!(Sampler::new(&config(0.0, 0, 1.0), 1).sample(&[1.0, 3.0, 3.0]), 1);
    }
}
