//! A server under load: many clients that stream texts from a GPT-2 of random weights on loopback, of whom some leave early and some say nonsense.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use burn::tensor::Device;
use kindling_config::{ExamplesConfig, Seed};
use kindling_infer::ChatTemplate;
use kindling_kernels::{WeightFormat, stream};
use kindling_model::Gpt;
use kindling_serve::{ServeOptions, ServedModel, app, serve_until};
use kindling_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::machine::{machine, resident_mib};
use crate::shape::Shape;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clients that ask at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=512))]
    clients: u16,
    /// Seconds in which they begin requests
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(5..=3600))]
    seconds: u16,
    /// How weights are kept
    #[arg(long, default_value = "int8")]
    weights: WeightFormat,
    /// Print JSON instead of lines
    #[arg(long)]
    json: bool,
}

/// What came of a request.
enum Outcome {
    /// All of a text, with the time to its first token and between the others.
    Whole { first: Duration, gaps: Vec<Duration> },
    /// The client left.
    Left,
    /// Refused, as nonsense has to be.
    Refused,
    /// There was no room.
    Busy,
    /// What should not be.
    Failed(String),
}

/// What a client asks for.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Whole,
    Leaves,
    Nonsense,
}

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let mut config = Shape::Gpt2.config()?.model;
    let tokenizer = Tokenizer::published("gpt2")?;
    config.vocab_size = tokenizer.vocab_size();
    let model = Gpt::new(&config, Seed(1), &Device::flex()).packed(args.weights);
    let template = ChatTemplate::of_examples(&ExamplesConfig::default())?;
    let served = ServedModel { name: "gpt2".into(), model, tokenizer, template, draft: None };
    let router = app(vec![served], ServeOptions { max_queue: 2 * usize::from(args.clients), ..ServeOptions::default() });
    let stop = AtomicBool::new(false);
    let (told, ready) = channel();
    let (outcomes, rss) = std::thread::scope(|scope| -> anyhow::Result<_> {
        let server = scope.spawn(|| {
            serve_until(SocketAddr::from(([127, 0, 0, 1], 0)), router, &stop, Duration::from_secs(60), |address| {
                let _ = told.send(address);
            })
        });
        let Ok(address) = ready.recv() else {
            server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
            bail!("the server does not listen");
        };
        let end = Instant::now() + Duration::from_secs(args.seconds.into());
        let clients: Vec<_> = (0..u64::from(args.clients)).map(|client| scope.spawn(move || ask_until(address, client, end))).collect();
        // After a third nothing should grow any more.
        std::thread::sleep(Duration::from_secs(args.seconds.into()) / 3);
        let warm = resident_mib();
        let joined: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        let rss = [warm, resident_mib()];
        stop.store(true, Ordering::Relaxed);
        let mut outcomes = Vec::new();
        for client in joined {
            outcomes.extend(client.map_err(|_| anyhow::anyhow!("a client panicked"))?);
        }
        server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
        Ok((outcomes, rss))
    })?;
    report(args, threads, &outcomes, rss)
}

fn report(args: &Args, threads: usize, outcomes: &[Outcome], rss: [Option<u64>; 2]) -> anyhow::Result<()> {
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
    let failed: Vec<&String> =
        outcomes.iter().filter_map(|outcome| if let Outcome::Failed(why) = outcome { Some(why) } else { None }).collect();
    let whole =
        || outcomes.iter().filter_map(|outcome| if let Outcome::Whole { first, gaps } = outcome { Some((first, gaps)) } else { None });
    let firsts = percentiles(whole().map(|(first, _)| *first).collect());
    let gaps = percentiles(whole().flat_map(|(_, gaps)| gaps.iter().copied()).collect());
    let n_tokens: usize = whole().map(|(_, gaps)| gaps.len() + 1).sum();
    let (n_whole, n_busy) = (count(|outcome| matches!(outcome, Outcome::Whole { .. })), count(|outcome| matches!(outcome, Outcome::Busy)));
    let report = json!({
        "bench": "load", "machine": machine(threads), "clients": args.clients, "seconds": args.seconds, "weights": args.weights.to_string(),
        "whole": n_whole, "left": count(|outcome| matches!(outcome, Outcome::Left)), "refused": count(|outcome| matches!(outcome, Outcome::Refused)),
        "busy": n_busy, "failed": failed, "tokens_per_s": n_tokens as f64 / f64::from(args.seconds),
        "first_token_ms": firsts, "between_tokens_ms": gaps, "rss_mib_after_a_third_and_at_the_end": rss,
    });
    if args.json {
        println!("{report:#}");
    } else {
        for (name, value) in report.as_object().into_iter().flatten() {
            println!("{name:40} {value}");
        }
    }
    if !failed.is_empty() || n_whole == 0 || n_busy * 20 > outcomes.len() {
        bail!("{} requests failed, {n_busy} of {} found no room, {n_whole} were answered whole", failed.len(), outcomes.len());
    }
    Ok(())
}

