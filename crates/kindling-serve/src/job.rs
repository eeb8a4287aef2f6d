//! The texts of one request, from the engine to whoever asked: all at once, or as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use kindling_infer::{Event, Request, StopReason, TokenScore};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use crate::error::ApiError;
use crate::log::{Entry, SaidRecord};
use crate::worker::{Place, Told};
use crate::{Served, Shared};

/// Texts that are being written.
pub(crate) struct Job {
    events: UnboundedReceiver<(usize, Event)>,
    n_left: usize,
    until: Instant,
    n_new: usize,
    asked: Asked,
    logs_texts: bool,
}

/// What texts are asked for.
pub(crate) struct Asked {
    /// What the answer is called.
    pub(crate) id: String,
    pub(crate) stream: bool,
    /// Tokens of prompts, each prompt once.
    pub(crate) n_prompt: usize,
    /// What a prompt is called in the request.
    pub(crate) param: &'static str,
    pub(crate) entry: Entry,
}

/// Places in the queue, and when what is asked for must be there.
pub(crate) struct Turn {
    places: Vec<Place>,
    pub(crate) until: Instant,
}

impl Turn {
    /// For so many texts. Whoever gets none has been told of as well.
    pub(crate) fn take(shared: &Shared, served: &Served, asked: &Asked, n_texts: usize) -> Result<Self, ApiError> {
        asked.entry.note(|record| {
            (record.id, record.model, record.stream) = (Some(asked.id.clone()), Some(served.name.clone()), asked.stream);
            (record.texts, record.prompt_tokens) = (n_texts, asked.n_prompt);
        });
        Ok(Self { places: served.worker.places(n_texts)?, until: Instant::now() + shared.options.timeout })
    }
}

/// What came of one text.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) prompt: Vec<TokenScore>,
    pub(crate) text: String,
    pub(crate) tokens: Vec<TokenScore>,
    pub(crate) reason: Option<StopReason>,
}

impl Job {
    /// Asks a model for texts, each of which has a place.
    pub(crate) fn start(shared: &Shared, served: &Served, requests: Vec<Request>, asked: Asked, turn: Turn) -> Result<Self, ApiError> {
        let logs_texts = shared.options.logs_texts;
        if logs_texts {
            let mut said = Vec::<SaidRecord>::new();
            for (i, request) in requests.iter().enumerate() {
                let prompt = match said.last() {
                    Some(last) if requests[i - 1].prompt == request.prompt => last.prompt.clone(),
                    _ => served.tokenizer.decode_lossy(&request.prompt).unwrap_or_default(),
                };
                said.push(SaidRecord { prompt, text: String::new() });
            }
            asked.entry.note(|record| record.said = said);
        }
        for request in &requests {
            request.check(served.context_len, served.tokenizer.vocab_size()).map_err(|error| ApiError::of(&error, asked.param))?;
        }
        let (told, events) = unbounded_channel();
        let n_left = requests.len();
        for (number, (request, place)) in requests.into_iter().zip(turn.places).enumerate() {
            served.worker.write(request, Told { number, events: told.clone(), _place: place })?;
        }
        Ok(Self { events, n_left, until: turn.until, n_new: 0, asked, logs_texts })
    }

    /// The next event of a text, none of which is a failure; none when all have ended.
    pub(crate) async fn next(&mut self) -> Result<Option<(usize, Event)>, ApiError> {
        if self.n_left == 0 {
            return Ok(None);
        }
        let (number, event) = timeout_at(self.until, self.events.recv())
            .await
            .map_err(|_| ApiError::timeout())?
            .ok_or_else(|| ApiError::internal("the model has stopped"))?;
        match &event {
            Event::Token { text, .. } => {
                self.n_new += 1;
                self.note_new(number, text);
            }
            Event::Ended { text, .. } => {
                self.n_left -= 1;
                self.note_new(number, text);
            }
            Event::Failed(error) => return Err(ApiError::of(error, self.asked.param)),
            Event::Prompt(_) => {}
        }
        Ok(Some((number, event)))
    }

    fn note_new(&self, number: usize, text: &str) {
        let Self { asked: Asked { entry, .. }, n_new, logs_texts, .. } = self;
        entry.note(|record| {
            record.new_tokens = *n_new;
            if *n_new == 1 {
                record.first_token_ms.get_or_insert_with(|| entry.elapsed().as_millis() as u64);
            }
            if *logs_texts {
                record.said[number].text += text;
            }
        });
    }

    /// All texts, when all have ended.
    pub(crate) async fn all(&mut self) -> Result<Vec<Written>, ApiError> {
        let mut all: Vec<Written> = (0..self.n_left).map(|_| Written::default()).collect();
        while let Some((number, event)) = self.next().await? {
            let one = &mut all[number];
            match event {
                Event::Prompt(scores) => one.prompt.extend(scores),
                Event::Token { text, score } => {
                    one.text += &text;
                    one.tokens.push(score);
                }
                Event::Ended { text, reason } => {
                    one.text += &text;
                    one.reason = Some(reason);
                }
                Event::Failed(_) => {}
            }
        }
        Ok(all)
    }

    /// How much was computed, as OpenAI tells it.
    pub(crate) fn usage(&self) -> Value {
        let (n_prompt, n_new) = (self.asked.n_prompt, self.n_new);
        json!({ "prompt_tokens": n_prompt, "completion_tokens": n_new, "total_tokens": n_prompt + n_new })
    }
}

impl Drop for Job {
    /// Who does not wait for the end has left.
    fn drop(&mut self) {
        if self.n_left > 0 {
            self.asked.entry.note(|record| record.error = record.error.or(Some("left")));
        }
    }
}

/// Why a text ended, as OpenAI calls it.
pub(crate) fn finish_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::EndOfText | StopReason::StopText => "stop",
        StopReason::MaxNewTokens | StopReason::Context => "length",
    }
}

/// Makes the chunks of a stream: of an event of a text those to send, and of the end those that come last.
pub(crate) trait Chunks: Send + 'static {
    fn first(&mut self) -> Vec<Value> {
        Vec::new()
    }
    fn of(&mut self, number: usize, event: Event) -> Vec<Value>;
    fn last(&mut self, usage: Value) -> Vec<Value>;
}

/// A stream of a job. A client that leaves drops it, and with it the job.
pub(crate) fn stream_of(job: Job, mut chunks: impl Chunks) -> Response {
    struct State<C> {
        job: Job,
        chunks: C,
        ready: std::collections::VecDeque<String>,
        is_over: bool,
    }
    let ready = chunks.first().iter().map(Value::to_string).collect();
    let state = State { job, chunks, ready, is_over: false };
    let events = stream::unfold(state, move |mut state| async move {
        loop {
            if let Some(data) = state.ready.pop_front() {
                return Some((Ok::<_, Infallible>(sse::Event::default().data(data)), state));
            }
            if state.is_over {
                return None;
            }
            match state.job.next().await {
                Ok(Some((number, event))) => state.ready.extend(state.chunks.of(number, event).iter().map(Value::to_string)),
                Ok(None) => {
                    let usage = state.job.usage();
                    state.ready.extend(state.chunks.last(usage).iter().map(Value::to_string));
                    state.ready.push_back("[DONE]".into());
                    state.is_over = true;
                }
                Err(error) => {
                    state.job.asked.entry.note(|record| record.error = Some(error.name()));
                    state.ready.push_back(error.body().to_string());
                    state.is_over = true;
                }
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}
