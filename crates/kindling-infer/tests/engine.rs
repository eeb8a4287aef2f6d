//! The engine: what a request gets does not depend on others, and is what a model says that sees all of a text at once.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_infer::{Border, Engine, EngineLimits, Event, InferError, Request, RequestId, Sampling, StopReason, TokenScore};
use kindling_model::{Gpt, Pass};
use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, Tokenizer};
use support::far_from_uniform;

const TEXT: &str = "größe and ascii text: the quick brown fox jumps over the lazy dog 🦊";

fn tokenizer() -> Tokenizer {
    Tokenizer::Bpe(BpeTrainer::new(270).with_special_tokens(&[END_OF_TEXT]).train(&[TEXT]).unwrap())
}

/// A model far from uniform.
fn model(tokenizer: &Tokenizer) -> Gpt {
    far_from_uniform(tokenizer.vocab_size() + 3, 32, 24, 4, 12.0)
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq)]
struct Got {
    text: String,
    prompt: Vec<TokenScore>,
    tokens: Vec<TokenScore>,
    reason: Option<StopReason>,
}

/// Runs requests that come as given, so many steps after each other.
fn run(model: &Gpt, tokenizer: &Tokenizer, requests: &[Request], limits: EngineLimits, steps_between: usize) -> Vec<Got> {
    let mut engine = Engine::new(model, tokenizer, limits);
    let (mut got, mut ids) = (BTreeMap::<RequestId, Got>::new(), Vec::new());
    let mut take = |events: Vec<(RequestId, Event)>| {
        for (id, event) in events {
            let got = got.entry(id).or_default();
            match event {
                Event::Prompt(scores) => got.prompt.extend(scores),
                Event::Token { text, score } => {
                    got.text += &text;
                    got.tokens.push(score);
                }
                Event::Ended { text, reason } => {
                    got.text += &text;
                    got.reason = Some(reason);
                }
                Event::Failed(error) => panic!("{error}"),
            }
        }
    };
    for request in requests {
        ids.push(engine.add(request.clone()).unwrap());
        for _ in 0..steps_between {
            take(engine.step());
        }
    }
    while engine.n_requests() != (0, 0) {
        take(engine.step());
    }
    ids.into_iter().map(|id| got.remove(&id).unwrap()).collect()
}

const ALL: EngineLimits = EngineLimits { n_running: 64, n_tokens_a_step: 1 << 20, n_tokens_kept: 0 };

fn requests(tokenizer: &Tokenizer) -> Vec<Request> {
    let prompts = ["the quick", "the quick brown fox jumps", "a", "", "größe 🦊", "the quick brown cat", "the"];
    let end = tokenizer.end_of_text().unwrap();
    prompts
        .iter()
        .zip(0u64..)
        .map(|(prompt, i)| Request {
            prompt: std::iter::once(end).chain(tokenizer.encode(prompt).unwrap()).collect(),
            sampling: Sampling { temperature: [0.0, 1.0, 0.7][i as usize % 3], top_k: 40 * (i as usize % 2), ..Sampling::default() },
            seed: i,
            max_new_tokens: 5 + 7 * i as usize,
            n_likeliest: Some(i as usize % 3),
            score_prompt: i % 4 == 1,
            border: if i % 2 == 0 { Border::Stop } else { Border::Slide },
            ..Request::default()
        })
        .collect()
}

#[test]
fn a_request_gets_the_same_bits_whatever_else_is_computed() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let requests = requests(&tokenizer);
    let alone: Vec<Got> = requests.iter().map(|request| run(&model, &tokenizer, std::slice::from_ref(request), ALL, 0).remove(0)).collect();
    assert!(alone.iter().all(|got| got.reason.is_some()));
    assert!(alone.iter().any(|got| got.tokens.len() > 32), "some go past the border");
    for limits in [
        ALL,
        EngineLimits { n_running: 2, ..ALL },
        EngineLimits { n_tokens_a_step: 1, ..ALL },
        EngineLimits { n_tokens_a_step: 4, n_running: 3, n_tokens_kept: 100 },
        EngineLimits { n_tokens_kept: 1000, ..ALL },
    ] {
        for steps_between in [0, 1, 3, 50] {
            assert_eq!(run(&model, &tokenizer, &requests, limits, steps_between), alone, "{limits:?}, {steps_between}");
        }
    }
}

