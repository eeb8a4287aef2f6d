//! Writing text with a GPT-2 of random weights: reading a prompt, and new tokens, beside llama.cpp, and beside what the machine's memory and
//! matrix products reach.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use burn::tensor::Device;
use kindling_config::{ModelConfig, Seed};
use kindling_infer::{Engine, EngineLimits, Event, Request, Sampling};
use kindling_kernels::{Isa, Precision, WeightFormat, stream};
use kindling_model::Gpt;
use kindling_tokenizer::Tokenizer;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::machine::machine;
use crate::process::{measure, measure_self, median, middle, number};
use crate::shape::Shape;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tokens of each prompt
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=900))]
    pub(crate) prompt: u32,
    /// New tokens of each text
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=512))]
    pub(crate) new: u32,
    /// Measurements of each, alternating
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// A folder in which `npm install --ignore-scripts node-llama-cpp` was run, to time llama.cpp beside; with `--gguf`
    #[arg(long, value_name = "FOLDER", requires = "gguf")]
    pub(crate) node: Option<PathBuf>,
    /// A folder with gpt2-f32.gguf, gpt2-f16.gguf and gpt2-q8_0.gguf, as crates/kindling-bench/peers/random_gguf.py makes them
    #[arg(long, value_name = "FOLDER")]
    pub(crate) gguf: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args)]
pub(crate) struct InProcess {
    #[arg(long)]
    prompt: usize,
    #[arg(long)]
    new: usize,
    #[arg(long)]
    batch: usize,
    #[arg(long)]
    weights: WeightFormat,
    /// All texts have one prompt
    #[arg(long)]
    same: bool,
    /// A smaller model proposes so many tokens at a time
    #[arg(long)]
    proposed: Option<usize>,
    /// The one token is drawn that both models are told to draw, so that all proposals are kept; of random weights else none is
    #[arg(long)]
    kept: bool,
}

/// Texts at once.
const BATCHES: [usize; 2] = [1, 8];
const LLAMA_CPP: &str = include_str!("../peers/llama_cpp.mjs");

/// Tokens that a smaller model proposes at a time.
const PROPOSED: &str = "4";

/// Who writes.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// So many texts.
    Kindling(WeightFormat, usize),
    /// So many texts of one prompt.
    Samples(usize),
    /// With proposals, all of which are kept, or none.
    Proposed(bool),
    /// With a file of this type.
    LlamaCpp(&'static str),
}

impl By {
    fn name(self) -> String {
        match self {
            Self::Kindling(format, batch) => format!("kindling {format}, {batch} at once"),
            Self::Samples(batch) => format!("kindling f32, {batch} of one prompt"),
            Self::Proposed(true) => format!("kindling f32, 1 at once, {PROPOSED} proposed, all kept"),
            Self::Proposed(false) => format!("kindling f32, 1 at once, {PROPOSED} proposed, none kept"),
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
            (ours, ..) => {
                let (format, batch, more) = match ours {
                    Self::Kindling(format, batch) => (format, batch, &[][..]),
                    Self::Samples(batch) => (WeightFormat::F32, batch, &["--same"][..]),
                    Self::Proposed(true) => (WeightFormat::F32, 1, &["--proposed", PROPOSED, "--kept"][..]),
                    _ => (WeightFormat::F32, 1, &["--proposed", PROPOSED][..]),
                };
                let (format, batch) = (format.to_string(), batch.to_string());
                let args = ["writing", "--prompt", &prompt, "--new", &new, "--batch", &batch, "--weights", &format];
                measure_self(threads, &[&args[..], more].concat())
            }
        }
    }
}

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let report = report(args, threads)?;
    if args.json {
        println!("{report:#}");
    } else {
        print!("{}\n\n{}", machine(threads), table(&report)?);
    }
    Ok(())
}