/// The 50th and the 99th of a hundred, in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> Value {
    times.sort();
    let at = |share: f64| {
        times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).map(|time| time.as_secs_f64() * 1e3)
    };
    json!({ "p50": at(0.5), "p99": at(0.99), "n": times.len() })
}

/// Asks one thing after the other.
fn ask_until(address: SocketAddr, client: u64, end: Instant) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for number in 0.. {
        if Instant::now() >= end {
            break;
        }
        let draw = |of: u64, below: u64| stream(client, &[number, of]) % below;
        let kind = match draw(0, 10) {
            0 => Kind::Leaves,
            1 => Kind::Nonsense,
            _ => Kind::Whole,
        };
        let prompt: Vec<u64> = (0..4 + draw(1, 200)).map(|i| draw(10 + i, 50_000)).collect();
        let body = json!({ "prompt": prompt, "max_tokens": 4 + draw(2, 60), "stream": true, "ignore_eos": true, "seed": draw(3, 1000) });
        let body = match (kind, draw(4, 3)) {
            (Kind::Nonsense, 0) => "{\"prompt\": \"the".to_owned(),
            (Kind::Nonsense, 1) => json!({ "prompt": prompt, "temperature": -1 }).to_string(),
            (Kind::Nonsense, _) => json!({ "prompt": vec![1; 5000], "stream": true }).to_string(),
            _ => body.to_string(),
        };
        let outcome = ask(address, kind, &body, 1 + draw(5, 6) as usize).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        if matches!(outcome, Outcome::Busy) {
            std::thread::sleep(Duration::from_millis(500));
        }
        outcomes.push(outcome);
    }
    outcomes
}

/// One request; a client that leaves does so after some tokens.
fn ask(address: SocketAddr, kind: Kind, body: &str, leaves_after: usize) -> anyhow::Result<Outcome> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    let start = Instant::now();
    let n = body.len();
    write!(connection, "POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {n}\r\n\r\n{body}")?;
    let mut lines = BufReader::new(connection).lines();
    let status = lines.next().context("no answer")??;
    let code = status.split(' ').nth(1).unwrap_or_default().to_owned();
    match (code.as_str(), kind) {
        ("400", Kind::Nonsense) => return Ok(Outcome::Refused),
        ("429", _) => return Ok(Outcome::Busy),
        ("200", Kind::Whole | Kind::Leaves) => {}
        _ => bail!("answered {status}"),
    }
    let (mut last, mut first, mut gaps) = (start, None, Vec::new());
    for line in lines {
        let line = line?;
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            return Ok(Outcome::Whole { first: first.context("no token came")?, gaps });
        }
        let chunk: Value = serde_json::from_str(data).with_context(|| format!("`{data}`"))?;
        if !chunk["error"].is_null() {
            bail!("{chunk}");
        }
        if !chunk["choices"][0]["finish_reason"].is_null() {
            continue;
        }
        let now = Instant::now();
        match first {
            None => first = Some(now - last),
            Some(_) => gaps.push(now - last),
        }
        last = now;
        if kind == Kind::Leaves && gaps.len() >= leaves_after {
            return Ok(Outcome::Left);
        }
    }
    bail!("the stream ended before its end")
}
