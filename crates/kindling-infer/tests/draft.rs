//! Speculative decoding changes how fast texts come, and nothing else: greedy texts are the same, others are distributed as before.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::collections::BTreeMap;

use kindling_infer::{Border, Engine, EngineLimits, Event, InferError, Request, Sampling, StopReason};
use kindling_model::Gpt;
use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, Tokenizer};
use support::far_from_uniform;

const LIMITS: EngineLimits = EngineLimits { n_running: 8, n_tokens_a_step: 64, n_tokens_kept: 64 };

fn tokenizer() -> Tokenizer {
    Tokenizer::Bpe(BpeTrainer::new(262).with_special_tokens(&[END_OF_TEXT]).train(&["the quick brown fox, the lazy dog"]).unwrap())
}

fn model(tokenizer: &Tokenizer, context_len: usize, seed: u64, factor: f32) -> Gpt {
    far_from_uniform(tokenizer.vocab_size(), context_len, 16, seed, factor)
}

/// Ids, text and reason of each request, how many steps it took, and how many tokens were proposed and kept.
#[expect(clippy::type_complexity, reason = "a tuple of a test")]
fn run(engine: Engine<'_>, requests: &[Request]) -> (Vec<(Vec<u32>, String, Option<StopReason>)>, usize, (u64, u64)) {
    let mut engine = engine;
    let ids: Vec<_> = requests.iter().map(|request| engine.add(request.clone()).unwrap()).collect();
    let mut all = vec![(Vec::new(), String::new(), None); ids.len()];
    let mut n_steps = 0;
    while engine.n_requests() != (0, 0) {
        n_steps += 1;
        for (id, event) in engine.step() {
            let one = &mut all[ids.iter().position(|other| *other == id).unwrap()];
            match event {
                Event::Token { text, score } => {
                    one.0.push(score.id);
                    one.1 += &text;
                }
                Event::Ended { text, reason } => {
                    one.1 += &text;
                    one.2 = Some(reason);
                }
                Event::Prompt(_) => {}
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }
    (all, n_steps, engine.n_proposed())
}

#[test]
fn greedy_texts_are_the_same_and_come_in_fewer_steps() {
    let tokenizer = tokenizer();
    let (model, other) = (model(&tokenizer, 48, 3, 12.0), model(&tokenizer, 40, 5, 12.0));
    let end = tokenizer.end_of_text().unwrap();
    let request = |i: usize| Request {
        prompt: [end].into_iter().chain(tokenizer.encode(&"the quick brown fox"[..4 + 3 * i]).unwrap()).collect(),
        sampling: Sampling { temperature: 0.0, repetition_penalty: 1.2, ..Sampling::default() },
        max_new_tokens: 12 + 5 * i,
        stop: if i == 2 { vec!["e".into()] } else { Vec::new() },
        n_likeliest: Some(2),
        ignore_end: i == 1,
        // Over the border of both contexts.
        border: if i == 4 { Border::Slide } else { Border::Stop },
        ..Request::default()
    };
    let mut requests: Vec<Request> = (0..5).map(request).collect();
    requests[4].max_new_tokens = 120;
    requests[4].ignore_end = true;
    let engine = || Engine::new(&model, &tokenizer, LIMITS);
    let (expected, n_alone, _) = run(engine(), &requests);
    for (draft, n_tokens) in [(&model, 1), (&model, 4), (&other, 3), (&other, 7)] {
        let (found, n_steps, (n_proposed, n_kept)) = run(engine().with_draft(draft, n_tokens).unwrap(), &requests);
        assert_eq!(found, expected);
        assert!(n_proposed > 0 && n_kept <= n_proposed);
        if std::ptr::eq(draft, &model) {
            // Its own proposals are kept, but for those behind an end, or where the sliding context has begun anew.
            assert!(n_steps <= n_alone / n_tokens.min(3) + 8, "{n_steps} steps, {n_alone} without");
            assert!(n_kept as f64 > 0.9 * n_proposed as f64, "{n_kept} of {n_proposed}");
        }
    }
}

#[test]
fn texts_are_distributed_as_without_proposals() {
    let tokenizer = tokenizer();
    // Far enough from each other that many of the proposals are refused, and near enough to uniform that many pairs of tokens come.
    let (model, other) = (model(&tokenizer, 16, 3, 4.0), model(&tokenizer, 16, 3, 1.5));
    let end = tokenizer.end_of_text().unwrap();
    let sampling = Sampling { temperature: 1.3, top_k: 6, repetition_penalty: 1.5, ..Sampling::default() };
    const N: u64 = 6_000;
    let requests = |from: u64| -> Vec<Request> {
        let one = |seed| Request {
            prompt: vec![end],
            sampling: sampling.clone(),
            seed: from + seed,
            max_new_tokens: 3,
            ignore_end: true,
            ..Request::default()
        };
        (0..N).map(one).collect()
    };
    let count = |engine: Engine<'_>, from: u64| {
        let (found, _, proposed) = run(engine, &requests(from));
        let mut counts = BTreeMap::<Vec<u32>, f64>::new();
        for (ids, ..) in found {
            assert_eq!(ids.len(), 3);
            *counts.entry(ids).or_default() += 1.0;
        }
        (counts, proposed)
    };
    let engine = || Engine::new(&model, &tokenizer, LIMITS);
    let (alone, _) = count(engine(), 0);
    let (again, _) = count(engine(), N);
    let (drafted, (n_proposed, n_kept)) = count(engine().with_draft(&other, 2).unwrap(), 2 * N);
    // Half of the sum of differences of both samples' shares.
    let distance = |a: &BTreeMap<Vec<u32>, f64>, b: &BTreeMap<Vec<u32>, f64>| {
        let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
        keys.iter().map(|key| (a.get(*key).unwrap_or(&0.0) - b.get(*key).unwrap_or(&0.0)).abs()).sum::<f64>() / (2.0 * N as f64)
    };
    let (by_chance, found) = (distance(&alone, &again), distance(&alone, &drafted));
    let wrong = {
        // What a sampler would draw that keeps all proposals.
        let (of_other, _) = count(Engine::new(&other, &tokenizer, LIMITS), 3 * N);
        distance(&alone, &of_other)
    };
    println!(
        "{} texts, distance {by_chance:.4} by chance, {found:.4} with proposals, {wrong:.4} of the other; kept {n_kept} of {n_proposed}",
        alone.len()
    );
    assert!(n_kept * 10 > n_proposed && n_kept * 10 < n_proposed * 9, "{n_kept} of {n_proposed}");
    assert!(found < by_chance * 1.15 && wrong > 2.0 * by_chance, "{found} beside {by_chance}, {wrong} of the other");
}

#[test]
fn what_others_do_changes_no_text() {
    let tokenizer = tokenizer();
    let (model, other) = (model(&tokenizer, 64, 3, 8.0), model(&tokenizer, 64, 8, 8.0));
    let end = tokenizer.end_of_text().unwrap();
    let request = |seed| Request { prompt: vec![end; 1 + seed as usize % 3], seed, max_new_tokens: 30, ..Request::default() };
    let engine = || Engine::new(&model, &tokenizer, LIMITS).with_draft(&other, 3).unwrap();
    let alone: Vec<_> = (0..6).map(|seed| run(engine(), &[request(seed)]).0.remove(0)).collect();
    let (together, ..) = run(engine(), &(0..6).map(request).collect::<Vec<_>>());
    assert_eq!(together, alone);
}

#[test]
fn a_smaller_model_knows_all_tokens() {
    let tokenizer = tokenizer();
    let (model, small) = (model(&tokenizer, 16, 1, 1.0), far_from_uniform(20, 16, 16, 1, 1.0));
    let error = Engine::new(&model, &tokenizer, LIMITS).with_draft(&small, 2).unwrap_err();
    assert!(matches!(error, InferError::Vocabulary { model: 20, .. }), "{error}");
}
