//! Speculative decoding: a smaller model proposes tokens, and the model itself looks at all of them at once. Draws nothing by itself.
//!
//! A proposed token is kept as often as the model would have drawn it; else another is drawn from what is left of its distribution, so that
//! texts are distributed as without proposals (Leviathan et al. 2023; Chen et al. 2023).

use kindling_model::{Gpt, KvCache, Sequence};

use crate::Distribution;
use crate::engine::Running;

/// A smaller model beside one, with the same tokens.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    model: &'a Gpt,
    cache: KvCache,
    /// Tokens that it proposes at a time.
    n_tokens: usize,
    /// How many it has proposed, and how many were kept.
    pub(crate) n_proposed: u64,
    pub(crate) n_kept: u64,
}

/// A token that is proposed, and the distribution that it was drawn from.
#[derive(Debug)]
pub(crate) struct Proposed {
    pub(crate) id: u32,
    pub(crate) from: Distribution,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(model: &'a Gpt, n_tokens: usize) -> Self {
        Self { model, cache: model.cache(), n_tokens, n_proposed: 0, n_kept: 0 }
    }

    /// Proposes tokens for texts that are being written, for each as many as it could still take.
    pub(crate) fn propose(&mut self, running: &mut [&mut Running<'_>], context_len: usize, n_ids: usize) -> Vec<Vec<Proposed>> {
        let context_len = context_len.min(self.model.config().context_len);
        let wanted: Vec<usize> = running.iter().map(|running| self.n_wanted(running, context_len)).collect();
        let mut proposed: Vec<Vec<Proposed>> = wanted.iter().map(|_| Vec::new()).collect();
        // Proposals follow one another as draws do, so each has a sampler that takes them for drawn.
        let mut samplers: Vec<_> = running.iter().map(|running| running.sampler.clone()).collect();
        for n in 0..wanted.iter().copied().max().unwrap_or(0) {
            // One without a proposal in the last round has none in this.
            let rows: Vec<usize> = (0..wanted.len()).filter(|row| wanted[*row] > n && proposed[*row].len() == n).collect();
            if rows.is_empty() {
                break;
            }
            let unseen: Vec<Vec<u32>> = rows
                .iter()
                .map(|row| {
                    let seen = running[*row].from + running[*row].drafted.len();
                    let all = running[*row].ids.iter().copied().chain(proposed[*row].iter().map(|one| one.id));
                    all.skip(seen).collect()
                })
                .collect();
            let mut steps: Vec<(&mut Sequence, &[u32])> = Vec::with_capacity(rows.len());
            for (row, running) in running.iter_mut().enumerate() {
                if let Some(at) = rows.iter().position(|other| *other == row) {
                    steps.push((&mut running.drafted, &unseen[at]));
                }
            }
            let v = self.model.config().vocab_size;
            let logits = self.model.forward_cached(&mut steps, &mut self.cache).into_data().convert::<f32>();
            let logits: Vec<f32> = logits.try_into_vec().expect("converted to f32");
            for (row, logits) in rows.iter().zip(logits.chunks(v)) {
                // Where the small model is at its end, the other goes on by itself.
                let sampler = &mut samplers[*row];
                let from = sampler.distribution(&logits[..n_ids.min(v)], |_| true).filter(|_| logits.iter().all(|logit| logit.is_finite()));
                if let Some(from) = from {
                    let id = sampler.draw(&from);
                    proposed[*row].push(Proposed { id, from });
                }
            }
        }
        for (running, sampler) in running.iter_mut().zip(samplers) {
            running.sampler.take_generator(sampler);
        }
        self.n_proposed += proposed.iter().map(|all| all.len() as u64).sum::<u64>();
        proposed
    }

    /// How many tokens a text could take beside the one that is drawn in any case.
    fn n_wanted(&self, running: &Running<'_>, context_len: usize) -> usize {
        let is_writing = running.is_writing && running.request.constraint.is_none();
        let left = running.request.max_new_tokens.saturating_sub(running.n_new() + 1);
        let room = context_len.saturating_sub(running.ids.len() - running.from);
        if is_writing { self.n_tokens.min(left).min(room) } else { 0 }
    }
}
