//! Training steps in a process of their own, so that its peak memory is theirs.

use std::time::Instant;

use burn::tensor::Device;
use kindling_config::Seed;
use kindling_data::Batch;
use kindling_kernels::{Form, Isa, Precision, stream, with_form};
use kindling_model::Gpt;
use kindling_train::{Optimizer, gradients, peak_memory_bytes};
use serde_json::json;

use crate::machine::resident_mib;
use crate::process::middle;
use crate::shape::Shape;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    shape: Shape,
    /// Compute with stock operations
    #[arg(long)]
    composed: bool,
    /// What factors of matrix products are rounded to
    #[arg(long, value_parser = precision, default_value_t)]
    precision: Precision,
    /// Keep only what enters each block, and compute blocks again for their gradients
    #[arg(long)]
    checkpointed: bool,
    /// Timed steps
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
}

/// A precision by its name. bf16 is emulated where the processor has no instructions for it.
pub(crate) fn precision(text: &str) -> Result<Precision, String> {
    [Precision::F32, Precision::Bf16].into_iter().find(|one| one.to_string() == text).ok_or_else(|| "expected `f32` or `bf16`".to_owned())
}

/// Prints the median step as one line of JSON.
pub(crate) fn command(args: &Args) -> anyhow::Result<()> {
    let form = if args.composed { Form::Composed } else { Form::Fused(Isa::detect()) };
    let (times, resident) = with_form(form, || times(args))?;
    let name = if args.composed { "composed".to_owned() } else { Isa::detect().to_string() };
    println!(
        "{}",
        json!({
            "form": name, "precision": args.precision.to_string(), "step_s": middle(times),
            "peak_rss_mib": peak_memory_bytes().map(|bytes| bytes >> 20), "rss_mib": resident,
        })
    );
    Ok(())
}

/// Seconds of each step: forward, loss, backward, clipping and AdamW on random ids. And the resident MiB after a
/// tenth of the steps and after the last, between which nothing may grow.
fn times(args: &Args) -> anyhow::Result<(Vec<f64>, [Option<u64>; 2])> {
    let shape = args.shape;
    let mut config = shape.config()?;
    config.train.gradient_checkpointing = args.checkpointed;
    let [.., t, b, v] = shape.sizes();
    let mut model = Gpt::new(&config.model, Seed(1337), &Device::flex().autodiff()).with_precision(args.precision);
    let mut optimizer = Optimizer::new(&config.train);
    let (mut times, mut resident) = (Vec::new(), [None, None]);
    let steps = args.steps.map_or_else(|| shape.steps(), |steps| steps as usize);
    let warm = 2;
    for step in 0..(steps + warm) as u64 {
        let ids: Vec<u32> = (0..(b * (t + 1)) as u64).map(|i| (stream(step, &[i]) % v as u64) as u32).collect();
        let rows = |from: usize| ids.chunks(t + 1).flat_map(|row| row[from..from + t].to_vec()).collect();
        let batch = Batch {
            n_rows: b,
            row_len: t,
            ids: rows(0),
            targets: rows(1),
            weights: vec![1.0; b * t],
            document_starts: None,
            restart_positions: false,
        };
        let start = Instant::now();
        let (_, grads) = gradients(&model, &batch, &config, step)?;
        let (next, norm) = optimizer.step(config.train.lr, model, grads);
        norm.map_err(|bad| anyhow::anyhow!("{bad:?}"))?;
        model = next;
        if step >= warm as u64 {
            times.push(start.elapsed().as_secs_f64());
        }
        if times.len() == steps.div_ceil(10) {
            resident[0] = resident_mib();
        }
    }
    resident[1] = resident_mib();
    Ok((times, resident))
}
