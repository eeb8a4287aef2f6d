//! Whole training steps beside PyTorch's, alternating.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kindling_kernels::{Isa, Precision};
use serde_json::{Value, json};

use crate::loader::batch_seconds;
use crate::machine::machine;
use crate::process::{measure, measure_self, median, number};
use crate::shape::Shape;
use crate::step::precision;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One shape; without it, all of them
    #[arg(long)]
    shape: Option<Shape>,
    /// What factors of matrix products are rounded to, on both sides
    #[arg(long, value_parser = precision, default_value_t)]
    precision: Precision,
    /// A Python with torch and numpy, to time PyTorch beside
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Time the same of stock operations, too
    #[arg(long)]
    composed: bool,
    /// Time gradient checkpointing by block, too
    #[arg(long)]
    checkpointed: bool,
    /// Measurements of each, alternating
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Timed steps of each measurement
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What is timed.
#[derive(Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) shape: Option<Shape>,
    pub(crate) precision: Precision,
    pub(crate) peer: Option<&'a Path>,
    pub(crate) composed: bool,
    pub(crate) checkpointed: bool,
    pub(crate) rounds: usize,
    pub(crate) steps: Option<u32>,
    pub(crate) threads: usize,
}

const TORCH_STEP: &str = include_str!("../peers/torch_step.py");

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    if args.composed && args.precision != Precision::F32 {
        bail!("the composed model is in f32; leave out `--composed`, or `--precision {}`", args.precision);
    }
    let &Args { shape, precision, composed, checkpointed, rounds, steps, .. } = args;
    let report = report(Plan { shape, precision, peer: args.peer.as_deref(), composed, checkpointed, rounds, steps, threads })?;
    if args.json {
        println!("{report:#}");
    } else {
        print!("{}, {}\n\n{}", machine(threads), precision, table(&report)?);
    }
    Ok(())
}

/// Who computes the steps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Kindling,
    Checkpointed,
    Composed,
    Torch,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Kindling => "kindling",
            Self::Checkpointed => "checkpointed",
            Self::Composed => "composed",
            Self::Torch => "torch",
        }
    }

    /// Measures in a process of its own.
    fn measure(self, plan: &Plan<'_>, shape: Shape) -> anyhow::Result<Value> {
        let steps = plan.steps.map_or_else(|| shape.steps(), |steps| steps as usize).to_string();
        let precision = plan.precision.to_string();
        if let (Self::Torch, Some(python)) = (self, plan.peer) {
            let threads = plan.threads.to_string();
            let args = vec!["-c", TORCH_STEP, "--shape", shape.name(), "--dtype", &precision, "--steps", &steps];
            return measure(python, args, &[("OMP_NUM_THREADS", &threads)]);
        }
        let mut args = vec!["step", "--shape", shape.name(), "--precision", &precision, "--steps", &steps];
        match self {
            Self::Checkpointed => args.push("--checkpointed"),
            Self::Composed => args.push("--composed"),
            Self::Kindling | Self::Torch => {}
        }
        measure_self(plan.threads, &args)
    }
}

/// Times the steps of every shape by everyone, in turn.
pub(crate) fn report(plan: Plan<'_>) -> anyhow::Result<Value> {
    let optional = [(By::Checkpointed, plan.checkpointed), (By::Composed, plan.composed), (By::Torch, plan.peer.is_some())];
    let everyone: Vec<By> = [By::Kindling].into_iter().chain(optional.into_iter().filter(|by| by.1).map(|by| by.0)).collect();
    let rounds = plan.rounds.max(1);
    let (mut shapes, mut torch_version) = (Vec::new(), Value::Null);
    for shape in Shape::ALL.into_iter().filter(|shape| plan.shape.is_none_or(|only| only == *shape)) {
        let mut measured = vec![Vec::new(); everyone.len()];
        let mut peak = 0.0f64;
        for round in 1..=rounds {
            eprintln!("{}: round {round} of {rounds}", shape.name());
            peak = peak.max(number(&measure_self(plan.threads, &["peak"])?, "gflops")?);
            for (by, measured) in everyone.iter().zip(&mut measured) {
                measured.push(by.measure(&plan, shape)?);
                if *by == By::Torch {
                    torch_version = measured[0]["peer"].clone();
                }
            }
        }
        let sides = sides(shape, &everyone, &measured, peak)?;
        let ([random, epoch], step) = (batch_seconds(shape)?, number(&sides[0], "step_s")?);
        shapes.push(json!({
            "shape": shape.name(), "flops": shape.flops(), "matmul_peak_gflops": peak, "by": sides,
            "batch_s": { "random": random, "epoch": epoch }, "loader_share": { "random": random / step, "epoch": epoch / step },
        }));
    }
    Ok(json!({
        "bench": "train", "machine": machine(plan.threads), "isa": Isa::chosen().to_string(), "threads": plan.threads, "rounds": rounds,
        "precision": plan.precision.to_string(), "torch": torch_version, "shapes": shapes,
    }))
}

