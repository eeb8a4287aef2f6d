//! `POST /v1/completions`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use kindling_infer::{Event, Request, prompt_ids};
use kindling_tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Body, MOST_LIKELIEST, Writing, check_texts, max_new_tokens, out_of_range};
use crate::error::ApiError;
use crate::job::{Asked, Chunks, Job, Turn, finish_reason, stream_of};
use crate::log::Entry;
use crate::{Shared, logprobs};

/// OpenAI's default.
const MAX_NEW_TOKENS: usize = 16;

#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    prompt: Prompt,
    #[serde(default)]
    max_tokens: Option<usize>,
    #[serde(default)]
    logprobs: Option<usize>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    suffix: Option<String>,
    #[serde(default)]
    best_of: Option<usize>,
    #[serde(flatten)]
    writing: Writing,
}

/// One text or several, or the ids of one or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a prompt: a text, ids of tokens, or a list of either")]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    ManyIds(Vec<Vec<u32>>),
}

impl Prompt {
    /// How many there are.
    fn len(&self) -> usize {
        match self {
            Self::Text(_) | Self::Ids(_) => 1,
            Self::Texts(all) => all.len(),
            Self::ManyIds(all) => all.len(),
        }
    }

    /// The ids of each prompt, and how many of them were put before what was given.
    fn ids(self, tokenizer: &Tokenizer) -> Result<Vec<(Vec<u32>, usize)>, ApiError> {
        let n_added = usize::from(tokenizer.end_of_text().is_some());
        let of_text = |text: String| Ok((prompt_ids(tokenizer, &text).map_err(|error| ApiError::of(&error, "prompt"))?, n_added));
        match self {
            Self::Text(text) => Ok(vec![of_text(text)?]),
            Self::Texts(texts) => texts.into_iter().map(of_text).collect(),
            Self::Ids(ids) => Ok(vec![(ids, 0)]),
            Self::ManyIds(all) => Ok(all.into_iter().map(|ids| (ids, 0)).collect()),
        }
    }
}

pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Extension(entry): Extension<Entry>,
    Body(request): Body<CompletionRequest>,
) -> Result<Response, ApiError> {
    complete(&shared, entry, request).await
}

async fn complete(shared: &Shared, entry: Entry, request: CompletionRequest) -> Result<Response, ApiError> {
    let served = shared.model(request.writing.model.as_deref())?;
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid(Some("suffix"), "`suffix` is given, expected none: these models write on from a prompt"));
    }
    let n = request.writing.n()?;
    if request.best_of.is_some_and(|best_of| best_of != n) {
        return Err(ApiError::invalid(Some("best_of"), format!("`best_of` is not `n`, {n}: all texts that are written are given back")));
    }
    if let Some(n) = request.logprobs.filter(|n| *n > MOST_LIKELIEST) {
        return Err(out_of_range("logprobs", n, &format!("at most {MOST_LIKELIEST}")));
    }
    let echo = request.echo.unwrap_or(false);
    let max_new_tokens = max_new_tokens(request.max_tokens, MAX_NEW_TOKENS, &shared.options)?;
    check_texts(request.prompt.len().saturating_mul(n), &shared.options)?;
    let prompts = request.prompt.ids(&served.tokenizer)?;
    if prompts.is_empty() {
        return Err(ApiError::invalid(Some("prompt"), "`prompt` is an empty list, expected a text, or ids of tokens"));
    }
    let id = fresh_id("cmpl");
    let (stream, n_prompt) = (request.writing.stream.unwrap_or(false), prompts.iter().map(|(ids, _)| ids.len()).sum());
    let asked = Asked { id: id.text.clone(), stream, n_prompt, param: "prompt", entry };
    let turn = Turn::take(shared, served, &asked, n * prompts.len())?;
    let base = request.writing.request(max_new_tokens, served, id.seed, turn.until).await?;
    let (mut requests, mut echoes) = (Vec::new(), Vec::new());
    for (ids, n_added) in &prompts {
        let one = Request {
            prompt: ids.clone(),
            n_likeliest: request.logprobs,
            score_prompt: echo && request.logprobs.is_some(),
            ..base.clone()
        };
        one.check(served.context_len, served.tokenizer.vocab_size()).map_err(|error| ApiError::of(&error, "prompt"))?;
        let said = if echo { &ids[*n_added..] } else { &[] };
        let text = served.tokenizer.decode_lossy(said).map_err(|error| ApiError::invalid(Some("prompt"), error.to_string()))?;
        for choice in 0..n as u64 {
            requests.push(Request { seed: base.seed.wrapping_add(choice), ..one.clone() });
            echoes.push(Echo { text: text.clone(), n_added: *n_added });
        }
    }
    let mut job = Job::start(shared, served, requests, asked, turn)?;
    let about = About { id: id.text, created: id.created, model: served.name.clone(), tells: request.logprobs.is_some() };
    if stream {
        let offsets = vec![0; echoes.len()];
        let usage = request.writing.includes_usage();
        let chunks = CompletionChunks { about, echoes, offsets, usage, tokenizer: served.tokenizer.clone() };
        return Ok(stream_of(job, chunks));
    }
    let written = job.all().await?;
    let choices = written.into_iter().zip(&echoes).enumerate().map(|(index, (written, echo))| {
        let mut offset = 0;
        let scores: Vec<_> = written.prompt.into_iter().skip(echo.n_added).chain(written.tokens).collect();
        let told = about.tells.then(|| logprobs::of_completion(&served.tokenizer, &scores, &mut offset));
        json!({ "text": format!("{}{}", echo.text, written.text), "index": index, "logprobs": told, "finish_reason": written.reason.map(finish_reason) })
    });
    let choices: Vec<Value> = choices.collect();
    let body = json!({
        "id": about.id, "object": "text_completion", "created": about.created, "model": about.model, "choices": choices, "usage": job.usage()
    });
    Ok(Json(body).into_response())
}

