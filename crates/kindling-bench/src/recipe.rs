//! A whole recipe, from text to a validated model, beside PyTorch's of the same.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::machine::machine;
use crate::process::{ALLOCATOR, measure, median, number};

/// The recipe, and what PyTorch trains it with.
const CONFIG: &str = include_str!("../../../configs/shakespeare-char.toml");
const TORCH: [(&str, &str); 2] =
    [("torch_step.py", include_str!("../peers/torch_step.py")), ("torch_recipe.py", include_str!("../peers/torch_recipe.py"))];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The text, such as Tiny Shakespeare
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// A Python with torch and numpy, to train with PyTorch beside
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Trainings of each, alternating, with seeds from 1 on
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// `train.precision` of the recipe; PyTorch trains in f32
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16", "bf16-emulated"])]
    precision: String,
    /// Steps between two validations
    #[arg(long, default_value_t = 250)]
    eval_every: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let report = report(&args.data, args.peer.as_deref(), args.seeds, &args.precision, args.eval_every, threads)?;
    if args.json {
        println!("{report:#}");
    } else {
        print!("{}\n\n{}", machine(threads), table(&report)?);
    }
    Ok(())
}

/// Trains with each of the seeds, Kindling and PyTorch in turn.
pub(crate) fn report(
    data: &Path,
    peer: Option<&Path>,
    seeds: u64,
    precision: &str,
    eval_every: usize,
    threads: usize,
) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir().context("cannot make a folder for the runs")?;
    for (name, text) in TORCH.into_iter().chain([("recipe.toml", CONFIG)]) {
        std::fs::write(folder.path().join(name), text).with_context(|| format!("cannot write {name}"))?;
    }
    let (mut kindling, mut torch) = (Vec::new(), Vec::new());
    for seed in 1..=seeds.max(1) {
        eprintln!("seed {seed} of {}", seeds.max(1));
        kindling.push(train(folder.path(), data, seed, precision, eval_every, threads)?);
        if let Some(python) = peer {
            let script = folder.path().join("torch_recipe.py");
            let (seed, every, threads) = (seed.to_string(), eval_every.to_string(), threads.to_string());
            let args = [script.as_os_str(), data.as_os_str(), "--seed".as_ref(), seed.as_ref(), "--eval-every".as_ref(), every.as_ref()];
            torch.push(measure(python, args.to_vec(), &[("OMP_NUM_THREADS", &threads)])?);
        }
    }
    let side = |runs: &[Value]| -> anyhow::Result<Value> {
        if runs.is_empty() {
            return Ok(Value::Null);
        }
        let losses = runs.iter().map(|run| number(run, "val_loss")).collect::<anyhow::Result<Vec<_>>>()?;
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        Ok(json!({ "seconds": median(runs, "seconds")?, "val_loss": mean, "runs": runs }))
    };
    let (kindling, torch) = (side(&kindling)?, side(&torch)?);
    let times = torch["seconds"].as_f64().zip(kindling["seconds"].as_f64()).map(|(torch, kindling)| torch / kindling);
    Ok(json!({
        "bench": "recipe", "machine": machine(threads), "threads": threads, "precision": precision, "eval_every": eval_every,
        "kindling": kindling, "torch": torch, "times_torch": times,
    }))
}

/// `kindling train`, whole: reading, tokenizing, training, validating, samples and checkpoints.
fn train(folder: &Path, data: &Path, seed: u64, precision: &str, eval_every: usize, threads: usize) -> anyhow::Result<Value> {
    let program =
        std::env::current_exe().context("cannot find this program")?.with_file_name(format!("kindling{}", std::env::consts::EXE_SUFFIX));
    let (name, prepared) = (format!("seed-{seed}"), format!("data-{seed}"));
    let mut command = Command::new(&program);
    command.args(["--json", "--quiet", "--threads", &threads.to_string(), "--runs-dir"]).arg(folder.join("runs"));
    command.args(["train", "--name", &name, "--precision", precision, "--config"]).arg(folder.join("recipe.toml"));
    command.arg("--data").arg(data).arg("--data-dir").arg(folder.join(prepared));
    command.args(["--set", &format!("seed={seed}"), "--set", &format!("train.eval_every={eval_every}")]);
    command.envs(ALLOCATOR).stderr(Stdio::inherit());
    let start = Instant::now();
    let output = command.output().with_context(|| format!("cannot start `{}`", program.display()))?;
    let seconds = start.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("`{}` ended with {}", program.display(), output.status);
    }
    let report: Value = serde_json::from_slice(&output.stdout).context("`kindling train --json` prints JSON")?;
    let (summary, dir) = (&report["summary"], report["dir"].as_str().context("`kindling train --json` names the run's folder")?);
    let manifest = std::fs::read_to_string(Path::new(dir).join("manifest.json")).context("cannot read the run's manifest")?;
    let computed = serde_json::from_str::<Value>(&manifest)?["precision"].as_str().unwrap_or_default().to_owned();
    if computed != precision {
        bail!("this machine trains in {computed} where {precision} is asked for; `--precision bf16-emulated` rounds the same anywhere");
    }
    Ok(
        json!({ "seed": seed, "seconds": seconds, "val_loss": number(summary, "validation_loss")?, "tokens_per_s": number(summary, "tokens_per_s")? }),
    )
}

/// A table in Markdown.
pub(crate) fn table(report: &Value) -> anyhow::Result<String> {
    let mut out = String::from("| by       | in            | seconds in all | validation loss, nats | runs | Kindling is    |\n");
    out.push_str("|----------|---------------|---------------:|----------------------:|-----:|---------------:|\n");
    for by in ["kindling", "torch"].into_iter().filter(|by| !report[by].is_null()) {
        let side = &report[by];
        let times = report[format!("times_{by}")].as_f64().map(|times| format!("{times:.2} × as fast")).unwrap_or_default();
        let runs = side["runs"].as_array().map_or(0, Vec::len);
        out.push_str(&format!(
            "| {by:8} | {:14.1} | {:21.4} | {runs:4} | {times:>14} |\n",
            number(side, "seconds")?,
            number(side, "val_loss")?
        ));
    }
    Ok(out)
}
