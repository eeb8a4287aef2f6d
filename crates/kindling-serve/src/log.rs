//! What is told of each request once it has been answered, for whoever runs the server.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use crate::Shared;
use crate::error::ErrorName;

/// How a request was answered. It holds nothing that was said, unless [`ServeOptions::logs_texts`](crate::ServeOptions::logs_texts).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RequestRecord {
    /// The route.
    pub endpoint: String,
    /// Of the answer; of a stream that of its beginning.
    pub status: u16,
    /// How it ended: what an error is called, or `left` where the client did not wait for the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// What the answer is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The model that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether the answer is a stream.
    pub stream: bool,
    /// Texts that were asked for.
    pub texts: usize,
    /// Tokens of prompts, each prompt once.
    pub prompt_tokens: usize,
    /// Tokens that were written.
    pub new_tokens: usize,
    /// Milliseconds to the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// Milliseconds to the end.
    pub ms: u64,
    /// Where it is asked for, what was said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<SaidRecord>,
}

/// A text of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SaidRecord {
    /// What it goes on from.
    pub prompt: String,
    /// What was written.
    pub text: String,
}

/// Who is told of each request.
#[derive(Clone)]
pub struct RequestLog(Arc<dyn Fn(&RequestRecord) + Send + Sync>);

impl RequestLog {
    /// Calls this with each, from any thread.
    pub fn new(tell: impl Fn(&RequestRecord) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestLog")
    }
}

/// The record of a request that is being answered. It is told when nobody answers it any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entry(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    log: RequestLog,
    began: Instant,
    record: Mutex<RequestRecord>,
}

impl Entry {
    /// Changes the record, if there is one.
    pub(crate) fn note(&self, change: impl FnOnce(&mut RequestRecord)) {
        if let Some(open) = &self.0 {
            change(&mut open.record());
        }
    }

    /// Since the request came.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |open| open.began.elapsed())
    }
}

impl Open {
    fn record(&self) -> MutexGuard<'_, RequestRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut record = self.record();
        if record.status == 0 {
            // Nobody has heard of it; 499 is what nginx calls that.
            (record.status, record.error) = if std::thread::panicking() { (500, Some("server_error")) } else { (499, Some("left")) };
        }
        record.ms = self.began.elapsed().as_millis() as u64;
        (self.log.0)(&record);
    }
}

/// Begins the record of a request, and notes how it is answered.
pub(crate) async fn record(State(shared): State<Arc<Shared>>, route: MatchedPath, mut request: Request, next: Next) -> Response {
    let log = shared.options.log.clone().filter(|_| route.as_str().starts_with("/v1/"));
    let entry = Entry(log.map(|log| {
        let record = Mutex::new(RequestRecord { endpoint: route.as_str().to_owned(), ..RequestRecord::default() });
        Arc::new(Open { log, began: Instant::now(), record })
    }));
    request.extensions_mut().insert(entry.clone());
    let response = next.run(request).await;
    entry.note(|record| {
        record.status = response.status().as_u16();
        // What was told is what went wrong, whatever became of the rest.
        record.error = response.extensions().get::<ErrorName>().map(|name| name.0).or(record.error);
    });
    response
}
