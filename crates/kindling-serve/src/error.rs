//! What is wrong with a request, in OpenAI's shape.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kindling_infer::InferError;
use serde_json::{Value, json};

/// What an answer that is none is called, beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorName(pub(crate) &'static str);

/// An answer that is none.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind: "invalid_request_error", param: None, code: None }
    }

    /// A request that cannot be understood, or not be done.
    pub(crate) fn invalid(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    pub(crate) fn no_model(message: &str) -> Self {
        Self { code: Some("model_not_found"), ..Self::new(StatusCode::NOT_FOUND, message) }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "there is nothing here; see /v1/models")
    }

    pub(crate) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here")
    }

    pub(crate) fn too_large(most: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is too large, expected at most {most} bytes"))
    }

    pub(crate) fn no_key() -> Self {
        let message = "no or another API key, expected `Authorization: Bearer KEY`";
        Self { code: Some("invalid_api_key"), ..Self::new(StatusCode::UNAUTHORIZED, message) }
    }

    pub(crate) fn foreign(found: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            format!("the request is of a page of `{found}`, or calls this server so, expected its own address"),
        )
    }

    pub(crate) fn busy() -> Self {
        let message = "more is asked for than can wait; try again in a moment";
        Self { kind: "rate_limit_error", code: Some("rate_limit_exceeded"), ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    pub(crate) fn timeout() -> Self {
        Self { kind: "timeout", ..Self::new(StatusCode::REQUEST_TIMEOUT, "the request took longer than is allowed") }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { kind: "server_error", ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, message) }
    }

    /// What an engine says of a request.
    pub(crate) fn of(error: &InferError, param: &'static str) -> Self {
        match error {
            InferError::LongPrompt { .. } => {
                Self { code: Some("context_length_exceeded"), ..Self::invalid(Some(param), error.to_string()) }
            }
            // What comes of it while a text is written is no matter of the prompt.
            InferError::Grammar(_) if !matches!(param, "response_format" | "structured_outputs") => Self::invalid(None, error.to_string()),
            InferError::Sampling { key, .. } => Self::invalid(Some(key), error.to_string()),
            InferError::NotFinite(_) => Self::internal(error.to_string()),
            InferError::Prompt(source) => Self::invalid(Some(param), format!("the text cannot be encoded: {source}")),
            _ => Self::invalid(Some(param), error.to_string()),
        }
    }

    /// Its code, or else its kind.
    pub(crate) fn name(&self) -> &'static str {
        self.code.unwrap_or(self.kind)
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        response.extensions_mut().insert(ErrorName(self.name()));
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