/// What is printed of each at one shape.
fn sides(shape: Shape, everyone: &[By], measured: &[Vec<Value>], peak: f64) -> anyhow::Result<Vec<Value>> {
    let [.., t, b, _] = shape.sizes();
    let kindling = median(measured.first().context("Kindling is measured")?, "step_s")?;
    let side = |(by, values): (&By, &Vec<Value>)| -> anyhow::Result<Value> {
        let step = median(values, "step_s")?;
        let gflops = shape.flops() / step / 1e9;
        let steps = values.iter().map(|value| number(value, "step_s")).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(json!({
            "by": by.name(), "step_s": step, "steps_s": steps, "tokens_per_s": (b * t) as f64 / step, "gflops": gflops,
            "of_matmul_peak": gflops / peak, "peak_rss_mib": median(values, "peak_rss_mib")?,
            "rss_mib": values.last().map(|value| value["rss_mib"].clone()), "kindling_is_times_as_fast": step / kindling,
        }))
    };
    everyone.iter().zip(measured).map(side).collect()
}

/// A table in Markdown, which reads well in a terminal, too.
pub(crate) fn table(report: &Value) -> anyhow::Result<String> {
    let mut out = String::from("| shape  | by           | step, s | tokens/s | GFLOP/s | of peak | peak MiB | Kindling is    |\n");
    out.push_str("|--------|--------------|--------:|---------:|--------:|--------:|---------:|---------------:|\n");
    for row in report["shapes"].as_array().context("shapes")? {
        for side in row["by"].as_array().context("sides")? {
            let by = side["by"].as_str().unwrap_or_default();
            let times = number(side, "kindling_is_times_as_fast")?;
            let times = if by == By::Kindling.name() { String::new() } else { format!("{times:.2} × as fast") };
            out.push_str(&format!(
                "| {:6} | {by:12} | {:7.4} | {:8.0} | {:7.1} | {:6.1}% | {:8.0} | {times:>14} |\n",
                row["shape"].as_str().unwrap_or_default(),
                number(side, "step_s")?,
                number(side, "tokens_per_s")?,
                number(side, "gflops")?,
                100.0 * number(side, "of_matmul_peak")?,
                number(side, "peak_rss_mib")?,
            ));
        }
    }
    out.push_str("\nMaking a batch, which the steps do not include, takes in random order and in epochs:");
    for (i, row) in report["shapes"].as_array().context("shapes")?.iter().enumerate() {
        let in_both = |key: &str| Ok::<_, anyhow::Error>([number(&row[key], "random")?, number(&row[key], "epoch")?]);
        let ([random, epoch], shares) = (in_both("batch_s")?.map(|seconds| 1e6 * seconds), in_both("loader_share")?);
        let (comma, name) = (if i > 0 { "," } else { "" }, row["shape"].as_str().unwrap_or_default());
        let percent = 100.0 * shares[0].max(shares[1]);
        out.push_str(&format!("{comma} {name} {random:.1} and {epoch:.1} µs, {percent:.4}% of a step"));
    }
    out.push_str(".\n");
    Ok(out)
}
