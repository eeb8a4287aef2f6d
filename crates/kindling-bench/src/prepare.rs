//! Preparing a corpus, from a file on disk to shards on disk, beside the encoder alone on the same text in memory.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context;
use kindling_config::RunConfig;
use kindling_data::{Preparation, prepare};
use kindling_tokenizer::Tokenizer;
use kindling_train::peak_memory_bytes;
use serde_json::{Value, json};

use crate::machine::machine;
use crate::process::{measure_self, median, number};
use crate::tokenizer::text_or_rust_source;

/// A config to begin with: of it, what concerns the tokenizer and the data is replaced.
const CONFIG: &str = include_str!("../../../configs/spark.toml");

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A text; by default 1 GB: 100 MB of Rust source from the packages that this workspace is built from, ten times
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// A published vocabulary, or a tokenizer's file
    #[arg(long, default_value = "gpt2")]
    tokenizer: String,
    /// Measurements of each, alternating
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// One preparation, in this process alone.
#[derive(clap::Args)]
pub(crate) struct InProcess {
    text: PathBuf,
    tokenizer: PathBuf,
}

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let report = report(args.text.as_deref(), &args.tokenizer, args.rounds, threads)?;
    if args.json {
        println!("{report:#}");
    } else {
        print!("{}\n\n{}", machine(threads), table(&report)?);
    }
    Ok(())
}

pub(crate) fn report(text: Option<&Path>, tokenizer: &str, rounds: usize, threads: usize) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir().context("cannot make a folder for the measurements")?;
    let text = &text_or_rust_source(text, folder.path(), 10)?;
    let n_bytes = std::fs::metadata(text).with_context(|| format!("cannot read `{}`", text.display()))?.len();
    let vocabulary = folder.path().join("tokenizer.json");
    Tokenizer::open(tokenizer)?.save(&vocabulary)?;
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let (text_path, vocabulary) = (path(text)?, path(&vocabulary)?);
    let (mut encoding, mut preparing) = (Vec::new(), Vec::new());
    for round in 1..=rounds.max(1) {
        eprintln!("round {round} of {}: encoding, preparing", rounds.max(1));
        encoding.push(measure_self(threads, &["tokenize", "encode", &text_path, &vocabulary, "--vocab", "0"])?);
        preparing.push(measure_self(threads, &["preparing", &text_path, &vocabulary])?);
    }
    let mb = n_bytes as f64 / 1e6;
    let row = |by: &str, values: &[Value]| -> anyhow::Result<Value> {
        let seconds = median(values, "seconds")?;
        Ok(json!({
            "by": by, "seconds": seconds, "mb_per_s": mb / seconds, "peak_rss_mib": median(values, "peak_rss_mib")?,
            "all_seconds": values.iter().map(|value| number(value, "seconds")).collect::<anyhow::Result<Vec<_>>>()?,
        }))
    };
    let share = median(&encoding, "seconds")? / median(&preparing, "seconds")?;
    Ok(json!({
        "bench": "prepare", "machine": machine(threads), "threads": threads, "rounds": rounds.max(1), "tokenizer": tokenizer,
        "text_bytes": n_bytes, "n_tokens": preparing[0]["n_tokens"], "share_of_encoder": share,
        "rows": [row("encoder alone", &encoding)?, row("prepare", &preparing)?],
    }))
}

/// One measurement.
pub(crate) fn in_process(args: &InProcess) -> anyhow::Result<()> {
    // On the disk that the text is on: a folder for temporary files may be in memory.
    let folder = tempfile::tempdir_in(args.text.parent().unwrap_or(Path::new("."))).context("cannot make a folder beside the text")?;
    let quoted = |path: &Path| serde_json::to_string(path).context("a path that is not UTF-8");
    let overrides = [
        format!("data.paths=[{}]", quoted(&args.text)?),
        "data.packages=[]".into(),
        "data.validation_packages=[]".into(),
        "tokenizer.kind=\"file\"".into(),
        format!("tokenizer.path={}", quoted(&args.tokenizer)?),
    ];
    let config = RunConfig::from_toml(CONFIG, "spark.toml", &overrides)?;
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let data = prepare(&Preparation { config: &config, data_dir: folder.path(), workspace: folder.path(), stop: &stop }, &mut |_| {})?;
    let seconds = begin.elapsed().as_secs_f64();
    let n_tokens = data.training.n_tokens() + data.validation.n_tokens();
    println!("{}", json!({ "seconds": seconds, "n_tokens": n_tokens, "peak_rss_mib": peak_memory_bytes().map(|bytes| bytes >> 20) }));
    Ok(())
}

/// A table in Markdown.
pub(crate) fn table(report: &Value) -> anyhow::Result<String> {
    let mut out = String::from("|               | seconds |   MB/s | peak MiB |\n|---------------|--------:|-------:|---------:|\n");
    for row in report["rows"].as_array().context("a report has rows")? {
        out.push_str(&format!(
            "| {:13} | {:7.3} | {:6.1} | {:8.0} |\n",
            row["by"].as_str().unwrap_or_default(),
            number(row, "seconds")?,
            number(row, "mb_per_s")?,
            number(row, "peak_rss_mib")?
        ));
    }
    out.push_str(&format!(
        "\nThe text has {} bytes; the vocabulary is {}. Preparing it takes place at {:.0} % of the encoder's own speed.\n",
        report["text_bytes"],
        report["tokenizer"].as_str().unwrap_or_default(),
        100.0 * number(report, "share_of_encoder")?
    ));
    Ok(out)
}
