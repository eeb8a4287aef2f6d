//! Training steps in a process of their own, so that its peak memory is theirs.

use std::time::Instant;

use burn::tensor::Device;
use kindling_config::Seed;
use kindling_data::Batch;
use kindling_kernels::{Form, Isa, stream, with_form};
use kindling_model::Gpt;
use kindling_train::{AdamW, gradients, peak_memory_bytes};
use serde_json::json;

use crate::shape::Shape;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    shape: Shape,
    /// Compute with stock operations
    #[arg(long)]
    composed: bool,
    /// Timed steps
    #[arg(long)]
    steps: Option<usize>,
}

/// Prints the median step as one line of JSON.
pub(crate) fn command(args: &Args) -> anyhow::Result<()> {
    let form = if args.composed { Form::Composed } else { Form::Fused(Isa::detect()) };
    let times = with_form(form, || times(args.shape, args.steps.unwrap_or_else(|| args.shape.steps())))?;
    let name = if args.composed { "composed".to_owned() } else { Isa::detect().to_string() };
    println!("{}", json!({ "form": name, "step_s": times[times.len() / 2], "peak_rss_mib": peak_memory_bytes().map(|bytes| bytes >> 20) }));
    Ok(())
}

/// Seconds of each step, sorted: forward, loss, backward, clipping and AdamW on random ids.
fn times(shape: Shape, steps: usize) -> anyhow::Result<Vec<f64>> {
    let config = shape.config()?;
    let [.., t, b, v] = shape.sizes();
    let mut model = Gpt::new(&config.model, Seed(1337), &Device::flex().autodiff());
    let mut optimizer = AdamW::new(&config.train);
    let mut times = Vec::new();
    let warm = 2;
    for step in 0..(steps + warm) as u64 {
        let ids: Vec<u32> = (0..(b * (t + 1)) as u64).map(|i| (stream(step, &[i]) % v as u64) as u32).collect();
        let rows = |from: usize| ids.chunks(t + 1).flat_map(|row| row[from..from + t].to_vec()).collect();
        let batch = Batch { n_rows: b, row_len: t, ids: rows(0), targets: rows(1), weights: vec![1.0; b * t] };
        let start = Instant::now();
        let (_, grads) = gradients(&model, &batch, &config, step)?;
        let (next, _) = optimizer.step(config.train.lr, model, grads).map_err(|bad| anyhow::anyhow!("{bad:?}"))?;
        model = next;
        if step >= warm as u64 {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
