//! The interface: what is answered is what the model says, and what cannot be done is told in OpenAI's shape.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use burn::tensor::Device;
use kindling_config::{Dropout, ExamplesConfig, ModelConfig, Pooling, SamplingConfig, Seed};
use kindling_infer::{ChatTemplate, generate, prompt_ids};
use kindling_model::Gpt;
use kindling_model::weights::{named_parameters, with_parameters};
use kindling_serve::{ServeOptions, ServedModel, app};
use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, Tokenizer};
use serde_json::{Value, json};
use tower::ServiceExt;

const TEXT: &str = "user assistant: the quick brown fox jumps over the lazy dog, größe 🦊";

fn tokenizer() -> Tokenizer {
    Tokenizer::Bpe(BpeTrainer::new(280).with_special_tokens(&[END_OF_TEXT]).train(&[TEXT]).unwrap())
}

/// A model far from uniform.
fn model(tokenizer: &Tokenizer) -> Gpt {
    let config = ModelConfig {
        n_layers: 2,
        n_heads: 2,
        d_model: 24,
        d_ff: 48,
        context_len: 64,
        vocab_size: tokenizer.vocab_size(),
        bias: true,
        norm_eps: 1e-5,
        dropout: Dropout::NONE,
        n_classes: 0,
        pooling: Pooling::Last,
    };
    let model = Gpt::new(&config, Seed(4), &Device::flex());
    let scaled = named_parameters(&model).into_iter().map(|(name, mut tensor)| {
        tensor.values.iter_mut().for_each(|value| *value *= if tensor.shape.len() == 2 { 12.0 } else { 1.0 });
        (name, tensor)
    });
    with_parameters(model, scaled.collect(), std::path::Path::new("scaled")).unwrap()
}

fn server(options: ServeOptions) -> Router {
    let served = |name: &str| {
        let tokenizer = tokenizer();
        let template = ChatTemplate::of_examples(&ExamplesConfig::default()).unwrap();
        ServedModel { name: name.into(), model: model(&tokenizer), tokenizer, template }
    };
    app(vec![served("one"), served("two")], options)
}

