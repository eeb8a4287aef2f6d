//! `kindling serve`, over real connections: it answers, finishes what runs when it is stopped, and is careful about who may ask.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use kindling_tests::{Lab, Said};
use serde_json::{Value, json};

/// A server, and where it listens.
fn serve(lab: &Lab, line: &str) -> (Child, String) {
    let mut child = lab.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kindling starts");
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    out.read_line(&mut first).expect("a line");
    let Some(address) = first.trim().strip_prefix("http://") else {
        let said = Said::new(line, child.wait_with_output().expect("it ends"));
        panic!("{said}");
    };
    (child, address.to_owned())
}

/// What is answered to a request, with its headers.
fn ask(address: &str, method: &str, path: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
}

#[test]
#[cfg(unix)]
fn it_answers_and_finishes_what_runs() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name other").ok();
    let (child, address) = serve(&lab, "serve old other --port 0 --threads 1 --log requests.jsonl");
    assert!(ask(&address, "GET", "/health", "", "").ends_with("{\"status\":\"ok\"}"));
    let models = ask(&address, "GET", "/v1/models", "", "");
    assert!(models.contains("\"old\"") && models.contains("\"other\""), "{models}");
    let page = ask(&address, "GET", "/", "", "");
    assert!(page.contains("content-security-policy: default-src 'none'") && page.contains("<!doctype html>"), "{page}");
    let body = "{\"model\":\"old\",\"prompt\":\"the\",\"max_tokens\":8,\"temperature\":0}";
    let written = ask(&address, "POST", "/v1/completions", "Content-Type: application/json\r\n", body);
    assert!(written.starts_with("HTTP/1.1 200") && written.contains("\"completion_tokens\":8"), "{written}");
    let refused = ask(&address, "POST", "/v1/completions", "", "{");
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("invalid_request_error"), "{refused}");
    // A stream that has begun comes to its end after the interrupt: of many texts, most of which wait.
    let mut stream = TcpStream::connect(&address).expect("it listens");
    let body = "{\"prompt\":\"the\",\"max_tokens\":3000,\"n\":128,\"stream\":true,\"ignore_eos\":true}";
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).expect("it reads");
    let mut begun = [0; 64];
    stream.read_exact(&mut begun).expect("it has begun");
    interrupt(&child);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("it goes on");
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(rest.matches("\"finish_reason\":\"length\"").count(), 128);
    let said = Said::new("serve", child.wait_with_output().expect("it ends")).ok();
    assert!(said.err.contains("finishing what runs"), "{said}");
    // Each has a line, the last too, without what was said. Texts end with their context, of 16 tokens.
    let log = lab.read("requests.jsonl");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let seen: Vec<_> = lines.iter().map(|line| (line["endpoint"].as_str().expect("a route"), line["status"].as_u64())).collect();
    let completions = "/v1/completions";
    assert_eq!(seen, [("/v1/models", Some(200)), (completions, Some(200)), (completions, Some(400)), (completions, Some(200))]);
    let last = lines.last().expect("four");
    assert_eq!((&last["texts"], &last["new_tokens"], &last["error"]), (&json!(128), &json!(128 * 15), &Value::Null), "{last}");
    assert!(last["time"].as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{last}");
    assert!(!log.contains("\"said\""), "{log}");
}

#[test]
fn who_may_ask_and_what_cannot_be_served() {
    let lab = Lab::with_run();
    lab.run("serve old --host 0.0.0.0 --port 0").fails(&["0.0.0.0 is an address that others can reach, and there is no API key"]);
    lab.run("serve none --port 0").fails(&["none"]);
    lab.run("serve old old --port 0").fails(&["run `old` is given twice"]);
    lab.write("empty.txt", "\n");
    lab.run("serve old --api-key-file empty.txt --port 0").fails(&["the API key in `empty.txt` is empty"]);
    lab.write("broken.jinja", "{% for");
    lab.run("serve old --chat-template broken.jinja --port 0").fails(&["the chat template is none"]);
    lab.write("key.txt", "secret\n");
    let (mut child, address) = serve(&lab, "serve old --host 0.0.0.0 --api-key-file key.txt --port 0 --threads 1");
    let address = address.replace("0.0.0.0", "127.0.0.1");
    let refused = ask(&address, "GET", "/v1/models", "", "");
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("invalid_api_key"), "{refused}");
    assert!(ask(&address, "GET", "/v1/models", "Authorization: Bearer secret\r\n", "").starts_with("HTTP/1.1 200"));
    // Pages of other sites are refused, unless everybody may ask.
    let (mut open, elsewhere) = serve(&lab, "serve old --allow-anyone --port 0 --threads 1");
    let called = |address: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"GET /v1/models HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    };
    assert!(called(&elsewhere).starts_with("HTTP/1.1 200"));
    open.kill().expect("it runs");
    open.wait().expect("it ends");
    let (mut closed, here) = serve(&lab, "serve old --port 0 --threads 1");
    assert!(called(&here).starts_with("HTTP/1.1 403"));
    closed.kill().expect("it runs");
    closed.wait().expect("it ends");
    // Two places are one address.
    let port = address.rsplit(':').next().expect("a port");
    lab.run(&format!("serve old --port {port}")).fails(&["cannot serve on 127.0.0.1"]);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}
