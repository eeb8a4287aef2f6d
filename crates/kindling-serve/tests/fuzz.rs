//! Bodies that nobody would send: each is answered, as a mistake of the request where it is one, and the server goes on.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "../../kindling-infer/tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use kindling_config::ExamplesConfig;
use kindling_infer::{ChatTemplate, Message};
use kindling_serve::{ServeOptions, ServedModel, app};
use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, Tokenizer};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use support::far_from_uniform;
use tower::ServiceExt;

/// Longer than any answer takes, with all other tests beside.
const A_WHILE: Duration = Duration::from_secs(20);

fn tokenizer() -> Tokenizer {
    Tokenizer::Bpe(
        BpeTrainer::new(270).with_special_tokens(&[END_OF_TEXT]).train(&["user assistant: the quick brown fox {\"a\":1}"]).unwrap(),
    )
}

fn server() -> Router {
    let tokenizer = tokenizer();
    let model = far_from_uniform(tokenizer.vocab_size(), 64, 16, 4, 8.0);
    let template = ChatTemplate::of_examples(&ExamplesConfig::default()).unwrap();
    let options = ServeOptions { max_queue: 8, max_new_tokens: 12, max_body_bytes: 1 << 14, timeout: A_WHILE, ..ServeOptions::default() };
    app(vec![ServedModel { name: "one".into(), model, tokenizer, template, draft: None }], options)
}

async fn post(app: &Router, path: &str, body: Vec<u8>) -> (StatusCode, String) {
    let request = Request::builder().method("POST").uri(path).body(Body::from(body)).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Any value of JSON, often one that a field of a request has.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..20).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        (-2.0f64..3.0).prop_map(|number| json!(number)),
        "[a-z{}\\[\\]<|>%\" 🦊ß\\\\]{0,20}".prop_map(Value::from),
        prop::sample::select(vec![
            "text",
            "json_object",
            "json_schema",
            "regex",
            "choice",
            "user",
            "system",
            "assistant",
            "a*|b",
            "one",
            "base64"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let keys = prop::sample::select(vec![
            "type",
            "schema",
            "json_schema",
            "properties",
            "items",
            "enum",
            "anyOf",
            "$ref",
            "pattern",
            "maxLength",
            "minimum",
            "regex",
            "choice",
            "json",
            "role",
            "content",
            "text",
            "include_usage",
            "1",
            "300",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    })
}

/// A request of which some fields are anything.
fn request() -> impl Strategy<Value = (&'static str, Value)> {
    const FIELDS: [&str; 27] = [
        "model",
        "prompt",
        "messages",
        "input",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
        "stop",
        "stop_token_ids",
        "ignore_eos",
        "n",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "echo",
        "response_format",
        "structured_outputs",
    ];
    let paths = prop::sample::select(vec!["/v1/completions", "/v1/chat/completions", "/v1/embeddings"]);
    let fields = prop::collection::vec((prop::sample::select(FIELDS.to_vec()), value()), 0..4);
    (paths, fields).prop_map(|(path, fields)| {
        let mut body = match path {
            "/v1/completions" => json!({ "prompt": "the quick", "max_tokens": 6 }),
            "/v1/embeddings" => json!({ "input": ["the quick", "fox"] }),
            _ => json!({ "messages": [{ "role": "user", "content": "the fox" }], "max_tokens": 6 }),
        };
        for (name, value) in fields {
            body[name] = value;
        }
        (path, body)
    })
}

/// Runs cases that are the same each time.
fn runner(cases: u32) -> TestRunner {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha))
}

#[test]
fn every_body_is_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = server();
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    let statuses = std::cell::RefCell::new(&mut statuses);
    let answered = |path: &str, body: Vec<u8>| {
        let start = Instant::now();
        let (status, text) = runtime.block_on(post(&app, path, body));
        *statuses.borrow_mut().entry(status.as_u16()).or_default() += 1;
        let is_told = status.is_success() || (status.is_client_error() && text.contains("\"error\"") && text.contains("\"message\""));
        (is_told && start.elapsed() < A_WHILE, status, text)
    };
    let result = runner(1200).run(&request(), |(path, body)| {
        let (is_well, status, text) = answered(path, body.to_string().into_bytes());
        prop_assert!(is_well, "{status}: {text}");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let bytes = (prop::sample::select(vec!["/v1/completions", "/v1/chat/completions"]), prop::collection::vec(any::<u8>(), 0..200));
    let result = runner(200).run(&bytes, |(path, body)| {
        let (_, status, text) = answered(path, body);
        prop_assert!(status.is_client_error(), "{status}: {text}");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let deep = format!("{{\"prompt\":{}1{}}}", "[".repeat(6000), "]".repeat(6000));
    assert!(answered("/v1/completions", deep.into_bytes()).1.is_client_error());
    assert_eq!(answered("/v1/completions", vec![b' '; 1 << 15]).1, StatusCode::PAYLOAD_TOO_LARGE);
    // And it goes on.
    let (status, text) =
        runtime.block_on(post(&app, "/v1/completions", json!({ "prompt": "the", "max_tokens": 3 }).to_string().into_bytes()));
    assert_eq!(status, StatusCode::OK, "{text}");
    println!("{statuses:?}");
    let statuses = statuses.borrow();
    assert!(statuses[&200] > 200 && statuses[&400] > 200 && !statuses.contains_key(&500), "{statuses:?}");
}

#[test]
fn every_template_ends() {
    let tokenizer = tokenizer();
    let parts = prop::sample::select(vec![
        "{% for m in messages %}",
        "{% endfor %}",
        "{{ m.content }}",
        "{{ m['role'] }}",
        "{% if m.role == 'user' %}",
        "{% else %}",
        "{% endif %}",
        "text\n",
        "{{ bos_token }}",
        "{{ messages[-1].content | trim }}",
        "{% set n = namespace(x=0) %}",
        "{% set n.x = n.x + 1 %}",
        "{% for i in range(100000) %}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{%",
        "}}",
        "{#",
        "{% macro a(b) %}{{ a(b) }}{% endmacro %}{{ a(1) }}",
        "{{ messages | tojson }}",
        "{{ m.content.split('a')[99] }}",
        "{{ 'a'.strip() }}",
        "{{ loop.index0 }}",
    ]);
    let mut n_ids = 0;
    let counted = std::cell::RefCell::new(&mut n_ids);
    let messages: Vec<Message> = [("user", "the fox"), ("assistant", "a"), ("user", "<|endoftext|>")]
        .map(|(role, content)| Message { role: role.into(), content: content.into() })
        .to_vec();
    let result = runner(1500).run(&prop::collection::vec(parts, 0..9), |parts| {
        let start = Instant::now();
        if let Ok(template) = ChatTemplate::new(parts.concat())
            && template.ids(&tokenizer, &messages[..2]).is_ok()
        {
            **counted.borrow_mut() += 1;
            let _ = template.ids(&tokenizer, &messages);
        }
        prop_assert!(start.elapsed() < A_WHILE);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    println!("{n_ids} templates made a text");
    assert!(n_ids > 50, "{n_ids}");
}
