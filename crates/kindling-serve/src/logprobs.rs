//! Likelihoods of tokens as OpenAI tells them.

use kindling_infer::TokenScore;
use kindling_tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// Of a completion: lists of tokens, of their likelihoods, of the likeliest, and of where each begins in the text, counted in characters
/// from `offset`, which is moved on; a character of several tokens begins with the first. The token itself is among the likeliest even where
/// it is not.
pub(crate) fn of_completion(tokenizer: &Tokenizer, scores: &[TokenScore], offset: &mut usize) -> Value {
    let (mut tokens, mut log_probabilities, mut likeliest, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for score in scores {
        let mut best = Map::new();
        for (id, nats) in score.likeliest.iter().copied().chain(score.log_probability.map(|nats| (score.id, nats))) {
            best.entry(text(tokenizer, id)).or_insert(json!(nats));
        }
        offsets.push(*offset);
        let bytes = tokenizer.token_bytes(score.id).unwrap_or_default();
        *offset += bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count();
        tokens.push(text(tokenizer, score.id));
        log_probabilities.push(score.log_probability);
        likeliest.push(if score.log_probability.is_some() { Value::Object(best) } else { Value::Null });
    }
    json!({ "tokens": tokens, "token_logprobs": log_probabilities, "top_logprobs": likeliest, "text_offset": offsets })
}

/// Of a chat: an object a token.
pub(crate) fn of_chat(tokenizer: &Tokenizer, scores: &[TokenScore]) -> Value {
    let one = |id: u32, nats: Option<f64>| json!({ "token": text(tokenizer, id), "logprob": nats, "bytes": tokenizer.token_bytes(id).unwrap_or_default() });
    let all = scores.iter().map(|score| {
        let mut token = one(score.id, score.log_probability);
        token["top_logprobs"] = score.likeliest.iter().map(|(id, nats)| one(*id, Some(*nats))).collect();
        token
    });
    json!({ "content": all.collect::<Vec<_>>(), "refusal": null })
}

/// The text of a token; where it is no whole characters, its bytes as OpenAI spells them, so that such tokens are told apart.
fn text(tokenizer: &Tokenizer, id: u32) -> String {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold("bytes:".to_owned(), |text, byte| format!("{text}\\x{byte:02x}")),
    }
}
