//! Writing text with a GPT-2 of random weights: reading a prompt, and new tokens, beside llama.cpp, and beside what the machine's memory and
//! matrix products reach.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use burn::tensor::Device;
use kindling_config::Seed;
use kindling_infer::{Engine, EngineLimits, Event, Request, Sampling};
use kindling_kernels::{Isa, WeightFormat, stream};
use kindling_model::Gpt;
use kindling_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::machine::{machine, resident_mib};
use crate::process::{measure, measure_self, median, number};
use crate::shape::Shape;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tokens of each prompt
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=900))]
    prompt: u32,
    /// New tokens of each text
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=512))]
    new: u32,
    /// Measurements of each, alternating
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// A folder in which `npm install --ignore-scripts node-llama-cpp` was run, to time llama.cpp beside; with `--gguf`
    #[arg(long, value_name = "FOLDER", requires = "gguf")]
    node: Option<PathBuf>,
    /// A folder with gpt2-f32.gguf, gpt2-f16.gguf and gpt2-q8_0.gguf, as crates/kindling-bench/peers/random_gguf.py makes them
    #[arg(long, value_name = "FOLDER")]
    gguf: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct InProcess {
    #[arg(long)]
    prompt: usize,
    #[arg(long)]
    new: usize,
    #[arg(long)]
    batch: usize,
    #[arg(long, value_parser = format)]
    weights: WeightFormat,
}

pub(crate) fn format(text: &str) -> Result<WeightFormat, String> {
    WeightFormat::ALL.into_iter().find(|one| one.to_string() == text).ok_or_else(|| "expected f32, bf16 or int8".to_owned())
}

/// Texts at once.
const BATCHES: [usize; 2] = [1, 8];
const LLAMA_CPP: &str = include_str!("../peers/llama_cpp.mjs");

/// Who writes.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Kindling(WeightFormat, usize),
    /// With a file of this type.
    LlamaCpp(&'static str),
}

impl By {
    fn name(self) -> String {
        match self {
            Self::Kindling(format, batch) => format!("kindling {format}, {batch} at once"),
            Self::LlamaCpp(kind) => format!("llama.cpp {kind}, 1 at once"),
        }
    }

    fn measure(self, args: &Args, threads: usize) -> anyhow::Result<Value> {
        let (prompt, new) = (args.prompt.to_string(), args.new.to_string());
        match (self, &args.node, &args.gguf) {
            (Self::LlamaCpp(kind), Some(node), Some(gguf)) => {
                // Node finds packages from where a module lies.
                let script = node.join("kindling_llama_cpp.mjs");
                std::fs::write(&script, LLAMA_CPP).with_context(|| format!("cannot write `{}`", script.display()))?;
                let file = gguf.join(format!("gpt2-{kind}.gguf"));
                let args = [script.as_os_str(), file.as_os_str(), prompt.as_ref(), new.as_ref(), threads.to_string().as_ref()]
                    .map(ToOwned::to_owned);
                measure(Path::new("node"), args.to_vec(), &[])
            }
            (Self::LlamaCpp(_), ..) => anyhow::bail!("llama.cpp needs `--node` and `--gguf`"),
            (Self::Kindling(format, batch), ..) => {
                let (format, batch) = (format.to_string(), batch.to_string());
                measure_self(threads, &["writing", "--prompt", &prompt, "--new", &new, "--batch", &batch, "--weights", &format])
            }
        }
    }
}

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let mut everyone: Vec<By> = WeightFormat::ALL.into_iter().flat_map(|format| BATCHES.map(|batch| By::Kindling(format, batch))).collect();
    if args.node.is_some() {
        everyone.extend(["f32", "f16", "q8_0"].map(By::LlamaCpp));
    }
    let (mut measured, mut bandwidth, mut peak) = (vec![Vec::new(); everyone.len()], 0.0f64, 0.0f64);
    for round in 1..=args.rounds.max(1) {
        eprintln!("round {round} of {}", args.rounds.max(1));
        let machine = measure_self(threads, &["peak"])?;
        (bandwidth, peak) = (bandwidth.max(number(&machine, "read_gb_s")?), peak.max(number(&machine, "gflops")?));
        for (by, measured) in everyone.iter().zip(&mut measured) {
            measured.push(by.measure(args, threads)?);
        }
    }
    let row = |(by, values): (&By, &Vec<Value>)| -> anyhow::Result<Value> {
        let (prompt, new) = (median(values, "prompt_tokens_per_s")?, median(values, "new_tokens_per_s")?);
        let mut row = json!({ "by": by.name(), "prompt_tokens_per_s": prompt, "new_tokens_per_s": new });
        if let By::Kindling(_, batch) = by {
            let weights = number(&values[0], "weight_bytes")?;
            row["of_bandwidth"] = json!(weights * new / *batch as f64 / 1e9 / bandwidth);
            row["of_matmul_peak"] = json!(flops_a_token(args.prompt as usize) * prompt / 1e9 / peak);
            row["weight_mib"] = json!(weights / f64::from(1 << 20));
            row["peak_rss_mib"] = json!(median(values, "peak_rss_mib")?);
        }
        Ok(row)
    };
    let rows = everyone.iter().zip(&measured).map(row).collect::<anyhow::Result<Vec<_>>>()?;
    let report = json!({
        "bench": "infer", "machine": machine(threads), "isa": Isa::chosen().to_string(), "threads": threads, "rounds": args.rounds.max(1),
        "prompt": args.prompt, "new": args.new, "read_gb_s": bandwidth, "matmul_peak_gflops": peak, "rows": rows, "measured": measured,
    });
    if args.json {
        println!("{report:#}");
    } else {
        print!("{}, memory is read at {bandwidth:.1} GB/s, matrix products at {peak:.0} GFLOP/s\n\n{}", machine(threads), table(&report)?);
    }
    Ok(())
}

