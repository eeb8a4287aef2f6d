//! Beam search over many prompts at once. Draws nothing, and knows no text.

use kindling_model::{Gpt, KvCache, Sequence, WeightFormat};
use rayon::prelude::*;

use crate::InferError;

/// How targets are searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamOptions {
    /// Hypotheses that are followed at once; 1 is greedy.
    pub beam_size: usize,
    /// α of log-likelihood / length^α, by which hypotheses that have ended are compared.
    pub length_penalty: f64,
    /// Tokens of a hypothesis at most, its end included.
    pub max_new_tokens: usize,
    /// Prompts that are computed at once. What comes out does not depend on it where rows have the same bits whatever stands beside them,
    /// as on flex.
    pub batch_size: usize,
}

/// What was found for a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, without the end.
    pub ids: Vec<u32>,
    /// Log-likelihood in nats, the end included.
    pub log_likelihood: f64,
    /// Whether it came to an end by itself.
    pub has_ended: bool,
    /// Log-likelihood / length^α.
    pub score: f64,
}

/// The best hypotheses for each prompt, `beam_size` of them at most, the best first; those that have ended come before those that the
/// limit on their length cut off. `end` is the token that ends one, and ids from `n_ids` on are none.
///
/// As in Hugging Face's `generate` with `early_stopping = False` (the search of Wu et al., arXiv:1609.08144, without their coverage): of
/// the 2·`beam_size` best continuations those that end are put aside if they are among the best `beam_size`, and a search is over once
/// there are `beam_size` of them and no other could be better at its present length. Ties go to the hypothesis that was better before,
/// then to the lowest id.
///
/// `progress` hears of prompts done.
///
/// # Errors
/// Logits that are not finite.
///
/// # Panics
/// If a prompt is empty, or does not fit the context with one new token.
pub fn beam_search(
    model: &Gpt,
    prompts: &[Vec<u32>],
    end: u32,
    n_ids: usize,
    options: &BeamOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Vec<Hypothesis>>, InferError> {
    assert!(options.beam_size > 0 && options.max_new_tokens > 0 && options.batch_size > 0, "sizes of at least 1");
    // Prompts of like lengths are done at like times.
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(prompts[*i].len()), *i));
    let mut found = vec![Vec::new(); prompts.len()];
    // Laid out for few rows at a time; on flex with the same bits.
    let packed = (!model.is_packed()).then(|| model.packed(WeightFormat::F32));
    let model = packed.as_ref().unwrap_or(model);
    let mut cache = model.cache();
    let mut n_done = 0;
    for batch in order.chunks(options.batch_size) {
        let mut searches: Vec<Search> = batch.iter().map(|i| Search::new(&prompts[*i], model.config().context_len, options)).collect();
        while step(model, &mut searches, end, n_ids, options, &mut cache)? {}
        for (search, i) in searches.into_iter().zip(batch) {
            found[*i] = search.finish(options);
        }
        n_done += batch.len() as u64;
        progress(n_done);
    }
    Ok(found)
}

/// A hypothesis that goes on.
#[derive(Clone)]
struct Open {
    sequence: Sequence,
    /// Tokens that the model has not seen yet.
    pending: Vec<u32>,
    ids: Vec<u32>,
    log_likelihood: f64,
}

/// The search for one prompt.
struct Search {
    open: Vec<Open>,
    ended: Vec<Hypothesis>,
    /// New tokens at most.
    limit: usize,
}

/// A token behind an open hypothesis.
#[derive(Clone, Copy)]
struct Candidate {
    open: usize,
    id: u32,
    log_likelihood: f64,
}

