//! `kindling runs`: which runs there are, and one of them whole.

use std::process::ExitCode;

use kindling_runs::{Registry, Run, RunInfo};
use serde_json::{Value, json};

use crate::args::{Args, RunsCommand};
use crate::output;

pub(crate) fn run(args: &Args, command: &RunsCommand) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    match command {
        RunsCommand::List => list(args, &registry.list()?)?,
        RunsCommand::Show { run } => show(args, &Run::open(&registry.resolve(run)?)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &Args, runs: &[RunInfo]) -> anyhow::Result<()> {
    if args.json {
        return output::json(&runs.iter().map(as_json).collect::<Vec<_>>());
    }
    if runs.is_empty() {
        return output::text(&format!("no runs in `{}`\n", args.runs_dir.display()));
    }
    let row = |info: &RunInfo| {
        vec![
            info.manifest.name.clone(),
            status(info),
            format!("{}/{}", info.step, info.config.train.last_step(&info.config.model)),
            output::count(info.manifest.n_params as u64),
            info.summary.as_ref().map_or("-".into(), |s| format!("{:.4}", s.validation_loss)),
            info.summary.as_ref().and_then(|s| s.bits_per_byte).map_or("-".into(), |bpb| format!("{bpb:.4}")),
            info.manifest.device.clone(),
            created(info),
        ]
    };
    output::table(
        &["run", "status", "step", "parameters", "val loss", "bits/byte", "device", "created (UTC)"],
        &runs.iter().map(row).collect::<Vec<_>>(),
    )
}

fn show(args: &Args, run: &Run) -> anyhow::Result<()> {
    let info = run.info()?;
    // A damaged summary is an error here, where one run is asked for.
    run.summary()?;
    let metrics = run.metrics()?;
    if args.json {
        let mut value = as_json(&info);
        value["metrics"] = json!(metrics);
        return output::json(&value);
    }
    let manifest = &info.manifest;
    let mut rows = vec![
        ("run", info.dir.display().to_string()),
        ("status", format!("{}, step {} of {}", status(&info), info.step, info.config.train.last_step(&info.config.model))),
        ("created", format!("{} UTC, kindling {}, burn {}", created(&info), manifest.kindling, manifest.burn)),
        ("device", format!("{} in {}, {} threads", manifest.device, manifest.precision, manifest.threads)),
        ("parameters", output::count(manifest.n_params as u64)),
        ("seed", info.config.seed.0.to_string()),
        ("data", manifest.data.dir.clone()),
        ("corpus hash", manifest.data.corpus_hash.clone()),
        ("tokenizer hash", manifest.data.tokenizer_hash.clone()),
    ];
    if let Some(summary) = &info.summary {
        rows.extend([
            (
                "validation loss",
                format!("{:.4} nats a token (best {:.4} at step {})", summary.validation_loss, summary.best.0, summary.best.1),
            ),
            ("perplexity", output::perplexity(summary.perplexity)),
            ("bits per byte", output::bits_per_byte(summary.bits_per_byte)),
            ("next-token accuracy", format!("{:.2} %", 100.0 * summary.accuracy)),
            ("tokens", output::count(summary.tokens)),
            ("tokens/s", format!("{:.0}", summary.tokens_per_s)),
        ]);
        rows.extend(summary.forgetting.iter().flat_map(super::finetune::rows));
        rows.extend(summary.mfu.map(|_| ("MFU", super::train::mfu(summary))));
    }
    output::pairs(&rows)?;
    let validations: Vec<_> = metrics.iter().filter(|row| row["kind"] == "validation").collect();
    if !validations.is_empty() {
        let figure = |row: &Value, key: &str| row[key].as_f64().map_or("-".into(), |value| format!("{value:.4}"));
        let row = |row: &&Value| vec![row["step"].to_string(), figure(row, "loss"), figure(row, "bits_per_byte"), figure(row, "accuracy")];
        output::text("\n")?;
        output::table(&["step", "val loss", "bits/byte", "accuracy"], &validations.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn as_json(info: &RunInfo) -> Value {
    json!({
        "name": info.manifest.name, "dir": info.dir, "status": info.status, "step": info.step,
        "manifest": info.manifest, "config": info.config, "summary": info.summary
    })
}

fn status(info: &RunInfo) -> String {
    serde_json::to_value(info.status).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn created(info: &RunInfo) -> String {
    jiff::Timestamp::from_millisecond(info.manifest.created_unix_ms)
        .map_or("unknown".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