async fn ask(app: &Router, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn post(app: &Router, path: &str, body: &Value) -> (StatusCode, Value) {
    let (status, text) = ask(app, "POST", path, body.to_string()).await;
    (status, serde_json::from_str(&text).unwrap())
}

async fn posted(app: &Router, path: &str, body: &Value) -> Value {
    let (status, value) = post(app, path, body).await;
    assert_eq!(status, StatusCode::OK, "{value}");
    value
}

/// The events of a stream, without the last.
async fn streamed(app: &Router, path: &str, body: &Value) -> Vec<Value> {
    let (status, text) = ask(app, "POST", path, body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let mut events: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{text}");
    events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[tokio::test]
async fn completions_are_what_the_model_writes() {
    let app = server(ServeOptions::default());
    let tokenizer = tokenizer();
    let model = model(&tokenizer);
    let config = SamplingConfig { prompt: "the quick".into(), max_new_tokens: 20, temperature: 0.0, top_k: 0, top_p: 1.0 };
    let expected: String = generate(&model, &tokenizer, &config, 0).unwrap().map(Result::unwrap).collect();
    let request = json!({ "model": "two", "prompt": "the quick", "max_tokens": 20, "temperature": 0, "user": "somebody" });
    let whole = posted(&app, "/v1/completions", &request).await;
    assert_eq!((whole["choices"][0]["text"].as_str(), whole["object"].as_str()), (Some(expected.as_str()), Some("text_completion")));
    let n_prompt = prompt_ids(&tokenizer, "the quick").unwrap().len();
    assert_eq!(whole["usage"]["prompt_tokens"], n_prompt);
    // As a stream, with the usage at its end.
    let mut stream = request.clone();
    stream["stream"] = json!(true);
    stream["stream_options"] = json!({ "include_usage": true });
    let events = streamed(&app, "/v1/completions", &stream).await;
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, expected);
    assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
    // Several prompts, several texts of each: the same seed writes the same, whatever is written beside it.
    let several = json!({ "prompt": ["the", "größe"], "n": 2, "seed": 5, "max_tokens": 12 });
    let both = posted(&app, "/v1/completions", &several).await;
    let texts: Vec<&str> = both["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 4);
    let alone = posted(&app, "/v1/completions", &json!({ "prompt": "größe", "seed": 6, "max_tokens": 12 })).await;
    assert_eq!(alone["choices"][0]["text"], texts[3]);
    // What stops a text is not shown.
    if let Some(stop) = expected.chars().nth(3) {
        let stopped = posted(
            &app,
            "/v1/completions",
            &json!({ "prompt": "the quick", "max_tokens": 20, "temperature": 0, "stop": stop.to_string() }),
        )
        .await;
        assert_eq!(stopped["choices"][0]["text"].as_str().unwrap(), &expected[..expected.find(stop).unwrap()]);
        assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    }
}

#[tokio::test]
async fn echoed_likelihoods_are_those_that_an_evaluation_needs() {
    let app = server(ServeOptions::default());
    let tokenizer = tokenizer();
    let ids = prompt_ids(&tokenizer, "the quick brown").unwrap();
    let request = json!({ "prompt": ids, "max_tokens": 1, "logprobs": 1, "echo": true, "temperature": 0 });
    let value = posted(&app, "/v1/completions", &request).await;
    let told = &value["choices"][0]["logprobs"];
    let nats: Vec<Option<f64>> = told["token_logprobs"].as_array().unwrap().iter().map(Value::as_f64).collect();
    assert_eq!((nats.len(), nats[0], told["tokens"].as_array().unwrap().len()), (ids.len() + 1, None, ids.len() + 1));
    let score = kindling_eval_score(&tokenizer, "the quick brown");
    let sum: f64 = nats[1..ids.len()].iter().map(|nats| nats.unwrap()).sum();
    assert!((sum + score).abs() < 1e-4, "{sum}, expected {}", -score);
    // The last is greedy, so it is the likeliest.
    let best = told["top_logprobs"][ids.len()].as_object().unwrap().values().next().unwrap().as_f64();
    assert_eq!(best, nats[ids.len()]);
    // Of a text, without the token that was put before it; the offsets are where tokens begin.
    let value =
        posted(&app, "/v1/completions", &json!({ "prompt": "the quick brown", "max_tokens": 0, "logprobs": 0, "echo": true })).await;
    assert_eq!(value["choices"][0]["text"], "the quick brown");
    let told = &value["choices"][0]["logprobs"];
    assert_eq!(told["tokens"].as_array().unwrap().len(), ids.len() - 1);
    assert_eq!((told["text_offset"][0].as_u64(), told["token_logprobs"][0].as_f64().is_some()), (Some(0), true));
}

/// The loss of a text in nats, all at once.
fn kindling_eval_score(tokenizer: &Tokenizer, text: &str) -> f64 {
    use burn::tensor::{Int, Tensor, TensorData};
    let ids = prompt_ids(tokenizer, text).unwrap();
    let n = ids.len() - 1;
    let seen: Vec<i64> = ids[..n].iter().map(|id| i64::from(*id)).collect();
    let seen = Tensor::<2, Int>::from_data(TensorData::new(seen, [1, n]), &Device::flex());
    let (nats, _) = model(tokenizer).score(seen, &(0..n).collect::<Vec<_>>(), &ids[1..], &kindling_model::Pass::default());
    nats.into_data().convert::<f32>().iter::<f32>().map(f64::from).sum()
}

#[tokio::test]
async fn chats_are_answered_behind_the_template() {
    let app = server(ServeOptions::default());
    let request = json!({
        "model": "one", "messages": [{ "role": "system", "content": "Be kind." }, { "role": "user", "content": [{ "type": "text", "text": "the fox" }] }],
        "max_tokens": 8, "temperature": 0, "logprobs": true, "top_logprobs": 2
    });
    let chat = posted(&app, "/v1/chat/completions", &request).await;
    let prompt = "system:\nBe kind.\n\nuser:\nthe fox\n\nassistant:\n";
    let text = posted(&app, "/v1/completions", &json!({ "prompt": prompt, "max_tokens": 8, "temperature": 0 })).await;
    assert_eq!(chat["choices"][0]["message"]["content"], text["choices"][0]["text"]);
    let told = chat["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(
        told.len() <= 8
            && told
                .iter()
                .all(|one| one["top_logprobs"].as_array().unwrap().len() == 2 && one["logprob"] == one["top_logprobs"][0]["logprob"])
    );
    let mut stream = request.clone();
    stream["stream"] = json!(true);
    let events = streamed(&app, "/v1/chat/completions", &stream).await;
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let said: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, chat["choices"][0]["message"]["content"].as_str().unwrap());
    assert!(events.last().unwrap()["choices"][0]["finish_reason"].is_string());
}

#[tokio::test]
async fn vectors_models_metrics_and_the_page() {
    let app = server(ServeOptions::default());
    let value = posted(&app, "/v1/embeddings", &json!({ "input": ["the fox", "größe"], "model": "one" })).await;
    assert_eq!((value["data"].as_array().unwrap().len(), value["data"][1]["embedding"].as_array().unwrap().len()), (2, 24));
    let coded = posted(&app, "/v1/embeddings", &json!({ "input": "the fox", "encoding_format": "base64" })).await;
    assert_eq!(coded["data"][0]["embedding"].as_str().unwrap().len(), 128, "24 values of four bytes");
    let (_, models) = ask(&app, "GET", "/v1/models", Body::empty()).await;
    assert!(models.contains("\"one\"") && models.contains("\"two\""), "{models}");
    assert_eq!(ask(&app, "GET", "/v1/models/two", Body::empty()).await.0, StatusCode::OK);
    assert_eq!(ask(&app, "GET", "/health", Body::empty()).await.1, "{\"status\":\"ok\"}");
    posted(&app, "/v1/completions", &json!({ "prompt": "a", "max_tokens": 3, "ignore_eos": true })).await;
    let (_, metrics) = ask(&app, "GET", "/metrics", Body::empty()).await;
    for expected in ["kindling_new_tokens_total 3", "kindling_texts_in_flight 0", "status=\"200\"", "kindling_first_token_seconds_count 1"]
    {
        assert!(metrics.contains(expected), "{expected} in {metrics}");
    }
    let (status, page) = ask(&app, "GET", "/", Body::empty()).await;
    assert!(status == StatusCode::OK && page.starts_with("<!doctype html>") && !page.contains("http://") && !page.contains("https://"));
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    let app = server(ServeOptions { max_new_tokens: 50, max_body_bytes: 4000, ..ServeOptions::default() });
    let completion = |key: &str, value: Value| {
        let mut body = json!({ "prompt": "the", "max_tokens": 3 });
        body[key] = value;
        body
    };
    let chat = |messages: Value| json!({ "messages": messages });
    let long = "the quick ".repeat(40);
    for (path, body, status, expected) in [
        ("completions", completion("model", json!("three")), 404, "there is no model `three`, expected one of `one`, `two`"),
        ("completions", completion("temperature", json!(-1)), 400, "`temperature` is -1, expected 0 to 100"),
        ("completions", completion("temperature", json!("hot")), 400, "the body is not as expected"),
        ("completions", completion("max_tokens", json!(51)), 400, "`max_tokens` is 51, expected at most 50"),
        ("completions", completion("n", json!(0)), 400, "`n` is 0, expected 1 to 128"),
        ("completions", completion("logprobs", json!(21)), 400, "`logprobs` is 21, expected at most 20"),
        ("completions", completion("suffix", json!("end")), 400, "`suffix` is given"),
        ("completions", completion("best_of", json!(3)), 400, "`best_of` is not `n`"),
        ("completions", completion("logit_bias", json!({ "5000": 1 })), 400, "`logit_bias` is 5000: 1"),
        ("completions", completion("prompt", json!([])), 400, "the prompt is empty"),
        ("completions", completion("prompt", json!([9999])), 400, "the prompt has token 9999, expected ids below 280"),
        ("completions", completion("prompt", json!(long)), 400, "expected fewer than the context of 64"),
        ("completions", json!({}), 400, "missing field `prompt`"),
        ("completions", completion("prompt", json!("a".repeat(5000))), 413, "expected at most 4000 bytes"),
        ("chat/completions", chat(json!([])), 400, "`messages` is empty"),
        ("chat/completions", chat(json!([{ "role": "user", "content": "<|endoftext|>" }])), 400, "message 1"),
        ("chat/completions", chat(json!([{ "role": "user", "content": [{ "type": "image_url" }] }])), 400, "expected `text`"),
        ("embeddings", json!({ "input": [] }), 400, "`input` has 0 texts"),
        ("embeddings", json!({ "input": long }), 400, "expected 1 to 63"),
    ] {
        let (found, value) = post(&app, &format!("/v1/{path}"), &body).await;
        let message = value["error"]["message"].as_str().unwrap_or_default();
        assert!(found.as_u16() == status && message.contains(expected), "{body}: {found}, {value}, expected {status}, {expected}");
        assert!(value["error"]["type"].is_string());
    }
    let (status, value) = post(&app, "/v1/completions", &completion("prompt", json!(long))).await;
    assert_eq!((status.as_u16(), value["error"]["code"].as_str()), (400, Some("context_length_exceeded")));
    assert_eq!(ask(&app, "GET", "/v1/completions", Body::empty()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(ask(&app, "GET", "/../etc/passwd", Body::empty()).await.0, StatusCode::NOT_FOUND);
    // It still answers.
    posted(&app, "/v1/completions", &completion("n", json!(1))).await;
}

#[tokio::test]
async fn a_key_is_asked_for_and_a_full_queue_refuses() {
    let app = server(ServeOptions { api_key: Some("secret".into()), max_queue: 2, ..ServeOptions::default() });
    let with = async |key: Option<&str>, n: usize| {
        let mut request = Request::builder().method("POST").uri("/v1/completions");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = json!({ "prompt": "the", "n": n, "max_tokens": 5 }).to_string();
        app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    };
    for key in [None, Some("secre"), Some("secret2"), Some("")] {
        assert_eq!(with(key, 1).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(with(Some("secret"), 2).await.status(), StatusCode::OK);
    let busy = with(Some("secret"), 3).await;
    assert_eq!((busy.status(), busy.headers()["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    // Nothing of it is left in the queue.
    assert_eq!(with(Some("secret"), 2).await.status(), StatusCode::OK);
    assert_eq!(ask(&app, "GET", "/health", Body::empty()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn who_leaves_frees_the_place_and_who_is_slow_is_told() {
    let app = server(ServeOptions { max_queue: 1, ..ServeOptions::default() });
    let body = json!({ "prompt": "the", "max_tokens": 60, "stream": true, "ignore_eos": true }).to_string();
    for _ in 0..5 {
        let request = Request::builder().method("POST").uri("/v1/completions").body(Body::from(body.clone())).unwrap();
        // The stream is dropped before anything is read of it.
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        drop(response);
        let mut tries = 0;
        while ask(&app, "GET", "/metrics", Body::empty()).await.1.contains("kindling_texts_in_flight 1") {
            tokio::time::sleep(Duration::from_millis(5)).await;
            tries += 1;
            assert!(tries < 2000, "its place is still taken");
        }
    }
    let app = server(ServeOptions { timeout: Duration::ZERO, ..ServeOptions::default() });
    let (status, value) = post(&app, "/v1/completions", &json!({ "prompt": "the", "max_tokens": 60 })).await;
    assert_eq!((status, value["error"]["type"].as_str()), (StatusCode::REQUEST_TIMEOUT, Some("timeout")));
}