/// One step of all searches that are not over; says whether there was any.
fn step(
    model: &Gpt,
    searches: &mut [Search],
    end: u32,
    n_ids: usize,
    options: &BeamOptions,
    cache: &mut KvCache,
) -> Result<bool, InferError> {
    let mut steps: Vec<(&mut Sequence, &[u32])> =
        searches.iter_mut().flat_map(|search| &mut search.open).map(|open| (&mut open.sequence, &open.pending[..])).collect();
    if steps.is_empty() {
        return Ok(false);
    }
    let logits = model.forward_cached(&mut steps, cache);
    let v = logits.dims()[1];
    let logits: Vec<f32> = logits.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
    let n_best = 2 * options.beam_size;
    let best: Vec<Option<Vec<(u32, f64)>>> = logits.par_chunks(v).map(|logits| likeliest(&logits[..n_ids.min(v)], n_best)).collect();
    let mut best = best.into_iter();
    for search in searches.iter_mut().filter(|search| !search.open.is_empty()) {
        let mut candidates = Vec::with_capacity(search.open.len() * n_best);
        for (i, open) in search.open.iter().enumerate() {
            let best = best.next().flatten().ok_or(InferError::NotFinite(open.sequence.len()))?;
            candidates.extend(best.into_iter().map(|(id, nats)| Candidate { open: i, id, log_likelihood: open.log_likelihood + nats }));
        }
        // Stable, so that ties keep their order.
        candidates.sort_by(|a, b| b.log_likelihood.total_cmp(&a.log_likelihood));
        candidates.truncate(n_best);
        search.take(&candidates, end, options);
    }
    Ok(true)
}

/// The `n` likeliest ids with their log-likelihoods, the likeliest first; none if a logit is not finite.
fn likeliest(logits: &[f32], n: usize) -> Option<Vec<(u32, f64)>> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit - largest).exp()).sum();
    if !sum.is_finite() || logits.iter().any(|logit| !logit.is_finite()) {
        return None;
    }
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if n < ids.len() {
        ids.select_nth_unstable_by(n - 1, by_logit);
        ids.truncate(n);
    }
    ids.sort_unstable_by(by_logit);
    Some(ids.into_iter().map(|id| (id, f64::from(logits[id as usize] - largest) - sum.ln())).collect())
}

impl Search {
    fn new(prompt: &[u32], context_len: usize, options: &BeamOptions) -> Self {
        assert!(!prompt.is_empty() && prompt.len() < context_len, "{} tokens and a new one fit the context of {context_len}", prompt.len());
        let open = Open { sequence: Sequence::default(), pending: prompt.to_vec(), ids: Vec::new(), log_likelihood: 0.0 };
        // The last new token need not be seen.
        Self { open: vec![open], ended: Vec::new(), limit: options.max_new_tokens.min(context_len - prompt.len() + 1) }
    }

    /// Goes on with the best continuations, the best first.
    fn take(&mut self, candidates: &[Candidate], end: u32, options: &BeamOptions) {
        let before = std::mem::take(&mut self.open);
        let length = before[0].ids.len() + 1;
        for (rank, candidate) in candidates.iter().enumerate() {
            let from = &before[candidate.open];
            if candidate.id == end {
                if rank < options.beam_size {
                    self.ended.push(hypothesis(from.ids.clone(), candidate.log_likelihood, true, options));
                }
            } else if self.open.len() < options.beam_size {
                let mut ids = from.ids.clone();
                ids.push(candidate.id);
                let sequence = from.sequence.clone();
                self.open.push(Open { sequence, pending: vec![candidate.id], ids, log_likelihood: candidate.log_likelihood });
            }
        }
        keep_best(&mut self.ended, options.beam_size);
        let is_full = self.ended.len() == options.beam_size;
        let could_be_better = self.open.first().is_some_and(|best| {
            self.ended.last().is_none_or(|worst| best.log_likelihood / (length as f64).powf(options.length_penalty) > worst.score)
        });
        if is_full && !could_be_better {
            self.open.clear();
        } else if length == self.limit {
            // As they are where nothing has come to an end.
            let open = std::mem::take(&mut self.open);
            let cut = open.into_iter().map(|open| hypothesis(open.ids, open.log_likelihood, false, options));
            self.ended.extend(cut);
        }
    }

    fn finish(mut self, options: &BeamOptions) -> Vec<Hypothesis> {
        keep_best(&mut self.ended, options.beam_size);
        self.ended
    }
}

fn hypothesis(ids: Vec<u32>, log_likelihood: f64, has_ended: bool, options: &BeamOptions) -> Hypothesis {
    let length = ids.len() + usize::from(has_ended);
    Hypothesis { ids, log_likelihood, has_ended, score: log_likelihood / (length as f64).powf(options.length_penalty) }
}

fn keep_best(hypotheses: &mut Vec<Hypothesis>, n: usize) {
    hypotheses.sort_by(|a, b| b.has_ended.cmp(&a.has_ended).then(b.score.total_cmp(&a.score)));
    hypotheses.truncate(n);
}
