//! Beam search: greedy is greedy, a wide beam finds what is best, and no prompt changes what another gets.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_infer::{BeamOptions, Hypothesis, InferError, beam_search};
use kindling_model::weights::{named_parameters, with_parameters};
use kindling_model::{Gpt, Pass};
use support::far_from_uniform;

const V: usize = 7;
const END: u32 = 3;
const CONTEXT: usize = 12;

/// A model far from uniform, with one id more than texts have.
fn model() -> Gpt {
    far_from_uniform(V + 1, CONTEXT, 16, 5, 8.0)
}

/// Log-likelihoods of the ids that a text can have behind `ids`.
fn next(model: &Gpt, ids: &[u32]) -> Vec<f64> {
    let t = ids.len();
    let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
    let logits = model.forward(Tensor::<2, Int>::from_data(TensorData::new(ids, [1, t]), &Device::flex()), &Pass::default());
    let logits: Vec<f32> = logits.slice([0..1, t - 1..t, 0..V]).into_data().try_into_vec().unwrap();
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    logits.into_iter().map(|logit| f64::from(logit) - sum.ln()).collect()
}

/// Every text of at most `n` tokens that ends, and every one of `n` that does not.
fn all(model: &Gpt, prompt: &[u32], n: usize, alpha: f64) -> Vec<Hypothesis> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), 0.0)];
    for length in 1..=n {
        let score = |log_likelihood: f64| log_likelihood / (length as f64).powf(alpha);
        let mut longer = Vec::new();
        for (ids, log_likelihood) in open {
            for (id, nats) in next(model, &[prompt, &ids].concat()).into_iter().enumerate() {
                let log_likelihood: f64 = log_likelihood + nats;
                if id as u32 == END {
                    found.push(Hypothesis { ids: ids.clone(), log_likelihood, has_ended: true, score: score(log_likelihood) });
                } else {
                    longer.push(([&ids[..], &[id as u32]].concat(), log_likelihood));
                }
            }
        }
        open = longer;
    }
    let score = |log_likelihood: f64| log_likelihood / (n as f64).powf(alpha);
    found.extend(open.into_iter().map(|(ids, log_likelihood)| Hypothesis {
        ids,
        log_likelihood,
        has_ended: false,
        score: score(log_likelihood),
    }));
    found.sort_by(|a, b| b.has_ended.cmp(&a.has_ended).then(b.score.total_cmp(&a.score)));
    found
}

fn options(beam_size: usize, length_penalty: f64, max_new_tokens: usize, batch_size: usize) -> BeamOptions {
    BeamOptions { beam_size, length_penalty, max_new_tokens, batch_size }
}

fn prompts() -> Vec<Vec<u32>> {
    (0..9u32).map(|i| (0..1 + i % 5).map(|j| (i * 3 + j * j + 1) % V as u32).collect()).collect()
}

#[test]
fn a_wide_beam_finds_the_best_of_all_texts() {
    let model = model();
    for alpha in [0.0, 1.0, 2.0] {
        // Nothing is cut off where the beam has room for every text.
        let wide = options(V.pow(4), alpha, 4, 3);
        let found = beam_search(&model, &prompts(), END, V, &wide, &mut |_| {}).unwrap();
        for (prompt, found) in prompts().iter().zip(found) {
            let expected = all(&model, prompt, 4, alpha);
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected).take(20) {
                assert_eq!((&found.ids, found.has_ended), (&expected.ids, expected.has_ended), "after {prompt:?}");
                // Measured at most 1.1e-6.
                assert!((found.score - expected.score).abs() < 1e-5, "{} and {}", found.score, expected.score);
                assert!((found.log_likelihood - expected.log_likelihood).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn a_beam_of_one_is_greedy() {
    let model = model();
    let found = beam_search(&model, &prompts(), END, V, &options(1, 1.0, 8, 4), &mut |_| {}).unwrap();
    let mut n_ended = 0;
    for (prompt, found) in prompts().iter().zip(&found) {
        let mut ids = Vec::new();
        let mut has_ended = false;
        while ids.len() < 8 && prompt.len() + ids.len() <= CONTEXT {
            let likely = next(&model, &[&prompt[..], &ids].concat());
            let best = (0..V).reduce(|a, b| if likely[b] > likely[a] { b } else { a }).unwrap() as u32;
            if best == END {
                has_ended = true;
                break;
            }
            ids.push(best);
        }
        assert_eq!((&found[0].ids, found[0].has_ended), (&ids, has_ended), "after {prompt:?}");
        n_ended += usize::from(has_ended);
    }
    assert!((1..9).contains(&n_ended), "{n_ended} of 9 end: both ways are tried");
}

#[test]
fn no_prompt_changes_what_another_gets() {
    let model = model();
    let of = |batch_size| {
        let mut told = Vec::new();
        let found = beam_search(&model, &prompts(), END, V, &options(3, 0.7, 9, batch_size), &mut |done| told.push(done)).unwrap();
        assert_eq!(told.last(), Some(&9));
        // Bit for bit.
        found
            .into_iter()
            .map(|found| found.into_iter().map(|h| (h.ids, h.log_likelihood.to_bits())).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let alone = of(1);
    assert!([2, 4, 9, 100].into_iter().all(|n| of(n) == alone));
}

#[test]
fn a_text_ends_at_the_border_of_the_context() {
    let model = model();
    let prompt: Vec<u32> = (0..CONTEXT as u32 - 1).map(|i| i % 3).collect();
    // An end that is never drawn.
    let found = beam_search(&model, &[prompt], V as u32 + 5, V, &options(2, 1.0, 50, 1), &mut |_| {}).unwrap();
    assert!(found[0].iter().all(|hypothesis| hypothesis.ids.len() == 2 && !hypothesis.has_ended));
}

#[test]
fn logits_that_are_no_numbers_are_an_error() {
    let values = named_parameters(&model()).into_iter().map(|(name, mut tensor)| {
        tensor.values[0] = f32::NAN;
        (name, tensor)
    });
    let broken = with_parameters(model(), values.collect(), std::path::Path::new("broken")).unwrap();
    let found = beam_search(&broken, &prompts(), END, V, &options(2, 1.0, 4, 4), &mut |_| {});
    assert!(matches!(found, Err(InferError::NotFinite(_))));
}