#[test]
fn likelihoods_are_those_of_the_whole_text_at_once() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let prompt: Vec<u32> = std::iter::once(tokenizer.end_of_text().unwrap()).chain(tokenizer.encode("the quick brown").unwrap()).collect();
    let request = Request {
        prompt: prompt.clone(),
        max_new_tokens: 6,
        n_likeliest: Some(3),
        score_prompt: true,
        ignore_end: true,
        ..Request::default()
    };
    let got = run(&model, &tokenizer, &[request], EngineLimits { n_tokens_a_step: 3, ..ALL }, 0).remove(0);
    let all: Vec<TokenScore> = [got.prompt.clone(), got.tokens].concat();
    let ids: Vec<u32> = all.iter().map(|score| score.id).collect();
    assert_eq!(ids[..prompt.len()], prompt);
    assert_eq!((ids.len(), all[0].log_probability), (prompt.len() + 6, None));
    let tensor = |ids: &[u32]| {
        let values: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        Tensor::<2, Int>::from_data(TensorData::new(values, [1, ids.len()]), &Device::flex())
    };
    let logits: Vec<f32> = model.forward(tensor(&ids), &Pass::default()).into_data().try_into_vec().unwrap();
    let v = tokenizer.vocab_size();
    for (logits, score) in logits.chunks(v + 3).zip(&all[1..]) {
        let z: f64 = logits[..v].iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
        let expected = f64::from(logits[score.id as usize]) - z;
        // Measured at most 3e-6.
        assert!((score.log_probability.unwrap() - expected).abs() < 3e-5, "{score:?}, expected {expected}");
        let mut order: Vec<u32> = (0..v as u32).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        assert_eq!(score.likeliest.iter().map(|(id, _)| *id).collect::<Vec<_>>(), order[..3]);
    }
}

#[test]
fn texts_end_where_they_are_told_to() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let end = tokenizer.end_of_text().unwrap();
    let greedy = Request {
        prompt: vec![end, 5, 9],
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        max_new_tokens: 20,
        ignore_end: true,
        ..Request::default()
    };
    let one = |request: &Request| run(&model, &tokenizer, std::slice::from_ref(request), ALL, 0).remove(0);
    let whole = one(&greedy);
    assert_eq!((whole.tokens.len(), whole.reason), (20, Some(StopReason::MaxNewTokens)));
    // A text within it, of which the first time counts.
    let (at, _) = whole.text.char_indices().nth(4).unwrap();
    let stop: String = whole.text[at..].chars().take(3).collect();
    let stopped = one(&Request { stop: vec!["never said".into(), stop.clone()], ..greedy.clone() });
    assert_eq!((stopped.text.as_str(), stopped.reason), (&whole.text[..whole.text.find(&stop).unwrap()], Some(StopReason::StopText)));
    // A token.
    let id = whole.tokens[6].id;
    let first = whole.tokens.iter().position(|score| score.id == id).unwrap();
    let stopped = one(&Request { stop_tokens: vec![id], ..greedy.clone() });
    assert_eq!((stopped.tokens.len(), stopped.reason), (first, Some(StopReason::EndOfText)));
    // The context.
    let full = one(&Request { max_new_tokens: 100, ..greedy.clone() });
    assert_eq!((full.tokens.len(), full.reason), (32 - 3 + 1, Some(StopReason::Context)));
    let nothing = one(&Request { max_new_tokens: 0, score_prompt: true, ..greedy.clone() });
    assert_eq!((nothing.prompt.len(), nothing.tokens.len(), nothing.reason), (3, 0, Some(StopReason::MaxNewTokens)));
    // What cannot be.
    let mut engine = Engine::new(&model, &tokenizer, ALL);
    assert!(matches!(engine.add(Request::default()), Err(InferError::EmptyPrompt)));
    assert!(matches!(engine.add(Request { prompt: vec![5000], ..greedy.clone() }), Err(InferError::NoToken { id: 5000, .. })));
    let long = Request { prompt: vec![5; 32], ..greedy.clone() };
    assert!(matches!(engine.add(long.clone()), Err(InferError::LongPrompt { found: 32, context_len: 32 })));
    engine.add(Request { max_new_tokens: 0, ..long }).unwrap();
}

#[test]
fn a_prompt_that_has_been_read_is_not_read_again_and_nothing_is_left_behind() {
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let request =
        |last: u32| Request { prompt: [&[7; 20][..], &[last]].concat(), max_new_tokens: 3, ignore_end: true, ..Request::default() };
    let mut engine = Engine::new(&model, &tokenizer, EngineLimits { n_tokens_a_step: 8, n_tokens_kept: 64, ..ALL });
    let steps = |engine: &mut Engine<'_>, requests: &[u32]| {
        for last in requests {
            engine.add(request(*last)).unwrap();
        }
        let mut n = 0;
        while engine.n_requests() != (0, 0) {
            engine.step();
            n += 1;
        }
        n
    };
    // 21 tokens are read in three steps, then two more are drawn.
    assert_eq!(steps(&mut engine, &[1]), 5);
    // All but the last token is known.
    assert_eq!(steps(&mut engine, &[2]), 3);
    // Others wait for the one that is being read, and then begin with the last token: more than an eighth of the steps they would take alone.
    let mut fresh = Engine::new(&model, &tokenizer, EngineLimits { n_tokens_a_step: 8, n_tokens_kept: 64, ..ALL });
    assert_eq!(steps(&mut fresh, &[1, 2, 3, 4, 5]), 6);
    // A request that is not wanted any more leaves nothing behind.
    let before = fresh.n_tokens_held();
    let id = fresh.add(Request { prompt: vec![9; 20], ..request(9) }).unwrap();
    fresh.step();
    assert!(fresh.n_tokens_held() > before);
    fresh.cancel(id);
    assert_eq!((fresh.n_requests(), fresh.step().len(), fresh.n_tokens_held()), ((0, 0), 0, before));
    // What has been read is kept, up to its limit.
    assert!(before > 0 && before <= 64, "{before}");
}
