//! Models behind HTTP: OpenAI's interface, metrics, and a page to talk to them. Trains nothing, opens no run, and reads no file.
//!
//! [`app`] makes a router of models; [`serve`] lets it answer until it is told to stop, and then finishes what runs. Each model has a thread of
//! its own with an [`Engine`](kindling_infer::Engine), which works on all of its requests at once.

mod api;
mod auth;
mod chat;
mod completions;
mod embeddings;
mod error;
mod job;
mod log;
mod logprobs;
mod metrics;
mod page;
mod worker;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kindling_infer::{ChatTemplate, EngineLimits, Grammars};
use kindling_model::Gpt;
use kindling_tokenizer::Tokenizer;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::error::ApiError;
pub use crate::log::{RequestLog, RequestRecord, SaidRecord};
use crate::metrics::Metrics;
use crate::worker::Worker;

/// A model that is served.
#[derive(Debug)]
pub struct ServedModel {
    /// What requests call it by.
    pub name: String,
    /// The model.
    pub model: Gpt,
    /// The tokenizer that it was trained with.
    pub tokenizer: Tokenizer,
    /// How messages become a text.
    pub template: ChatTemplate,
    /// A smaller model with the same tokens that proposes so many at a time.
    pub draft: Option<(Gpt, usize)>,
}

/// What is allowed.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// What a client has to know, as `Authorization: Bearer KEY`; without it anybody may ask.
    pub api_key: Option<String>,
    /// It listens at this machine's own address: without a key, only who calls it by such a one is answered.
    pub is_local: bool,
    /// Texts that a model may be asked for at once, those that are being written among them; more are refused with 429.
    pub max_queue: usize,
    /// New tokens of a text at most.
    pub max_new_tokens: usize,
    /// Bytes of a request's body at most.
    pub max_body_bytes: usize,
    /// How long a request may take, reading it and waiting included.
    pub timeout: Duration,
    /// How much of a model is computed at once.
    pub engine: EngineLimits,
    /// Who is told of each request.
    pub log: Option<RequestLog>,
    /// What was said is told, too.
    pub logs_texts: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            api_key: None,
            is_local: true,
            max_queue: 128,
            max_new_tokens: 4096,
            max_body_bytes: 1 << 20,
            timeout: Duration::from_secs(600),
            engine: EngineLimits::default(),
            log: None,
            logs_texts: false,
        }
    }
}

/// What handlers share.
struct Shared {
    models: Vec<Served>,
    options: ServeOptions,
    metrics: Arc<Metrics>,
    started: u64,
}

/// A model with what its handlers need of it.
struct Served {
    name: String,
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    /// None where the vocabulary can follow no grammar.
    grammars: Option<Arc<Grammars>>,
    /// Grammars are compiled one at a time, for each may take a while.
    compiling: Arc<Semaphore>,
    context_len: usize,
    worker: Worker,
}

impl Shared {
    /// The model of this name; without a name the first.
    fn model(&self, name: Option<&str>) -> Result<&Served, ApiError> {
        let found = match name {
            None => self.models.first(),
            Some(name) => self.models.iter().find(|model| model.name == name),
        };
        found.ok_or_else(|| {
            let known = self.models.iter().map(|model| format!("`{}`", model.name)).collect::<Vec<_>>().join(", ");
            ApiError::no_model(&format!("there is no model `{}`, expected one of {known}", name.unwrap_or_default()))
        })
    }
}

/// The router of some models. Their threads end when it is dropped.
///
/// # Panics
/// If no thread can be started, or a draft has fewer tokens than its model.
pub fn app(models: Vec<ServedModel>, options: ServeOptions) -> Router {
    let metrics = Arc::new(Metrics::new());
    let models = models
        .into_iter()
        .map(|ServedModel { name, model, tokenizer, template, draft }| {
            let has_all = |(draft, _): &(Gpt, usize)| draft.config().vocab_size >= tokenizer.vocab_size();
            assert!(draft.as_ref().is_none_or(has_all), "a draft knows all tokens of `{name}`");
            let (context_len, tokenizer) = (model.config().context_len, Arc::new(tokenizer));
            let worker = Worker::start(&name, (model, draft), tokenizer.clone(), &options, metrics.clone());
            let grammars = Grammars::new(&tokenizer).ok().map(Arc::new);
            Served { name, tokenizer, template, grammars, compiling: Arc::new(Semaphore::new(1)), context_len, worker }
        })
        .collect();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (max_body_bytes, shared) = (options.max_body_bytes, Arc::new(Shared { models, options, metrics, started }));
    let api = Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{name}", get(one))
        .route("/v1/completions", post(completions::answer))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/embeddings", post(embeddings::answer))
        .route("/metrics", get(metrics::answer))
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(middleware::from_fn_with_state(shared.clone(), auth::check))
        .route_layer(middleware::from_fn_with_state(shared.clone(), metrics::count))
        .route_layer(middleware::from_fn_with_state(shared.clone(), log::record));
    Router::new()
        .route("/", get(page::answer))
        .route("/health", get(health))
        .merge(api)
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .with_state(shared)
}

/// Answers at an address, on threads of its own, until `stop` is set, and then finishes what runs, for `grace` at most. `ready` hears where
/// it listens.
///
/// # Errors
/// An address that cannot be listened on; I/O.
pub fn serve_until(
    address: SocketAddr,
    app: Router,
    stop: &AtomicBool,
    grace: Duration,
    ready: impl FnOnce(SocketAddr),
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (stopped, has_stopped) = tokio::sync::oneshot::channel::<()>();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        ready(listener.local_addr()?);
        let server = serve(listener, app, async { has_stopped.await.unwrap_or_default() });
        let watch = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let _ = stopped.send(());
            // Whoever says nothing more, or reads nothing, keeps it no longer than that.
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            served = server => served,
            () = watch => Ok(()),
        }
    })
}

/// Answers until `stop` comes about, and then finishes what runs.
///
/// # Errors
/// I/O.
pub async fn serve(listener: tokio::net::TcpListener, app: Router, stop: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

/// Whether every model still takes requests.
async fn health(State(shared): State<Arc<Shared>>) -> Response {
    match shared.models.iter().find(|model| !model.worker.is_alive()) {
        None => Json(json!({ "status": "ok" })).into_response(),
        Some(model) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": format!("`{}` has stopped", model.name) }))).into_response()
        }
    }
}

fn described(shared: &Shared, model: &Served) -> serde_json::Value {
    json!({ "id": model.name, "object": "model", "created": shared.started, "owned_by": "kindling", "context_length": model.context_len })
}

async fn list(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let all: Vec<_> = shared.models.iter().map(|model| described(&shared, model)).collect();
    Json(json!({ "object": "list", "data": all }))
}

async fn one(
    State(shared): State<Arc<Shared>>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    Ok(Json(described(&shared, shared.model(Some(&name))?)))
}
