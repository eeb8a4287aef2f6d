//! What requests of text have in common: how they are read, and what of them an engine is asked for.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use kindling_infer::{Constraint, Grammar, InferError, Request, Sampling};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::error::ApiError;
use crate::{ServeOptions, Served, Shared};

/// Texts of one prompt at most.
const MOST_CHOICES: usize = 128;
/// Likelihoods that are told with a token at most.
pub(crate) const MOST_LIKELIEST: usize = 20;
/// Stop texts at most.
const MOST_STOPS: usize = 16;

/// A body of JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: axum::extract::Request, state: &Arc<Shared>) -> Result<Self, ApiError> {
        let most = state.options.max_body_bytes;
        let read = timeout(state.options.timeout, Bytes::from_request(request, state)).await.map_err(|_| ApiError::timeout())?;
        let bytes = read.map_err(|error: BytesRejection| {
            let status = error.into_response().status();
            if status == StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::too_large(most)
            } else {
                ApiError::invalid(None, "the body cannot be read")
            }
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| ApiError::invalid(None, format!("the body is not as expected: {error}")))
    }
}

/// One or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, or a list of texts")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// How text is to be written. Keys beside OpenAI's: `top_k`, `min_p`, `typical_p`, `repetition_penalty`, `ignore_eos`, `stop_token_ids`,
/// `structured_outputs`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Writing {
    #[serde(default)]
    pub(crate) model: Option<String>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    min_p: Option<f64>,
    #[serde(default)]
    typical_p: Option<f64>,
    #[serde(default)]
    repetition_penalty: Option<f64>,
    #[serde(default)]
    presence_penalty: Option<f64>,
    #[serde(default)]
    frequency_penalty: Option<f64>,
    #[serde(default)]
    logit_bias: Option<HashMap<String, f64>>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    stop: Option<OneOrMany>,
    #[serde(default)]
    stop_token_ids: Option<Vec<u32>>,
    #[serde(default)]
    ignore_eos: Option<bool>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    structured_outputs: Option<StructuredOutputs>,
    #[serde(default)]
    n: Option<usize>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    pub(crate) stream_options: Option<StreamOptions>,
}

/// What a text has to be, as OpenAI has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema { json_schema: NamedSchema },
}

/// A schema, with a name and more that says nothing here.
#[derive(Clone, Debug, Deserialize)]
struct NamedSchema {
    schema: Value,
}

/// What a text has to be, as vLLM has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StructuredOutputs {
    Json(Value),
    Regex(String),
    Choice(Vec<String>),
}

/// What a stream has beside text.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub(crate) include_usage: bool,
}

impl Writing {
    /// Texts of each prompt.
    pub(crate) fn n(&self) -> Result<usize, ApiError> {
        let n = self.n.unwrap_or(1);
        if (1..=MOST_CHOICES).contains(&n) { Ok(n) } else { Err(out_of_range("n", n, &format!("1 to {MOST_CHOICES}"))) }
    }

    /// Whether the usage ends a stream.
    pub(crate) fn includes_usage(&self) -> bool {
        self.stream_options.unwrap_or_default().include_usage
    }