/// FLOPs of a token of a prompt of this length: 2 for each weight of the blocks, of the head those of the last token, and causal attention.
fn flops_a_token(prompt: usize) -> f64 {
    let [layers, _, c, ..] = Shape::Gpt2.sizes();
    let head = 2.0 * (c * VOCAB) as f64 / prompt as f64;
    (layers * 24 * c * c + layers * 2 * c * prompt) as f64 + head
}

/// GPT-2's own vocabulary.
const VOCAB: usize = 50_257;

fn table(report: &Value) -> anyhow::Result<String> {
    let mut out =
        String::from("| by                          | prompt, tokens/s | new, tokens/s | of bandwidth | of matmul peak | weights, MiB |\n");
    out.push_str("|-----------------------------|-----------------:|--------------:|-------------:|---------------:|-------------:|\n");
    for row in report["rows"].as_array().context("rows")? {
        let percent = |key: &str| row[key].as_f64().map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share));
        out.push_str(&format!(
            "| {:27} | {:16.0} | {:13.1} | {:>12} | {:>14} | {:>12} |\n",
            row["by"].as_str().unwrap_or_default(),
            number(row, "prompt_tokens_per_s")?,
            number(row, "new_tokens_per_s")?,
            percent("of_bandwidth"),
            percent("of_matmul_peak"),
            row["weight_mib"].as_f64().map_or_else(String::new, |mib| format!("{mib:.0}")),
        ));
    }
    Ok(out)
}

/// How fast all threads together read memory, in GB/s: the best of some passes over more than any cache holds.
pub(crate) fn read_bandwidth() -> f64 {
    let words = vec![1u64; 1 << 26];
    let chunk = words.len() / rayon::current_num_threads();
    let pass = || {
        let start = Instant::now();
        let sum: u64 = words.par_chunks(chunk).map(|words| words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))).sum();
        assert_eq!(sum, words.len() as u64, "what was read is what was written");
        (words.len() * size_of::<u64>()) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..8).map(|_| pass()).fold(0.0, f64::max)
}

/// Prints one measurement as a line of JSON.
pub(crate) fn in_process(args: &InProcess) -> anyhow::Result<()> {
    let mut config = Shape::Gpt2.config()?.model;
    let tokenizer = Tokenizer::published("gpt2")?;
    config.vocab_size = tokenizer.vocab_size();
    let model = Gpt::new(&config, Seed(1), &Device::flex()).packed(args.weights);
    let weight_bytes = model.packed_bytes();
    let mut times = Vec::new();
    // The first warms up.
    for repetition in 0..3u64 {
        times.push(once(args, &model, &tokenizer, repetition)?);
    }
    let best = |of: fn(&(Duration, Duration)) -> Duration| times[1..].iter().map(of).min().unwrap_or_default().as_secs_f64();
    let (prompt, new) = (best(|times| times.0), best(|times| times.1));
    println!(
        "{}",
        json!({
            "prompt_tokens_per_s": (args.batch * args.prompt) as f64 / prompt,
            "new_tokens_per_s": 1.0 / new,
            "weight_bytes": weight_bytes, "rss_mib": resident_mib(),
            "peak_rss_mib": kindling_train::peak_memory_bytes().map(|bytes| bytes >> 20),
        })
    );
    Ok(())
}

/// How long it takes until every text has its first token, and from there for each token of any of them.
fn once(args: &InProcess, model: &Gpt, tokenizer: &Tokenizer, repetition: u64) -> anyhow::Result<(Duration, Duration)> {
    // All prompts come to their ends together.
    let limits = EngineLimits { n_running: args.batch, n_tokens_a_step: usize::MAX, n_tokens_kept: 0 };
    let mut engine = Engine::new(model, tokenizer, limits);
    for text in 0..args.batch as u64 {
        let ids = (0..args.prompt as u64).map(|i| (stream(repetition * 1000 + text, &[i]) % VOCAB as u64) as u32);
        engine.add(Request {
            prompt: ids.collect(),
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            max_new_tokens: args.new,
            ignore_end: true,
            ..Request::default()
        })?;
    }
    let (mut n_first, start) = (0, Instant::now());
    let mut has_begun = std::collections::BTreeSet::new();
    while n_first < args.batch {
        for (id, event) in engine.step() {
            match event {
                Event::Token { .. } => n_first += usize::from(has_begun.insert(id)),
                Event::Failed(error) => return Err(error.into()),
                Event::Prompt(_) | Event::Ended { .. } => {}
            }
        }
    }
    let prompt = start.elapsed();
    let (start, mut n_new) = (Instant::now(), 0u32);
    while engine.n_requests() != (0, 0) {
        n_new += engine.step().iter().filter(|(_, event)| matches!(event, Event::Token { .. })).count() as u32;
    }
    Ok((prompt, start.elapsed() / n_new))
}
