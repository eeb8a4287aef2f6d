//! Who may ask.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::Shared;
use crate::error::ApiError;

/// Lets a request through that has the key, if there is one. The comparison takes as long whatever is wrong with a key of the right length.
pub(crate) async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if let Some(key) = &shared.options.api_key {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !given.is_some_and(|given| bool::from(given.ct_eq(key.as_bytes()))) {
            return ApiError::no_key().into_response();
        }
    }
    next.run(request).await
}
