//! Generation: streaming equals the whole, the cache changes nothing, also past the context's border.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::SamplingConfig;
use kindling_infer::{InferError, Sampler, Sampling, StopReason, generate};
use kindling_model::weights::{named_parameters, with_parameters};
use kindling_model::{Gpt, Pass};
use kindling_tokenizer::{BpeTrainer, CharVocab, END_OF_TEXT, Tokenizer};
use support::far_from_uniform;

const TEXT: &str = "größe, naïve 東京 and ascii text: the quick brown fox jumps over the lazy dog 🦊🦊";

/// A model far from uniform, with room for `tokenizer`'s ids and five more.
fn model(tokenizer: &Tokenizer, context_len: usize) -> Gpt {
    far_from_uniform(tokenizer.vocab_size() + 5, context_len, 16, 2, 15.0)
}

fn bytes_only() -> Tokenizer {
    Tokenizer::Bpe(BpeTrainer::new(257).with_special_tokens(&[END_OF_TEXT]).train(&[TEXT]).unwrap())
}

fn config(prompt: &str, max_new_tokens: usize, temperature: f64) -> SamplingConfig {
    SamplingConfig { prompt: prompt.into(), max_new_tokens, temperature, top_k: 0, top_p: 1.0 }
}

/// The ids that come from computing every context anew, without a cache, sliding as `generate` documents.
fn without_cache(model: &Gpt, tokenizer: &Tokenizer, config: &SamplingConfig, seed: u64) -> Vec<u32> {
    let context_len = model.config().context_len;
    let mut ids = vec![tokenizer.end_of_text().unwrap()];
    ids.extend(tokenizer.encode(&config.prompt).unwrap());
    let n_prompt = ids.len();
    let mut sampler = Sampler::new(Sampling::from(config), &ids, seed);
    let mut start = n_prompt.saturating_sub(context_len);
    for _ in 0..config.max_new_tokens {
        if ids.len() - start > context_len {
            start = ids.len() - context_len / 2;
        }
        let seen: Vec<i64> = ids[start..].iter().map(|id| i64::from(*id)).collect();
        let t = seen.len();
        let logits = model.forward(Tensor::<2, Int>::from_data(TensorData::new(seen, [1, t]), &Device::flex()), &Pass::default());
        let [_, _, v] = logits.dims();
        let last: Vec<f32> = logits.slice([0..1, t - 1..t, 0..v]).into_data().try_into_vec().unwrap();
        let distribution = sampler.distribution(&last[..tokenizer.vocab_size()], |_| true).unwrap();
        let id = sampler.draw(&distribution);
        if Some(id) == tokenizer.end_of_text() {
            break;
        }
        ids.push(id);
    }
    ids.split_off(n_prompt)
}

#[test]
fn the_cache_changes_nothing_within_the_context_and_past_its_border() {
    let tokenizer = bytes_only();
    let model = model(&tokenizer, 16);
    for (prompt, temperature) in [("a", 0.0), ("a", 1.0), ("a prompt that is longer than the context", 0.7), ("", 1.0)] {
        let config = config(prompt, 60, temperature);
        let text: String = generate(&model, &tokenizer, &config, 5).unwrap().map(Result::unwrap).collect();
        let expected = without_cache(&model, &tokenizer, &config, 5);
        assert_eq!(text, tokenizer.decode_lossy(&expected).unwrap(), "{prompt:?} at {temperature}");
    }
}

#[test]
fn the_seed_decides_and_the_last_reason_is_told() {
    let tokenizer = bytes_only();
    let model = model(&tokenizer, 16);
    let text = |seed| -> String { generate(&model, &tokenizer, &config("a", 30, 1.0), seed).unwrap().map(Result::unwrap).collect() };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));

    let config = config("a", 30, 1.0);
    let reasons: Vec<_> = (0..400)
        .map(|seed| {
            let mut generation = generate(&model, &tokenizer, &config, seed).unwrap();
            assert_eq!(generation.stop_reason(), None);
            generation.by_ref().for_each(|piece| drop(piece.unwrap()));
            assert!(generation.next().is_none());
            (generation.stop_reason().unwrap(), generation.n_new())
        })
        .collect();
    assert!(reasons.iter().all(|(reason, n)| *reason == StopReason::EndOfText || *n == 30), "{reasons:?}");
    assert!(reasons.iter().any(|(reason, _)| *reason == StopReason::MaxNewTokens));
    assert!(reasons.iter().any(|(reason, _)| *reason == StopReason::EndOfText), "{reasons:?}");
}

#[test]
fn a_prompt_that_cannot_be_expressed_or_is_missing_is_an_error() {
    let tokenizer = Tokenizer::Char(CharVocab::build(&["abc"], &[]));
    let model = model(&tokenizer, 16);
    assert!(matches!(generate(&model, &tokenizer, &config("", 5, 1.0), 1), Err(InferError::EmptyPrompt)));
    let error = generate(&model, &tokenizer, &config("abx", 5, 1.0), 1).unwrap_err();
    assert!(error.to_string().contains("`x`") && error.hint().is_some(), "{error}");
}

#[test]
fn logits_that_are_not_numbers_are_an_error() {
    let tokenizer = bytes_only();
    let model = model(&tokenizer, 16);
    let broken = named_parameters(&model).into_iter().map(|(name, mut tensor)| {
        if name == "final_norm.gamma" {
            tensor.values[3] = f32::NAN;
        }
        (name, tensor)
    });
    let broken = with_parameters(model.clone(), broken.collect(), std::path::Path::new("broken")).unwrap();
    let mut generation = generate(&broken, &tokenizer, &config("a", 5, 1.0), 1).unwrap();
    assert!(matches!(generation.next(), Some(Err(InferError::NotFinite(_)))));
    assert!(generation.next().is_none());
}
