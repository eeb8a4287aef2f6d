//! What is counted, for Prometheus.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::Shared;
use crate::error::ApiError;

type Labels = Vec<(&'static str, String)>;

/// All that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    /// Of prompts, read or known.
    pub(crate) prompt_tokens: Counter,
    /// Of what was written.
    pub(crate) new_tokens: Counter,
    /// Texts that wait or are written.
    pub(crate) in_flight: Gauge<i64, AtomicI64>,
    /// From a request to its first token.
    pub(crate) first_token: Histogram,
    /// From one token to the next.
    pub(crate) between_tokens: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("kindling");
        let (requests, prompt_tokens, new_tokens) = (Family::<Labels, Counter>::default(), Counter::default(), Counter::default());
        let in_flight = Gauge::default();
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let (first_token, between_tokens) = (seconds(), seconds());
        registry.register("requests", "Requests by their route and how they were answered", requests.clone());
        registry.register("prompt_tokens", "Tokens of prompts", prompt_tokens.clone());
        registry.register("new_tokens", "Tokens that were written", new_tokens.clone());
        registry.register("texts_in_flight", "Texts that wait or are being written", in_flight.clone());
        registry.register_with_unit("first_token", "From a request to its first token", Unit::Seconds, first_token.clone());
        registry.register_with_unit("between_tokens", "From a token to the next", Unit::Seconds, between_tokens.clone());
        Self { registry, requests, prompt_tokens, new_tokens, in_flight, first_token, between_tokens }
    }
}

/// Counts a request by its route and by how it is answered; of a stream by how it begins.
pub(crate) async fn count(State(shared): State<Arc<Shared>>, route: MatchedPath, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let labels = vec![("endpoint", route.as_str().to_owned()), ("status", response.status().as_u16().to_string())];
    shared.metrics.requests.get_or_create(&labels).inc();
    response
}

/// `GET /metrics`.
pub(crate) async fn answer(State(shared): State<Arc<Shared>>) -> Result<impl IntoResponse, ApiError> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &shared.metrics.registry)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
