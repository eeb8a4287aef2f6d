//! The interface: what is answered is what the model says, and what cannot be done is told in OpenAI's shape.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "../../kindling-infer/tests/support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use burn::tensor::Device;
use futures_util::StreamExt;
use kindling_config::{ExamplesConfig, SamplingConfig};
use kindling_infer::{ChatTemplate, generate, prompt_ids};
use kindling_model::Gpt;
use kindling_serve::{RequestLog, RequestRecord, ServeOptions, ServedModel, app};
use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, Tokenizer};
use serde_json::{Value, json};
use support::far_from_uniform;
use tower::ServiceExt;

const TEXT: &str = "user assistant: the quick brown fox jumps over the lazy dog, größe 🦊";

fn tokenizer() -> Tokenizer {
    Tokenizer::Bpe(BpeTrainer::new(280).with_special_tokens(&[END_OF_TEXT]).train(&[TEXT]).unwrap())
}

/// A model far from uniform.
fn model(tokenizer: &Tokenizer) -> Gpt {
    far_from_uniform(tokenizer.vocab_size(), 64, 24, 4, 12.0)
}

fn server(options: ServeOptions) -> Router {
    server_of(64, options)
}

fn server_of(context_len: usize, options: ServeOptions) -> Router {
    let served = |name: &str| {
        let tokenizer = tokenizer();
        let template = ChatTemplate::of_examples(&ExamplesConfig::default()).unwrap();
        let model = far_from_uniform(tokenizer.vocab_size(), context_len, 24, 4, 12.0);
        ServedModel { name: name.into(), model, tokenizer, template, draft: None }
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
    // What is no character by itself is told apart, and the token that was drawn is among the likeliest.
    let told = posted(&app, "/v1/completions", &json!({ "prompt": "🦊ö", "max_tokens": 0, "logprobs": 1, "echo": true })).await;
    let told = &told["choices"][0]["logprobs"];
    let tokens: Vec<&str> = told["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens[..4], ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\xa6", "bytes:\\x8a"], "{tokens:?}");
    assert_eq!(told["text_offset"].as_array().unwrap()[..5], [json!(0), json!(1), json!(1), json!(1), json!(1)]);
    for (i, token) in tokens.iter().enumerate() {
        assert_eq!(told["top_logprobs"][i][*token], told["token_logprobs"][i], "{told}");
    }
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
    // Many texts, of which a stream beside them does not have to wait for all.
    let many = json!({ "input": vec!["the quick brown fox"; 300] });
    let one = json!({ "prompt": "a", "max_tokens": 3, "stream": true, "ignore_eos": true });
    let (vectors, said) = tokio::join!(posted(&app, "/v1/embeddings", &many), streamed(&app, "/v1/completions", &one));
    assert_eq!((vectors["data"].as_array().unwrap().len(), said.is_empty()), (300, false));
    let (_, models) = ask(&app, "GET", "/v1/models", Body::empty()).await;
    assert!(models.contains("\"one\"") && models.contains("\"two\""), "{models}");
    assert_eq!(ask(&app, "GET", "/v1/models/two", Body::empty()).await.0, StatusCode::OK);
    assert_eq!(ask(&app, "GET", "/health", Body::empty()).await.1, "{\"status\":\"ok\"}");
    posted(&app, "/v1/completions", &json!({ "prompt": "a", "max_tokens": 3, "ignore_eos": true })).await;
    let (_, metrics) = ask(&app, "GET", "/metrics", Body::empty()).await;
    for expected in ["kindling_new_tokens_total 6", "kindling_texts_in_flight 0", "status=\"200\"", "kindling_first_token_seconds_count 2"]
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
        ("completions", completion("prompt", json!(5)), 400, "expected a prompt: a text, ids of tokens, or a list of either"),
        ("completions", completion("stop", json!(5)), 400, "expected a text, or a list of texts"),
        ("chat/completions", chat(json!([{ "role": "user", "content": 5 }])), 400, "a text, or a list of parts"),
        ("completions", completion("prompt", json!("a".repeat(5000))), 413, "expected at most 4000 bytes"),
        ("chat/completions", chat(json!([])), 400, "`messages` is empty"),
        ("chat/completions", json!({ "messages": [{ "role": "user", "content": "a" }], "n": 200 }), 400, "`n` is 200, expected 1 to 128"),
        ("completions", completion("prompt", json!(vec!["a"; 200])), 400, "200 texts are asked for, expected at most 128 at once"),
        ("chat/completions", chat(json!([{ "role": "user", "content": [{ "type": "image_url" }] }])), 400, "expected `text`"),
        ("embeddings", json!({ "input": [] }), 400, "`input` has 0 texts"),
        ("embeddings", json!({ "input": long }), 400, "expected 1 to 63"),
    ] {
        let (found, value) = post(&app, &format!("/v1/{path}"), &body).await;
        let message = value["error"]["message"].as_str().unwrap_or_default();
        assert!(found.as_u16() == status && message.contains(expected), "{body}: {found}, {value}, expected {status}, {expected}");
        assert!(value["error"]["type"].is_string());
        // A stream that cannot begin is no stream.
        if status == 400 {
            let mut streamed = body.clone();
            streamed["stream"] = json!(true);
            assert_eq!(post(&app, &format!("/v1/{path}"), &streamed).await.0, found, "{streamed}");
        }
    }
    let (status, value) = post(&app, "/v1/completions", &completion("prompt", json!(long))).await;
    assert_eq!((status.as_u16(), value["error"]["code"].as_str()), (400, Some("context_length_exceeded")));
    assert_eq!(ask(&app, "GET", "/v1/completions", Body::empty()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (status, nothing) = ask(&app, "GET", "/../etc/passwd", Body::empty()).await;
    assert!(status == StatusCode::NOT_FOUND && !nothing.contains("model_not_found"), "{nothing}");
    let (_, metrics) = ask(&app, "GET", "/metrics", Body::empty()).await;
    assert!(metrics.contains("kindling_requests_total{endpoint=\"/v1/completions\",status=\"413\"} 1"), "{metrics}");
    // It still answers.
    posted(&app, "/v1/completions", &completion("n", json!(1))).await;
}

#[tokio::test]
async fn a_key_is_asked_for_and_a_full_queue_refuses() {
    let app = server_of(2000, ServeOptions { api_key: Some("secret".into()), max_queue: 2, ..ServeOptions::default() });
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
    // More than can ever wait is no matter of time.
    assert_eq!(with(Some("secret"), 3).await.status(), StatusCode::BAD_REQUEST);
    // While a long text is written, one of two places is taken.
    let stream = json!({ "prompt": "the", "max_tokens": 1900, "stream": true, "ignore_eos": true }).to_string();
    let request =
        Request::builder().method("POST").uri("/v1/completions").header("authorization", "Bearer secret").body(Body::from(stream));
    let held = app.clone().oneshot(request.unwrap()).await.unwrap();
    let busy = with(Some("secret"), 2).await;
    assert_eq!((busy.status(), busy.headers()["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    drop(held);
    // Nothing of it is left in the queue.
    while with(Some("secret"), 2).await.status() != StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(ask(&app, "GET", "/health", Body::empty()).await.0, StatusCode::OK);
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    let status = async |options: ServeOptions, host: &str, origin: Option<&str>| {
        let mut request = Request::builder().uri("/v1/models").header("host", host).header("authorization", "Bearer secret");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        server(options).oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    let local = ServeOptions::default;
    for host in ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "LOCALHOST"] {
        assert_eq!(status(local(), host, None).await, 200, "{host}");
        assert_eq!(status(local(), host, Some(&format!("http://{host}"))).await, 200, "{host}");
        assert_eq!(status(local(), host, Some("https://elsewhere.example")).await, 403, "{host}");
        assert_eq!(status(local(), host, Some("null")).await, 403, "{host}");
    }
    for host in ["elsewhere.example", "127.0.0.1.elsewhere.example:8000", "10.0.0.1", ""] {
        assert_eq!(status(local(), host, None).await, 403, "{host}");
    }
    // Whoever has a key is known, and an address for others is called as they like.
    let with_key = || ServeOptions { api_key: Some("secret".into()), ..ServeOptions::default() };
    assert_eq!(status(with_key(), "elsewhere.example", None).await, 200);
    assert_eq!(status(with_key(), "elsewhere.example", Some("https://other.example")).await, 403);
    assert_eq!(status(ServeOptions { is_local: false, ..local() }, "elsewhere.example", None).await, 200);
}

#[tokio::test]
async fn who_leaves_frees_the_place_and_who_is_slow_is_told() {
    let app = server_of(2000, ServeOptions { max_queue: 1, ..ServeOptions::default() });
    let body = json!({ "prompt": "the", "max_tokens": 1900, "stream": true, "ignore_eos": true }).to_string();
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
    // They have not been written to their ends.
    let (_, metrics) = ask(&app, "GET", "/metrics", Body::empty()).await;
    let written = metrics.lines().find_map(|line| line.strip_prefix("kindling_new_tokens_total ")).unwrap();
    assert!(written.parse::<u64>().unwrap() < 5 * 1500, "{written} tokens");
    let app = server(ServeOptions { timeout: Duration::ZERO, ..ServeOptions::default() });
    let (status, value) = post(&app, "/v1/completions", &json!({ "prompt": "the", "max_tokens": 60 })).await;
    assert_eq!((status, value["error"]["type"].as_str()), (StatusCode::REQUEST_TIMEOUT, Some("timeout")));
}

#[tokio::test]
async fn each_request_is_told_of_without_what_was_said() {
    for logs_texts in [false, true] {
        let records = Arc::new(Mutex::new(Vec::<RequestRecord>::new()));
        let to = records.clone();
        let log = RequestLog::new(move |record| to.lock().unwrap().push(record.clone()));
        let options = ServeOptions { log: Some(log), logs_texts, max_new_tokens: 1900, ..ServeOptions::default() };
        let app = server_of(2000, options);
        // The last, once there are so many.
        let last = async |n: usize| {
            let mut tries = 0;
            while records.lock().unwrap().len() < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
                tries += 1;
                assert!(tries < 2000, "there is no record {n}");
            }
            records.lock().unwrap().last().unwrap().clone()
        };
        let body = json!({ "prompt": "the fox", "max_tokens": 5, "n": 2, "ignore_eos": true });
        let answer = posted(&app, "/v1/completions", &body).await;
        let record = last(1).await;
        assert_eq!((record.endpoint.as_str(), record.status, record.error, record.stream), ("/v1/completions", 200, None, false));
        assert_eq!((record.id.as_deref(), record.model.as_deref()), (answer["id"].as_str(), Some("one")));
        assert_eq!((record.texts, record.new_tokens, json!(record.prompt_tokens)), (2, 10, answer["usage"]["prompt_tokens"].clone()));
        assert!(record.first_token_ms.is_some_and(|first| first <= record.ms));
        let said: Vec<&str> = record.said.iter().map(|said| said.text.as_str()).collect();
        let texts: Vec<&str> = answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
        assert_eq!(said, if logs_texts { texts } else { Vec::new() });
        assert!(record.said.iter().all(|said| said.prompt.ends_with("the fox")), "{record:?}");
        assert_eq!(serde_json::to_string(&record).unwrap().contains("the fox"), logs_texts);
        let stream = json!({ "messages": [{ "role": "user", "content": "fox" }], "max_tokens": 4, "stream": true, "ignore_eos": true });
        streamed(&app, "/v1/chat/completions", &stream).await;
        let record = last(2).await;
        assert_eq!((record.endpoint.as_str(), record.error, record.stream), ("/v1/chat/completions", None, true));
        assert_eq!((record.texts, record.new_tokens), (1, 4));
        assert_eq!(record.said.len(), usize::from(logs_texts));
        // What goes wrong is called by its name.
        for (n, path, body, status, error) in [
            (3, "/v1/completions", json!({ "prompt": "the", "model": "none" }), 404, "model_not_found"),
            (4, "/v1/completions", json!({ "prompt": 5 }), 400, "invalid_request_error"),
            (5, "/v1/embeddings", json!({ "input": "the fox", "dimensions": 2 }), 400, "invalid_request_error"),
        ] {
            post(&app, path, &body).await;
            let record = last(n).await;
            assert_eq!((record.endpoint.as_str(), record.status, record.error), (path, status, Some(error)));
        }
        posted(&app, "/v1/embeddings", &json!({ "input": ["the fox", "a dog"] })).await;
        let record = last(6).await;
        assert_eq!((record.status, record.texts, record.said.len()), (200, 2, if logs_texts { 2 } else { 0 }));
        assert!(record.prompt_tokens > 2);
        // Who leaves is told of when that is known.
        let body = json!({ "prompt": "the", "max_tokens": 1900, "stream": true, "ignore_eos": true }).to_string();
        let request = Request::builder().method("POST").uri("/v1/completions").body(Body::from(body)).unwrap();
        let mut parts = app.clone().oneshot(request).await.unwrap().into_body().into_data_stream();
        for _ in 0..3 {
            parts.next().await.unwrap().unwrap();
        }
        drop(parts);
        let record = last(7).await;
        assert_eq!((record.status, record.error), (200, Some("left")));
        assert!(record.new_tokens > 0 && record.new_tokens < 1900, "{record:?}");
        // A health check and the page are not told of.
        for path in ["/health", "/metrics", "/"] {
            ask(&app, "GET", path, Body::empty()).await;
        }
        ask(&app, "GET", "/v1/models", Body::empty()).await;
        assert_eq!(last(8).await.endpoint, "/v1/models");
        // Who leaves before there is any answer.
        let body = json!({ "prompt": "the", "max_tokens": 1900, "ignore_eos": true }).to_string();
        let request = Request::builder().method("POST").uri("/v1/completions").body(Body::from(body)).unwrap();
        tokio::time::timeout(Duration::from_millis(30), app.clone().oneshot(request)).await.unwrap_err();
        let record = last(9).await;
        assert_eq!((record.status, record.error), (499, Some("left")));
        // What takes too long, at once and as a stream; who has no key; and who comes to a full queue.
        let told = |options: ServeOptions| {
            let to = records.clone();
            let log = RequestLog::new(move |record: &RequestRecord| to.lock().unwrap().push(record.clone()));
            server_of(2000, ServeOptions { log: Some(log), logs_texts, ..options })
        };
        let hasty = told(ServeOptions { timeout: Duration::ZERO, ..ServeOptions::default() });
        let mut n = 9;
        for (stream, status) in [(false, 408), (true, 200)] {
            ask(&hasty, "POST", "/v1/completions", json!({ "prompt": "the", "max_tokens": 60, "stream": stream }).to_string()).await;
            n += 1;
            assert_eq!((last(n).await.status, last(n).await.error), (status, Some("timeout")));
        }
        let locked = told(ServeOptions { api_key: Some("secret".into()), ..ServeOptions::default() });
        post(&locked, "/v1/completions", &json!({ "prompt": "the" })).await;
        assert_eq!((last(n + 1).await.status, last(n + 1).await.error), (401, Some("invalid_api_key")));
        let full = told(ServeOptions { max_queue: 1, ..ServeOptions::default() });
        let body = json!({ "prompt": "the", "max_tokens": 1900, "stream": true, "ignore_eos": true }).to_string();
        let request = Request::builder().method("POST").uri("/v1/completions").body(Body::from(body)).unwrap();
        let _held = full.clone().oneshot(request).await.unwrap();
        post(&full, "/v1/completions", &json!({ "prompt": "the" })).await;
        let record = last(n + 2).await;
        assert_eq!((record.status, record.error), (429, Some("rate_limit_exceeded")));
        assert_eq!((record.model.as_deref(), record.texts), (Some("one"), 1));
    }
}

#[tokio::test]
async fn texts_are_what_they_have_to_be() {
    let app = server_of(256, ServeOptions::default());
    let of = async |path: &str, mut body: Value, key: &str, value: Value| {
        body[key] = value;
        posted(&app, path, &body).await["choices"][0].clone()
    };
    let chat = || json!({ "messages": [{ "role": "user", "content": "Hi" }], "seed": 3, "max_tokens": 60 });
    let schema = json!({
        "type": "object", "required": ["fox"], "additionalProperties": false, "properties": { "fox": { "type": "integer", "minimum": 0, "maximum": 99 } }
    });
    let named = json!({ "type": "json_schema", "json_schema": { "name": "fox", "strict": true, "schema": schema } });
    let choice = of("/v1/chat/completions", chat(), "response_format", named).await;
    let said: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
    assert!((0..=99).contains(&said["fox"].as_i64().unwrap()) && choice["finish_reason"] == "stop", "{choice}");
    let free = of("/v1/chat/completions", chat(), "response_format", json!({ "type": "text" })).await;
    assert!(serde_json::from_str::<Value>(free["message"]["content"].as_str().unwrap()).is_err(), "{free}");
    let text = || json!({ "prompt": "the", "seed": 3, "max_tokens": 60 });
    let one = of("/v1/completions", text(), "structured_outputs", json!({ "choice": ["fox", "dog"] })).await;
    assert!(["fox", "dog"].contains(&one["text"].as_str().unwrap()), "{one}");
    let number = of("/v1/completions", text(), "structured_outputs", json!({ "regex": "[0-9]{3}" })).await;
    assert!(number["text"].as_str().unwrap().parse::<u32>().is_ok_and(|number| number < 1000), "{number}");
    let same = of("/v1/completions", text(), "structured_outputs", json!({ "json": schema })).await;
    assert!(serde_json::from_str::<Value>(same["text"].as_str().unwrap()).unwrap()["fox"].is_number());
    let object = of("/v1/completions", text(), "response_format", json!({ "type": "json_object" })).await;
    assert!(object["text"].as_str().unwrap().starts_with('{'), "{object}");
    for (body, param) in [
        (json!({ "structured_outputs": { "regex": "(a" } }), "structured_outputs"),
        (json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": 5 } } }), "response_format"),
        (json!({ "response_format": { "type": "json_object" }, "structured_outputs": { "regex": "a" } }), "structured_outputs"),
    ] {
        let mut body = body;
        body["prompt"] = json!("the");
        let (status, value) = post(&app, "/v1/completions", &body).await;
        assert_eq!((status, value["error"]["param"].as_str()), (StatusCode::BAD_REQUEST, Some(param)), "{value}");
    }
}