/// What stands before a text that repeats its prompt.
struct Echo {
    text: String,
    /// Tokens of the prompt that nobody gave.
    n_added: usize,
}

/// What each chunk says.
struct About {
    id: String,
    created: u64,
    model: String,
    tells: bool,
}

struct CompletionChunks {
    about: About,
    echoes: Vec<Echo>,
    offsets: Vec<usize>,
    usage: bool,
    tokenizer: Arc<Tokenizer>,
}

impl CompletionChunks {
    fn chunk(&self, choices: Value, usage: Value) -> Value {
        let About { id, created, model, .. } = &self.about;
        let mut chunk = json!({ "id": id, "object": "text_completion", "created": created, "model": model, "choices": choices });
        if self.usage {
            chunk["usage"] = usage;
        }
        chunk
    }

    fn one(&mut self, number: usize, text: &str, scores: &[kindling_infer::TokenScore], reason: Option<&str>) -> Value {
        let mut offset = self.offsets[number];
        let told = (self.about.tells && !scores.is_empty()).then(|| logprobs::of_completion(&self.tokenizer, scores, &mut offset));
        self.offsets[number] = offset;
        self.chunk(json!([{ "text": text, "index": number, "logprobs": told, "finish_reason": reason }]), Value::Null)
    }
}

impl Chunks for CompletionChunks {
    fn first(&mut self) -> Vec<Value> {
        // With likelihoods the prompt comes with these.
        let texts: Vec<(usize, String)> =
            self.echoes.iter().map(|echo| echo.text.clone()).enumerate().filter(|(_, text)| !text.is_empty()).collect();
        texts.into_iter().map(|(number, text)| self.one(number, &text, &[], None)).collect()
    }

    fn of(&mut self, number: usize, event: Event) -> Vec<Value> {
        match event {
            Event::Prompt(scores) => {
                let n = std::mem::take(&mut self.echoes[number].n_added).min(scores.len());
                vec![self.one(number, "", &scores[n..], None)]
            }
            Event::Token { text, score } => vec![self.one(number, &text, &[score], None)],
            Event::Ended { text, reason } => vec![self.one(number, &text, &[], Some(finish_reason(reason)))],
            Event::Failed(_) => Vec::new(),
        }
    }

    fn last(&mut self, usage: Value) -> Vec<Value> {
        if self.usage { vec![self.chunk(json!([]), usage)] } else { Vec::new() }
    }
}

/// What tells an answer from others, and what draws follow from where nobody says it.
pub(crate) struct FreshId {
    pub(crate) text: String,
    pub(crate) created: u64,
    pub(crate) seed: u64,
}

pub(crate) fn fresh_id(prefix: &str) -> FreshId {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = (now.as_nanos() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(n);
    FreshId { text: format!("{prefix}-{:x}{n:04x}", now.as_micros()), created: now.as_secs(), seed }
}
