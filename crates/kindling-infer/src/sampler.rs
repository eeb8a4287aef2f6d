//! From logits to a token: penalties, biases, and who may be drawn. Runs no model.

use std::collections::HashMap;

use kindling_config::SamplingConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::InferError;

/// How tokens are drawn. What it names is done in the order of its fields, from `repetition_penalty` on.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits of tokens that stand in the prompt or were drawn are divided by it where they are above 0, and multiplied elsewhere (Keskar et
    /// al. 2019); 1 changes nothing.
    pub repetition_penalty: f64,
    /// Taken from the logit of a token for each time that it was drawn.
    pub frequency_penalty: f64,
    /// Taken from the logit of a token that was drawn.
    pub presence_penalty: f64,
    /// Added to logits of single tokens; −∞ forbids one.
    pub logit_bias: Vec<(u32, f32)>,
    /// Divides the logits; 0 always takes the likeliest, and the lowest id of several.
    pub temperature: f64,
    /// Only the k likeliest are left; 0 leaves all.
    pub top_k: usize,
    /// Only the fewest likeliest are left that together reach this probability (Holtzman et al. 2020); 1 leaves all.
    pub top_p: f64,
    /// Only those are left that are at least this share as likely as the likeliest (Nguyen et al. 2024); 0 leaves all.
    pub min_p: f64,
    /// Only the fewest are left that together reach this probability, those first whose information is nearest to the entropy (Meister et al.
    /// 2023); 1 leaves all.
    pub typical_p: f64,
}

impl Default for Sampling {
    /// From the model's own distribution.
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
        }
    }
}

impl Sampling {
    /// Whether every setting is within its limits.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), InferError> {
        let within = |key: &'static str, found: f64, low: f64, high: f64| match found {
            found if (low..=high).contains(&found) => Ok(()),
            found => Err(InferError::Sampling { key, found, low, high }),
        };
        within("temperature", self.temperature, 0.0, 100.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("typical_p", self.typical_p, 0.0, 1.0)?;
        within("repetition_penalty", self.repetition_penalty, 0.01, 100.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
    }
}

impl From<&SamplingConfig> for Sampling {
    fn from(config: &SamplingConfig) -> Self {
        let SamplingConfig { temperature, top_k, top_p, .. } = *config;
        Self { temperature, top_k, top_p, ..Self::default() }
    }
}

/// Draws tokens. The same seed draws the same tokens from the same logits.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// How often each token was drawn; 0 for those that stand in the prompt alone.
    seen: HashMap<u32, u32>,
}

/// Tokens that may be drawn, and how likely each is.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// In their order.
    ids: Vec<u32>,
    /// Of each, of the sum 1.
    probabilities: Vec<f64>,
}

impl Distribution {
    /// How likely a token is.
    pub fn probability(&self, id: u32) -> f64 {
        self.ids.binary_search(&id).map_or(0.0, |at| self.probabilities[at])
    }

    /// Tokens with their probabilities.
    pub fn iter(&self) -> impl Iterator<Item = (u32, f64)> + '_ {
        self.ids.iter().copied().zip(self.probabilities.iter().copied())
    }

    /// What it has above another one.
    fn above(&self, other: &Self) -> Self {
        let rest = self.iter().map(|(id, p)| (id, p - other.probability(id))).filter(|(_, p)| *p > 0.0);
        let (ids, probabilities): (Vec<_>, Vec<_>) = rest.unzip();
        let mut found = Self { ids, probabilities };
        found.normalise();
        // By rounding alone can nothing be left.
        if found.ids.is_empty() { self.clone() } else { found }
    }

    /// One token alone.
    fn certain(id: u32) -> Self {
        Self { ids: vec![id], probabilities: vec![1.0] }
    }

    /// Those for which `is_kept` holds.
    fn keep(&mut self, mut is_kept: impl FnMut(u32, f64) -> bool) {
        let kept = self.ids.iter().zip(&self.probabilities).map(|(id, p)| (*id, *p)).filter(|(id, p)| is_kept(*id, *p)).collect::<Vec<_>>();
        (self.ids, self.probabilities) = kept.into_iter().unzip();
        self.normalise();
    }

    fn normalise(&mut self) {
        let sum: f64 = self.probabilities.iter().sum();
        self.probabilities.iter_mut().for_each(|p| *p /= sum);
    }

    /// The fewest that reach `wanted` together, in the order of `before`.
    fn keep_first(&mut self, wanted: f64, mut before: impl FnMut((u32, f64), (u32, f64)) -> std::cmp::Ordering) {
        let mut all: Vec<(u32, f64)> = self.iter().collect();
        all.sort_unstable_by(|a, b| before(*a, *b));
        let mut reached = 0.0;
        let n = all.iter().take_while(|(_, p)| (reached < wanted, reached += p).0).count();
        all.truncate(n.max(1));
        all.sort_unstable_by_key(|(id, _)| *id);
        (self.ids, self.probabilities) = all.into_iter().unzip();
        self.normalise();
    }
}

