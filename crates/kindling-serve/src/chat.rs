//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kindling_infer::{Event, Message, Request, TokenScore};
use kindling_tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Body, MOST_LIKELIEST, Writing, check_texts, max_new_tokens, out_of_range};
use crate::completions::fresh_id;
use crate::error::ApiError;
use crate::job::{Asked, Chunks, Job, Turn, finish_reason, stream_of};
use crate::log::Entry;
use crate::{Shared, logprobs};

#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    messages: Vec<Said>,
    #[serde(default)]
    max_tokens: Option<usize>,
    #[serde(default)]
    max_completion_tokens: Option<usize>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<usize>,
    #[serde(flatten)]
    writing: Writing,
}

#[derive(Debug, Deserialize)]
struct Said {
    role: String,
    content: Content,
}

/// A text, or parts of one.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected the content of a message: a text, or a list of parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

impl Content {
    fn into_text(self) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Parts(parts) => match parts.iter().find(|part| part.kind != "text") {
                None => Ok(parts.into_iter().map(|part| part.text).collect()),
                Some(part) => Err(ApiError::invalid(Some("messages"), format!("a part of a message is `{}`, expected `text`", part.kind))),
            },
        }
    }
}

pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Extension(entry): Extension<Entry>,
    Body(request): Body<ChatRequest>,
) -> Result<Response, ApiError> {
    say(&shared, entry, request).await
}

async fn say(shared: &Shared, entry: Entry, request: ChatRequest) -> Result<Response, ApiError> {
    let served = shared.model(request.writing.model.as_deref())?;
    let tells = request.logprobs.unwrap_or(false);
    if let Some(n) = request.top_logprobs.filter(|n| *n > MOST_LIKELIEST || !tells) {
        return Err(out_of_range("top_logprobs", n, &format!("at most {MOST_LIKELIEST}, with `logprobs`")));
    }
    if request.messages.is_empty() {
        return Err(ApiError::invalid(Some("messages"), "`messages` is empty, expected at least one"));
    }
    let messages = request.messages.into_iter().map(|said| Ok(Message { role: said.role, content: said.content.into_text()? }));
    let messages = messages.collect::<Result<Vec<_>, ApiError>>()?;
    let ids = served.template.ids(&served.tokenizer, &messages).map_err(|error| ApiError::of(&error, "messages"))?;
    // As much as there is room for.
    let room = (served.context_len + 1).saturating_sub(ids.len()).max(1);
    let max_new_tokens = max_new_tokens(request.max_completion_tokens.or(request.max_tokens), room, &shared.options)?;
    let (n, id, n_prompt) = (request.writing.n()?, fresh_id("chatcmpl"), ids.len());
    check_texts(n, &shared.options)?;
    let stream = request.writing.stream.unwrap_or(false);
    let asked = Asked { id: id.text.clone(), stream, n_prompt, param: "messages", entry };
    let turn = Turn::take(shared, served, &asked, n)?;
    let base = request.writing.request(max_new_tokens, served, id.seed, turn.until).await?;
    let n_likeliest = tells.then_some(request.top_logprobs.unwrap_or(0));
    let requests =
        (0..n as u64).map(|choice| Request { prompt: ids.clone(), seed: base.seed.wrapping_add(choice), n_likeliest, ..base.clone() });
    let mut job = Job::start(shared, served, requests.collect(), asked, turn)?;
    if stream {
        let chunks = ChatChunks {
            about: json!({ "id": id.text, "object": "chat.completion.chunk", "created": id.created, "model": served.name }),
            n,
            tells,
            usage: request.writing.includes_usage(),
            tokenizer: served.tokenizer.clone(),
        };
        return Ok(stream_of(job, chunks));
    }
    let choices = job.all().await?.into_iter().enumerate().map(|(index, written)| {
        let told = tells.then(|| logprobs::of_chat(&served.tokenizer, &written.tokens));
        let message = json!({ "role": "assistant", "content": written.text, "refusal": null });
        json!({ "index": index, "message": message, "logprobs": told, "finish_reason": written.reason.map(finish_reason) })
    });
    let choices: Vec<Value> = choices.collect();
    let body = json!({
        "id": id.text, "object": "chat.completion", "created": id.created, "model": served.name, "choices": choices, "usage": job.usage()
    });
    Ok(Json(body).into_response())
}

struct ChatChunks {
    about: Value,
    n: usize,
    tells: bool,
    usage: bool,
    tokenizer: Arc<Tokenizer>,
}

impl ChatChunks {
    fn chunk(&self, choices: Value, usage: Value) -> Value {
        let mut chunk = self.about.clone();
        chunk["choices"] = choices;
        if self.usage {
            chunk["usage"] = usage;
        }
        chunk
    }

    fn one(&self, number: usize, delta: &Value, scores: &[TokenScore], reason: Option<&str>) -> Value {
        let told = (self.tells && !scores.is_empty()).then(|| logprobs::of_chat(&self.tokenizer, scores));
        self.chunk(json!([{ "index": number, "delta": delta, "logprobs": told, "finish_reason": reason }]), Value::Null)
    }
}

impl Chunks for ChatChunks {
    fn first(&mut self) -> Vec<Value> {
        (0..self.n).map(|number| self.one(number, &json!({ "role": "assistant", "content": "" }), &[], None)).collect()
    }

    fn of(&mut self, number: usize, event: Event) -> Vec<Value> {
        match event {
            Event::Token { text, score } => vec![self.one(number, &json!({ "content": text }), &[score], None)],
            Event::Ended { text, reason } => {
                let held = (!text.is_empty()).then(|| self.one(number, &json!({ "content": text }), &[], None));
                held.into_iter().chain([self.one(number, &json!({}), &[], Some(finish_reason(reason)))]).collect()
            }
            Event::Prompt(_) | Event::Failed(_) => Vec::new(),
        }
    }

    fn last(&mut self, usage: Value) -> Vec<Value> {
        if self.usage { vec![self.chunk(json!([]), usage)] } else { Vec::new() }
    }
}