pub(crate) fn report(args: &Args, threads: usize) -> anyhow::Result<Value> {
    let mut everyone: Vec<By> = WeightFormat::ALL.into_iter().flat_map(|format| BATCHES.map(|batch| By::Kindling(format, batch))).collect();
    everyone.extend([By::Samples(BATCHES[1]), By::Proposed(true), By::Proposed(false)]);
    if args.node.is_some() {
        everyone.extend(["f32", "f16", "q8_0"].map(By::LlamaCpp));
    }
    let mut measured = vec![Vec::new(); everyone.len()];
    for round in 1..=args.rounds.max(1) {
        eprintln!("writing, round {round} of {}", args.rounds.max(1));
        for (by, measured) in everyone.iter().zip(&mut measured) {
            let mut value = by.measure(args, threads)?;
            if let By::Kindling(_, batch) = by {
                // What a process reaches is compared with what memory and products gave in the same process: next to it, they may give another half.
                let of = |key: &str| number(&value, key);
                let (steps_per_s, read) = (of("new_tokens_per_s")? / *batch as f64, 1e9 * of("read_gb_s")?);
                let (weights, kept) = (of("weight_bytes")?, of("kept_bytes")? * *batch as f64);
                let flops = flops_a_token(args.prompt as usize) * of("prompt_tokens_per_s")?;
                let peak = 1e9 * of("matmul_gflops")?;
                value["of_bandwidth"] = json!((weights + kept) * steps_per_s / read);
                value["of_bandwidth_by_weights_alone"] = json!(weights * steps_per_s / read);
                value["of_matmul_peak"] = json!(flops / peak);
            }
            measured.push(value);
        }
    }
    let row = |(by, values): (&By, &Vec<Value>)| -> anyhow::Result<Value> {
        let mut row = json!({ "by": by.name() });
        let both = ["prompt_tokens_per_s", "new_tokens_per_s"];
        let ours = [
            "of_bandwidth",
            "of_bandwidth_by_weights_alone",
            "of_matmul_peak",
            "read_gb_s",
            "matmul_gflops",
            "weight_bytes",
            "kept_bytes",
            "peak_rss_mib",
        ];
        let keys = both.iter().chain(if matches!(by, By::Kindling(..)) { &ours[..] } else { &[] });
        for key in keys {
            row[*key] = json!(median(values, key)?);
        }
        Ok(row)
    };
    let rows = everyone.iter().zip(&measured).map(row).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({
        "bench": "infer", "machine": machine(threads), "isa": Isa::chosen().to_string(), "threads": threads, "rounds": args.rounds.max(1),
        "prompt": args.prompt, "new": args.new, "rows": rows, "measured": measured,
    }))
}

/// FLOPs of a token of a prompt of this length: 2 for each weight of the blocks, of the head those of the last token, and causal attention.
fn flops_a_token(prompt: usize) -> f64 {
    let [layers, _, c, ..] = Shape::Gpt2.sizes();
    let head = 2.0 * (c * VOCAB) as f64 / prompt as f64;
    (layers * 24 * c * c + layers * 2 * c * prompt) as f64 + head
}

/// GPT-2's own vocabulary.
const VOCAB: usize = 50_257;

pub(crate) fn table(report: &Value) -> anyhow::Result<String> {
    let mut out = String::from(
        "| by | prompt, tokens/s | of products | new, tokens/s | of memory | weights, MiB |\n|---|---:|---:|---:|---:|---:|\n",
    );
    for row in report["rows"].as_array().context("rows")? {
        let percent = |key: &str| row[key].as_f64().map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share));
        out.push_str(&format!(
            "| {} | {:.0} | {} | {:.1} | {} | {} |\n",
            row["by"].as_str().unwrap_or_default(),
            number(row, "prompt_tokens_per_s")?,
            percent("of_matmul_peak"),
            number(row, "new_tokens_per_s")?,
            percent("of_bandwidth"),
            row["weight_bytes"].as_f64().map_or_else(String::new, |bytes| format!("{:.0}", bytes / f64::from(1 << 20))),
        ));
    }
    Ok(out)
}