impl Sampler {
    /// A sampler with its own generator, behind a prompt.
    pub fn new(sampling: Sampling, prompt: &[u32], seed: u64) -> Self {
        Self { sampling, rng: ChaCha8Rng::seed_from_u64(seed), seen: prompt.iter().map(|id| (*id, 0)).collect() }
    }

    /// What may be drawn next, from `logits`, `[V]`; of those alone for which `is_allowed` holds. None where that is none.
    pub fn distribution(&self, logits: &[f32], is_allowed: impl Fn(u32) -> bool) -> Option<Distribution> {
        let Sampling { temperature, top_k, top_p, min_p, typical_p, .. } = self.sampling;
        let by_value = |a: &(u32, f32), b: &(u32, f32)| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0));
        if temperature == 0.0 && self.changes_nothing() {
            let all = (0..).zip(logits.iter().copied()).filter(|(id, logit)| *logit > f32::NEG_INFINITY && is_allowed(*id));
            return all.max_by(by_value).map(|(id, _)| Distribution::certain(id));
        }
        let logits = self.adjusted(logits);
        let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|id| logits[*id as usize] > f32::NEG_INFINITY && is_allowed(*id)).collect();
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let likeliest = *ids.iter().min_by(|a, b| by_logit(a, b))?;
        if temperature == 0.0 {
            return Some(Distribution::certain(likeliest));
        }
        if top_k > 0 && top_k < ids.len() {
            ids.select_nth_unstable_by(top_k - 1, by_logit);
            ids.truncate(top_k);
            ids.sort_unstable();
        }
        let largest = f64::from(logits[likeliest as usize]);
        let probabilities = ids.iter().map(|id| ((f64::from(logits[*id as usize]) - largest) / temperature).exp()).collect();
        let mut found = Distribution { ids, probabilities };
        found.normalise();
        if top_p < 1.0 {
            // Those that are less likely than this are not needed even if there are no others, so they are not sorted.
            let least = (1.0 - top_p) / found.ids.len() as f64;
            let all = found.clone();
            found.ids.clear();
            found.probabilities.clear();
            for (id, p) in all.iter().filter(|(_, p)| *p >= least) {
                found.ids.push(id);
                found.probabilities.push(p);
            }
            found.keep_first(top_p, |a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        }
        if min_p > 0.0 {
            let least = min_p * found.probabilities.iter().copied().fold(0.0, f64::max);
            found.keep(|_, p| p >= least);
        }
        if typical_p < 1.0 {
            let information = |p: f64| if p > 0.0 { -p.ln() } else { f64::INFINITY };
            let entropy: f64 = found.probabilities.iter().filter(|p| **p > 0.0).map(|p| p * information(*p)).sum();
            let strangeness = |p: f64| (information(p) - entropy).abs();
            found.keep_first(typical_p, |a, b| strangeness(a.1).total_cmp(&strangeness(b.1)).then(a.0.cmp(&b.0)));
        }
        Some(found)
    }

    /// Draws a token, and remembers it.
    pub fn draw(&mut self, from: &Distribution) -> u32 {
        let mut left = if from.ids.len() > 1 { self.rng.random::<f64>() } else { 0.0 };
        let drawn = from.iter().find(|(_, p)| {
            left -= p;
            left < 0.0
        });
        // Rounding can leave a sliver beyond the last one that is likely at all.
        let last = || from.iter().filter(|(_, p)| *p > 0.0).last();
        let id = drawn.or_else(last).map_or(from.ids[0], |(id, _)| id);
        self.remember(id);
        id
    }

    /// Draws a token when another one has been drawn from `other`, and whether it is that: it is kept with probability min(1, p / q), and else
    /// drawn from the rest of p above q, so that what comes is distributed as p (Leviathan et al. 2023, appendix A.1).
    pub(crate) fn draw_or_keep(&mut self, from: &Distribution, id: u32, other: &Distribution) -> (u32, bool) {
        let (p, q) = (from.probability(id), other.probability(id));
        if p >= q || self.rng.random::<f64>() * q < p {
            self.remember(id);
            return (id, true);
        }
        (self.draw(&from.above(other)), false)
    }

    /// Goes on with the random numbers of a copy that has drawn meanwhile.
    pub(crate) fn take_generator(&mut self, copy: Self) {
        self.rng = copy.rng;
    }

    /// Takes a token as drawn.
    pub fn remember(&mut self, id: u32) {
        *self.seen.entry(id).or_default() += 1;
    }

    /// Whether logits stay as they are.
    fn changes_nothing(&self) -> bool {
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, ref logit_bias, .. } = self.sampling;
        (repetition_penalty, frequency_penalty, presence_penalty) == (1.0, 0.0, 0.0) && logit_bias.is_empty()
    }

    /// Logits after penalties and biases.
    fn adjusted(&self, logits: &[f32]) -> Vec<f32> {
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, ref logit_bias, .. } = self.sampling;
        let mut logits = logits.to_vec();
        if (repetition_penalty, frequency_penalty, presence_penalty) != (1.0, 0.0, 0.0) {
            for (id, n) in &self.seen {
                let Some(logit) = logits.get_mut(*id as usize) else { continue };
                let mut value = f64::from(*logit);
                value = if value > 0.0 { value / repetition_penalty } else { value * repetition_penalty };
                value -= f64::from(*n) * frequency_penalty + if *n > 0 { presence_penalty } else { 0.0 };
                *logit = value as f32;
            }
        }
        for (id, bias) in logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        logits
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    /// Logits of probabilities 0.1, 0.2, 0.3, 0.4.
    fn logits() -> [f32; 4] {
        [0.1f32, 0.2, 0.3, 0.4].map(f32::ln)
    }

    /// The distribution is as expected, and draws are: four standard deviations of a share of 40,000 draws are at most 0.01.
    fn check(sampling: &Sampling, prompt: &[u32], expected: [f64; 4]) {
        let found = Sampler::new(sampling.clone(), prompt, 1).distribution(&logits(), |_| true).unwrap();
        for (id, expected) in (0..).zip(expected) {
            assert!((found.probability(id) - expected).abs() < 1e-6, "{sampling:?}: {found:?}, expected {expected:?} of {id}");
        }
        assert!((found.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
        let mut shares = [0.0; 4];
        let mut sampler = Sampler::new(sampling.clone(), prompt, 7);
        for _ in 0..40_000 {
            shares[sampler.draw(&found) as usize] += 1.0 / 40_000.0;
        }
        for (share, expected) in shares.iter().zip(expected) {
            assert!(
                (share - expected).abs() < 0.01 && (expected > 0.0 || *share == 0.0),
                "{sampling:?}: {shares:?}, expected {expected:?}"
            );
        }
    }

    #[test]
    fn each_setting_has_its_own_distribution() {
        let all = Sampling::default;
        check(&all(), &[], [0.1, 0.2, 0.3, 0.4]);
        check(&Sampling { temperature: 0.0, ..all() }, &[], [0.0, 0.0, 0.0, 1.0]);
        // Temperature 1/2 squares the probabilities: 1, 4, 9, 16 of 30.
        check(&Sampling { temperature: 0.5, ..all() }, &[], [1.0, 4.0, 9.0, 16.0].map(|n| n / 30.0));
        check(&Sampling { top_k: 2, ..all() }, &[], [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        check(&Sampling { top_k: 1, ..all() }, &[], [0.0, 0.0, 0.0, 1.0]);
        check(&Sampling { top_p: 0.6, ..all() }, &[], [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        check(&Sampling { top_p: 0.75, ..all() }, &[], [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        // Of what top-k leaves, 4/7 is enough.
        check(&Sampling { top_k: 2, top_p: 0.5, ..all() }, &[], [0.0, 0.0, 0.0, 1.0]);
        // 0.6 of 0.4 is 0.24.
        check(&Sampling { min_p: 0.6, ..all() }, &[], [0.0, 0.0, 3.0 / 7.0, 4.0 / 7.0]);
        check(&Sampling { min_p: 0.45, ..all() }, &[], [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
        // The entropy is 1.280 nats, and the information 2.303, 1.609, 1.204, 0.916: the third is the most typical, then the second.
        check(&Sampling { typical_p: 0.2, ..all() }, &[], [0.0, 0.0, 1.0, 0.0]);
        check(&Sampling { typical_p: 0.4, ..all() }, &[], [0.0, 0.4, 0.6, 0.0]);
        check(&Sampling { typical_p: 0.8, ..all() }, &[], [0.0, 2.0 / 9.0, 3.0 / 9.0, 4.0 / 9.0]);
    }

    #[test]
    fn penalties_and_biases_change_logits() {
        // Logits are below 0, so the penalty squares the probability of what stands in the prompt: 0.1, 0.04, 0.3, 0.4.
        let penalty = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        check(&penalty, &[1, 1], [0.1, 0.04, 0.3, 0.4].map(|p| p / 0.84));
        assert_eq!(Sampler::new(penalty, &[0], 1).adjusted(&[3.0, 3.0]), [1.5, 3.0], "above 0 it divides");
        let ln_2 = std::f32::consts::LN_2;
        let biased = Sampling { logit_bias: vec![(0, ln_2), (3, f32::NEG_INFINITY), (9, 1.0)], ..Sampling::default() };
        check(&biased, &[], [2.0 / 7.0, 2.0 / 7.0, 3.0 / 7.0, 0.0]);
        // What was drawn twice loses ln 2 twice by its frequency, and ln 2 by its presence; what stands in the prompt loses nothing.
        let ln_2 = f64::from(ln_2);
        let penalties = Sampling { frequency_penalty: ln_2, presence_penalty: ln_2, ..Sampling::default() };
        let mut sampler = Sampler::new(penalties, &[0], 1);
        sampler.remember(3);
        sampler.remember(3);
        let found = sampler.distribution(&logits(), |_| true).unwrap();
        let expected = [0.1, 0.2, 0.3, 0.05].map(|p| p / 0.65);
        assert!((0..4).zip(expected).all(|(id, p)| (found.probability(id) - p).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn what_is_not_allowed_is_not_drawn() {
        let found = Sampler::new(Sampling::default(), &[], 1).distribution(&logits(), |id| id < 2).unwrap();
        assert!((found.probability(0) - 1.0 / 3.0).abs() < 1e-6 && found.probability(3) == 0.0, "{found:?}");
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        assert_eq!(Sampler::new(greedy.clone(), &[], 1).distribution(&logits(), |id| id < 2).unwrap().probability(1), 1.0);
        // The lowest id of those that are as likely.
        assert_eq!(Sampler::new(greedy, &[], 1).distribution(&[1.0, 3.0, 3.0], |_| true).unwrap().probability(1), 1.0);
    }
}
