//! `POST /v1/embeddings`: the mean over the tokens of a text.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Shared;
use crate::api::{Body, OneOrMany};
use crate::error::ApiError;
use crate::log::{Entry, SaidRecord};

/// Texts at most.
const MOST_TEXTS: usize = 2048;

#[derive(Debug, Deserialize)]
pub(crate) struct EmbeddingRequest {
    input: OneOrMany,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
}

pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Extension(entry): Extension<Entry>,
    Body(request): Body<EmbeddingRequest>,
) -> Result<Json<Value>, ApiError> {
    embed(&shared, &entry, request).await.map(Json)
}

async fn embed(shared: &Shared, entry: &Entry, request: EmbeddingRequest) -> Result<Value, ApiError> {
    let served = shared.model(request.model.as_deref())?;
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(ApiError::invalid(
                Some("encoding_format"),
                format!("`encoding_format` is `{other}`, expected `float` or `base64`"),
            ));
        }
    };
    if request.dimensions.is_some() {
        return Err(ApiError::invalid(Some("dimensions"), "`dimensions` is given, expected none: vectors are as wide as the model"));
    }
    let texts = request.input.into_vec();
    if texts.is_empty() || texts.len() > MOST_TEXTS {
        return Err(ApiError::invalid(Some("input"), format!("`input` has {} texts, expected 1 to {MOST_TEXTS}", texts.len())));
    }
    let mut n_tokens = 0;
    for text in &texts {
        let ids = served.tokenizer.encode(text).map_err(|error| ApiError::invalid(Some("input"), error.to_string()))?;
        if ids.is_empty() || ids.len() >= served.context_len {
            let expected = format!("a text in `input` has {} tokens, expected 1 to {}", ids.len(), served.context_len - 1);
            return Err(ApiError::invalid(Some("input"), expected));
        }
        n_tokens += ids.len();
    }
    entry.note(|record| {
        (record.model, record.texts, record.prompt_tokens) = (Some(served.name.clone()), texts.len(), n_tokens);
        if shared.options.logs_texts {
            record.said = texts.iter().map(|text| SaidRecord { prompt: text.clone(), text: String::new() }).collect();
        }
    });
    let place = served.worker.places(1)?.remove(0);
    let vectors =
        tokio::time::timeout(shared.options.timeout, served.worker.embed(texts, place)).await.map_err(|_| ApiError::timeout())??;
    let data = vectors.into_iter().enumerate().map(|(index, vector)| {
        let embedding = if base64 { json!(in_base64(&vector)) } else { json!(vector) };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    });
    let data: Vec<Value> = data.collect();
    let usage = json!({ "prompt_tokens": n_tokens, "total_tokens": n_tokens });
    Ok(json!({ "object": "list", "data": data, "model": served.name, "usage": usage }))
}

/// As the official Python client asks for vectors: f32, the lowest byte first.
fn in_base64(vector: &[f32]) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