/// How fast all threads together read memory, in GB/s, in each of some passes.
fn read_bandwidths(words: &[u64]) -> Vec<f64> {
    let chunk = words.len() / rayon::current_num_threads();
    let pass = || {
        let start = Instant::now();
        let sum: u64 = words.par_chunks(chunk).map(|words| words.iter().fold(0u64, |sum, word| sum.wrapping_add(*word))).sum();
        assert_eq!(sum, words.len() as u64, "what was read is what was written");
        size_of_val(words) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..8).map(|_| pass()).collect()
}

/// Prints one measurement as a line of JSON.
pub(crate) fn in_process(args: &InProcess) -> anyhow::Result<()> {
    let mut config = Shape::Gpt2.config()?.model;
    let tokenizer = Tokenizer::published("gpt2")?;
    config.vocab_size = tokenizer.vocab_size();
    let model = Gpt::new(&config, Seed(1), &Device::flex()).packed(args.weights);
    let small = ModelConfig { n_layers: 2, n_heads: 2, d_model: 128, d_ff: 512, ..config };
    let draft = args.proposed.map(|n| (Gpt::new(&small, Seed(2), &Device::flex()).packed(args.weights), n));
    let draft = draft.as_ref();
    let weight_bytes = model.packed_bytes();
    // Keys and values that a new token reads, half way.
    let value_bytes = if args.weights == WeightFormat::F32 { 4 } else { 2 };
    let kept_bytes = 2 * config.n_layers * config.d_model * value_bytes * (args.prompt + args.new / 2);
    // The first warms up.
    once(args, (&model, draft), &tokenizer, 0)?;
    let rss = kindling_train::peak_memory_bytes().map(|bytes| bytes >> 20);
    // More than any cache holds.
    let words = vec![1u64; 1 << 26];
    let (mut prompts, mut news, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for repetition in 1..4u64 {
        let (prompt, new) = once(args, (&model, draft), &tokenizer, repetition)?;
        prompts.push(prompt.as_secs_f64());
        news.push(new.as_secs_f64());
        reads.extend(read_bandwidths(&words));
    }
    // Where bf16 is emulated, products in f32 are what can be reached.
    let precision = if Isa::chosen() >= Isa::Avx512Bf16 { args.weights.precision() } else { Precision::F32 };
    let peak = kindling_train::matmul_peak(&Device::flex(), precision, Duration::from_secs(2));
    let (prompt, new, read) = (middle(prompts), middle(news), middle(reads));
    println!(
        "{}",
        json!({
            "prompt_tokens_per_s": (args.batch * args.prompt) as f64 / prompt,
            "new_tokens_per_s": 1.0 / new,
            "weight_bytes": weight_bytes, "kept_bytes": kept_bytes, "read_gb_s": read, "matmul_gflops": peak / 1e9,
            "peak_rss_mib": rss,
        })
    );
    Ok(())
}

/// How long it takes until every text has its first token, and from there for each token of any of them.
fn once(
    args: &InProcess,
    (model, draft): (&Gpt, Option<&(Gpt, usize)>),
    tokenizer: &Tokenizer,
    repetition: u64,
) -> anyhow::Result<(Duration, Duration)> {
    // All prompts come to their ends together.
    let limits = EngineLimits { n_running: args.batch, n_tokens_a_step: usize::MAX, n_tokens_kept: 0 };
    let mut engine = Engine::new(model, tokenizer, limits);
    if let Some((draft, n_tokens)) = draft {
        engine = engine.with_draft(draft, *n_tokens)?;
    }
    for text in 0..args.batch as u64 {
        let salt = repetition * 1000 + if args.same { 0 } else { text };
        let ids = (0..args.prompt as u64).map(|i| (stream(salt, &[i]) % VOCAB as u64) as u32);
        engine.add(Request {
            prompt: ids.collect(),
            sampling: Sampling {
                temperature: 0.0,
                logit_bias: if args.kept { vec![(262, 100.0)] } else { Vec::new() },
                ..Sampling::default()
            },
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
