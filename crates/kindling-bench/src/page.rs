//! docs/benchmarks.md: everything that is measured, in one run on one machine. Its text stands in `page.md`.

use std::path::PathBuf;

use anyhow::Context;
use kindling_kernels::{Isa, Precision};

use crate::machine::machine;
use crate::process::measure_self;
use crate::shape::Shape;
use crate::train::Plan;
use crate::{infer, kernels, prepare, recipe, tokenizer, train};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Tiny Shakespeare, or another text for the recipe
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// A Python with torch and numpy
    #[arg(long, value_name = "PYTHON")]
    peer: PathBuf,
    /// A Python with tokenizers, tiktoken, rustbpe and fastokens; by default the same
    #[arg(long, value_name = "PYTHON")]
    tokenizer_peer: Option<PathBuf>,
    /// A folder in which `npm install --ignore-scripts node-llama-cpp` was run, to time llama.cpp beside; with `--gguf`
    #[arg(long, value_name = "FOLDER", requires = "gguf")]
    node: Option<PathBuf>,
    /// A folder with the files that crates/kindling-bench/peers/random_gguf.py makes
    #[arg(long, value_name = "FOLDER")]
    gguf: Option<PathBuf>,
    /// Measurements of each, alternating
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

/// Steps over which memory must stay what it is.
const MANY_STEPS: u32 = 2000;

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let plan = Plan {
        shape: None,
        precision: Precision::F32,
        peer: Some(&args.peer),
        composed: true,
        checkpointed: true,
        rounds: args.rounds,
        steps: None,
        threads,
    };
    let f32_steps = train::report(plan)?;
    let bf16_steps = if Isa::chosen() >= Isa::Avx512Bf16 {
        train::table(&train::report(Plan { precision: Precision::Bf16, composed: false, checkpointed: false, ..plan })?)?
    } else {
        "This processor has no instructions for it (AVX-512 BF16): nothing to measure.\n".to_owned()
    };
    eprintln!("{MANY_STEPS} steps");
    let many = measure_self(threads, &["step", "--shape", Shape::Small.name(), "--steps", &MANY_STEPS.to_string()])?;
    let [early, late] = [0, 1].map(|i| many["rss_mib"][i].as_u64());
    let operations = kernels::report(None, Precision::F32, threads)?;
    let recipe = recipe::report(&args.data, Some(&args.peer), args.rounds as u64, "f32", 250, threads)?;
    let tokenizer = tokenizer::report(None, 16_384, Some(args.tokenizer_peer.as_ref().unwrap_or(&args.peer)), args.rounds, threads)?;
    let prepare = prepare::report(None, "gpt2", args.rounds, threads)?;
    let writing = infer::Args { prompt: 512, new: 64, rounds: args.rounds, node: args.node.clone(), gguf: args.gguf.clone(), json: false };
    let writing = infer::report(&writing, threads)?;
    let sizes = |shape: Shape| {
        let [layers, heads, c, t, b, v] = shape.sizes();
        format!("| {} | {layers} | {heads} | {c} | {t} | {b} | {v} |\n", shape.name())
    };
    print!(
        include_str!("page.md"),
        machine = machine(threads),
        rounds = args.rounds.max(1),
        torch = f32_steps["torch"].as_str().unwrap_or("not measured"),
        shapes = Shape::ALL.map(sizes).concat(),
        f32_steps = train::table(&f32_steps)?,
        bf16_steps = bf16_steps,
        early = early.context("resident memory is read on Linux alone")?,
        late = late.context("resident memory is read on Linux alone")?,
        many_steps = MANY_STEPS,
        operations = kernels::table(&operations)?,
        recipe = recipe::table(&recipe)?,
        tokenizer = tokenizer::table(&tokenizer)?,
        prepare = prepare::table(&prepare)?,
        writing = infer::table(&writing)?,
    );
    Ok(())
}
