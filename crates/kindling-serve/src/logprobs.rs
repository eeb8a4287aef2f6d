//! Likelihoods of tokens as OpenAI tells them.

use kindling_infer::TokenScore;
use kindling_tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// Of a completion: lists of tokens, of their likelihoods, of the likeliest, and of where each begins in the text, counted in characters
/// from `offset`, which is moved on.
pub(crate) fn of_completion(tokenizer: &Tokenizer, scores: &[TokenScore], offset: &mut usize) -> Value {
    let (mut tokens, mut log_probabilities, mut likeliest, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for score in scores {
        let text = text(tokenizer, score.id);
        let best: Map<String, Value> = score.likeliest.iter().map(|(id, nats)| (self::text(tokenizer, *id), json!(nats))).collect();
        offsets.push(*offset);
        *offset += text.chars().count();
        tokens.push(text);
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

/// The text of a token, with U+FFFD for what is no character by itself.
fn text(tokenizer: &Tokenizer, id: u32) -> String {
    String::from_utf8_lossy(tokenizer.token_bytes(id).unwrap_or_default()).into_owned()
}