    /// What an engine is asked for, but for the prompt and what is told of likelihoods. `seed` is for a request without one, and `until` when
    /// that must be known.
    pub(crate) async fn request(&self, max_new_tokens: usize, served: &Served, seed: u64, until: Instant) -> Result<Request, ApiError> {
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            // −1 is how others turn it off.
            top_k: usize::try_from(self.top_k.unwrap_or(0)).unwrap_or(0),
            min_p: self.min_p.unwrap_or(0.0),
            typical_p: self.typical_p.unwrap_or(1.0),
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            logit_bias: self.biases(served)?,
        };
        sampling.check().map_err(|error| ApiError::of(&error, "sampling"))?;
        let stop = self.stop.clone().map_or_else(Vec::new, OneOrMany::into_vec);
        if stop.len() > MOST_STOPS {
            return Err(out_of_range("stop", stop.len(), &format!("at most {MOST_STOPS} texts")));
        }
        Ok(Request {
            sampling,
            seed: self.seed.map_or(seed, i64::cast_unsigned),
            max_new_tokens,
            stop,
            stop_tokens: self.stop_token_ids.clone().unwrap_or_default(),
            ignore_end: self.ignore_eos.unwrap_or(false),
            constraint: self.constraint(served, until).await?,
            ..Request::default()
        })
    }

    /// What the text has to be.
    async fn constraint(&self, served: &Served, until: Instant) -> Result<Option<Constraint>, ApiError> {
        let by_format = match &self.response_format {
            None | Some(ResponseFormat::Text) => None,
            Some(ResponseFormat::JsonObject) => Some(Grammar::json_object()),
            Some(ResponseFormat::JsonSchema { json_schema }) => Some(Grammar::JsonSchema(json_schema.schema.clone())),
        };
        let outputs = self.structured_outputs.clone().map(|outputs| match outputs {
            StructuredOutputs::Json(schema) => Grammar::JsonSchema(schema),
            StructuredOutputs::Regex(source) => Grammar::Regex(source),
            StructuredOutputs::Choice(choices) => Grammar::Choices(choices),
        });
        let (grammar, param) = match (by_format, outputs) {
            (None, None) => return Ok(None),
            (Some(grammar), None) => (grammar, "response_format"),
            (None, Some(grammar)) => (grammar, "structured_outputs"),
            (Some(_), Some(_)) => {
                let message = "both `response_format` and `structured_outputs` say what the text has to be, expected one of them";
                return Err(ApiError::invalid(Some("structured_outputs"), message));
            }
        };
        let Some(grammars) = served.grammars.clone() else { return Err(ApiError::of(&InferError::NoGrammars, param)) };
        // What compiles for long keeps no other request from being answered.
        let stopped = || ApiError::internal("a grammar could not be compiled");
        let turn = timeout_at(until, served.compiling.clone().acquire_owned()).await.map_err(|_| ApiError::timeout())?;
        let turn = turn.map_err(|_| stopped())?;
        let compile = move || {
            // Another one's turn comes when this has been compiled, whether anybody still waits for it or not.
            let _turn = turn;
            grammars.constraint(grammar)
        };
        let compiled = timeout_at(until, tokio::task::spawn_blocking(compile)).await.map_err(|_| ApiError::timeout())?;
        compiled.map_err(|_| stopped())?.map(Some).map_err(|error| ApiError::of(&error, param))
    }

    fn biases(&self, served: &Served) -> Result<Vec<(u32, f32)>, ApiError> {
        let Some(given) = &self.logit_bias else { return Ok(Vec::new()) };
        let bias = |(id, bias): (&String, &f64)| match id.parse::<u32>() {
            Ok(id) if (id as usize) < served.tokenizer.vocab_size() && (-100.0..=100.0).contains(bias) => Ok((id, *bias as f32)),
            _ => Err(out_of_range("logit_bias", format!("{id}: {bias}"), "ids of tokens with numbers from -100 to 100")),
        };
        let mut found = given.iter().map(bias).collect::<Result<Vec<_>, _>>()?;
        found.sort_unstable_by_key(|(id, _)| *id);
        Ok(found)
    }
}

pub(crate) fn out_of_range(key: &'static str, found: impl std::fmt::Display, expected: &str) -> ApiError {
    ApiError::invalid(Some(key), format!("`{key}` is {found}, expected {expected}"))
}

/// Whether so many texts can wait at all.
pub(crate) fn check_texts(n: usize, options: &ServeOptions) -> Result<(), ApiError> {
    let most = options.max_queue;
    if n <= most { Ok(()) } else { Err(ApiError::invalid(None, format!("{n} texts are asked for, expected at most {most} at once"))) }
}

/// New tokens that are allowed of those that are asked for.
pub(crate) fn max_new_tokens(asked: Option<usize>, default: usize, options: &ServeOptions) -> Result<usize, ApiError> {
    match asked {
        Some(asked) if asked > options.max_new_tokens => {
            Err(out_of_range("max_tokens", asked, &format!("at most {}, which this server allows", options.max_new_tokens)))
        }
        asked => Ok(asked.unwrap_or(default).min(options.max_new_tokens)),
    }
}
