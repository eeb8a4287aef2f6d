//! Whole training steps beside PyTorch's, alternating, each measurement in a process of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use kindling_kernels::Isa;
use serde_json::{Value, json};

use crate::machine::processor;
use crate::shape::Shape;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One shape; without it, all of them
    #[arg(long)]
    shape: Option<Shape>,
    /// A Python with torch and numpy, to time PyTorch beside
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Time the same of stock operations, too
    #[arg(long)]
    composed: bool,
    /// Measurements of each, alternating
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Print JSON instead of a table
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print the page docs/benchmarks.md
    #[arg(long)]
    markdown: bool,
}

/// glibc's allocator told to keep what it gets, as `kindling` does and as is best for PyTorch, too: every step allocates the
/// same big buffers, which otherwise go back to the kernel and come back page by page.
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "1000000000000"), ("MALLOC_TOP_PAD_", "268435456")];

const TORCH_STEP: &str = include_str!("../peers/torch_step.py");

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let threads = threads.to_string();
    let kindling = |rest: &[&str]| measure(&this, [&["--threads", &threads], rest].concat(), &[]);
    let (mut rows, mut torch_version) = (Vec::new(), Value::Null);
    for shape in Shape::ALL.into_iter().filter(|shape| args.shape.is_none_or(|only| only == *shape)) {
        let (mut fused, mut composed, mut torch, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 1..=args.rounds.max(1) {
            eprintln!("{}: round {round} of {}", shape.name(), args.rounds.max(1));
            peaks.push(number(&kindling(&["peak"])?, "gflops")?);
            fused.push(kindling(&["step", "--shape", shape.name()])?);
            if args.composed {
                composed.push(kindling(&["step", "--shape", shape.name(), "--composed"])?);
            }
            if let Some(python) = &args.peer {
                let threads = [("OMP_NUM_THREADS", threads.as_str())];
                torch.push(measure(python, vec!["-c", TORCH_STEP, "--shape", shape.name()], &threads)?);
            }
        }
        if let Some(last) = torch.last() {
            torch_version = last["peer"].clone();
        }
        let peak = peaks.iter().copied().fold(0.0, f64::max);
        rows.push(row(shape, &fused, &composed, &torch, peak)?);
    }
    let report = json!({
        "bench": "train", "processor": processor(), "isa": Isa::detect().to_string(), "threads": threads, "rounds": args.rounds.max(1),
        "torch": torch_version, "shapes": rows,
    });
    if args.json {
        println!("{report:#}");
    } else if args.markdown {
        print!("{}", page(&report)?);
    } else {
        print!("{}, {}, {} threads\n\n{}", text(&report["processor"]), text(&report["isa"]), text(&report["threads"]), table(&report)?);
    }
    Ok(())
}

/// Runs a program that prints one line of JSON.
fn measure(program: &Path, args: Vec<impl AsRef<OsStr>>, env: &[(&str, &str)]) -> anyhow::Result<Value> {
    let mut command = Command::new(program);
    command.args(args).envs(ALLOCATOR).envs(env.iter().copied()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{}`", program.display()))?;
    if !output.status.success() {
        bail!("`{}` ended with {}", program.display(), output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("`{}` printed `{line}`, expected JSON", program.display()))
}

fn number(value: &Value, key: &str) -> anyhow::Result<f64> {
    value[key].as_f64().with_context(|| format!("`{value}` has no number `{key}`"))
}

/// The median of some measurements of one key.
fn median(values: &[Value], key: &str) -> anyhow::Result<f64> {
    let mut numbers = values.iter().map(|value| number(value, key)).collect::<anyhow::Result<Vec<_>>>()?;
    numbers.sort_by(f64::total_cmp);
    Ok(if numbers.len() % 2 == 1 {
        numbers[numbers.len() / 2]
    } else {
        (numbers[numbers.len() / 2 - 1] + numbers[numbers.len() / 2]) / 2.0
    })
}

/// What is printed of one shape.
fn row(shape: Shape, fused: &[Value], composed: &[Value], torch: &[Value], peak: f64) -> anyhow::Result<Value> {
    let [.., t, b, _] = shape.sizes();
    let side = |values: &[Value]| -> anyhow::Result<Value> {
        if values.is_empty() {
            return Ok(Value::Null);
        }
        let step = median(values, "step_s")?;
        let gflops = shape.flops() / step / 1e9;
        let steps = values.iter().map(|value| number(value, "step_s")).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(json!({
            "step_s": step, "steps_s": steps, "tokens_per_s": (b * t) as f64 / step, "gflops": gflops,
            "of_matmul_peak": gflops / peak, "peak_rss_mib": median(values, "peak_rss_mib")?,
        }))
    };
    let (fused, composed, torch) = (side(fused)?, side(composed)?, side(torch)?);
    let times = |other: &Value| other["step_s"].as_f64().zip(fused["step_s"].as_f64()).map(|(other, ours)| other / ours);
    Ok(json!({
        "shape": shape.name(), "flops": shape.flops(), "matmul_peak_gflops": peak, "kindling": fused, "composed": composed, "torch": torch,
        "times_composed": times(&composed), "times_torch": times(&torch),
    }))
}

/// A table in Markdown, which reads well in a terminal, too.
fn table(report: &Value) -> anyhow::Result<String> {
    let mut out = String::from("| shape  | by       | step, s | tokens/s | GFLOP/s | of peak | peak MiB | Kindling is    |\n");
    out.push_str("|--------|----------|--------:|---------:|--------:|--------:|---------:|---------------:|\n");
    for row in report["shapes"].as_array().context("rows")? {
        for by in ["kindling", "composed", "torch"] {
            let side = &row[by];
            if side.is_null() {
                continue;
            }
            let times = row[format!("times_{by}")].as_f64().map(|times| format!("{times:.2} × as fast")).unwrap_or_default();
            out.push_str(&format!(
                "| {:6} | {by:8} | {:7.4} | {:8.0} | {:7.1} | {:6.1}% | {:8.0} | {times:>14} |\n",
                text(&row["shape"]),
                number(side, "step_s")?,
                number(side, "tokens_per_s")?,
                number(side, "gflops")?,
                100.0 * number(side, "of_matmul_peak")?,
                number(side, "peak_rss_mib")?,
            ));
        }
    }
    Ok(out)
}

/// docs/benchmarks.md.
fn page(report: &Value) -> anyhow::Result<String> {
    let sizes = |shape: Shape| {
        let [layers, heads, c, t, b, v] = shape.sizes();
        format!("| {} | {layers} | {heads} | {c} | {t} | {b} | {v} |\n", shape.name())
    };
    Ok(format!(
        include_str!("page.md"),
        processor = text(&report["processor"]),
        isa = text(&report["isa"]),
        threads = text(&report["threads"]),
        rounds = text(&report["rounds"]),
        torch = report["torch"].as_str().unwrap_or("not measured"),
        shapes = Shape::ALL.map(sizes).concat(),
        table = table(report)?,
    ))
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
