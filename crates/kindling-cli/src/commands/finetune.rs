//! `kindling finetune`: a new run from the weights of another. What that is, `kindling-train` knows.

use std::process::ExitCode;

use kindling_config::{BaseConfig, Distillation, LoraConfig, LoraTarget, ModelConfig, RunConfig};
use kindling_runs::{Change, Forgetting, Registry, Run, RunInfo, hash_file};
use kindling_train::{Training, base_weights, finetune_config};
use serde_json::{Value, json};

use super::preview::preview;
use super::train::{New, begin, go_on, prepared};
use crate::args::{Args, FinetuneArgs};
use crate::failure::Advice;
use crate::opened::open_run;
use crate::progress::Progress;
use crate::{corpus, device, interrupt, output};

pub(crate) fn run(args: &Args, finetune_args: &FinetuneArgs) -> anyhow::Result<ExitCode> {
    let device = device::open(&args.device)?;
    let registry = Registry::new(&args.runs_dir);
    let mut progress = Progress::new(args.quiet);
    let stop = interrupt::listen(args.quiet)?;
    if args.may_have_dashboard() {
        progress.on_dashboard(&stop);
    }
    // Opened as for use, so that weights and tokenizer are verified.
    let opened = open_run(args, &registry, &finetune_args.base)?;
    let folder = tempfile::tempdir()?;
    let weights = base_weights(&opened, folder.path())?;
    let base = BaseConfig {
        run: std::path::absolute(opened.run.dir())?.display().to_string(),
        weights_hash: hash_file(&weights)?,
        distillation: finetune_args.lwf.map(|weight| Distillation { weight, temperature: finetune_args.temperature }),
        lora: lora(finetune_args),
    };
    let config = config(&opened.run, base, finetune_args)?;
    // Its weights are read again from the new run.
    drop(opened);
    if let Some(n) = finetune_args.preview {
        let (config, data) = prepared(config, args, &finetune_args.data_dir, &stop, &mut progress)?;
        preview(&config, &data, n, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let new = New { name: finetune_args.name.as_deref(), data_dir: &finetune_args.data_dir, base: Some(&weights) };
    let (run, config, data) = begin(&registry, args, &new, config, &device, &stop, &mut progress)?;
    go_on(
        args,
        &registry,
        &Training { run: &run, config: &config, data: &data, device: &device, stop: &stop },
        finetune_args.profile,
        progress,
    )
}

/// The adapters that are asked for.
fn lora(args: &FinetuneArgs) -> Option<LoraConfig> {
    let FinetuneArgs { lora, lora_alpha: alpha, lora_targets: targets, .. } = args;
    let targets = if targets.is_empty() { LoraTarget::ALL.to_vec() } else { targets.clone() };
    lora.map(|rank| LoraConfig { rank, alpha: *alpha, targets })
}

/// The base's configuration, with another text and what the options change.
fn config(run: &Run, base: BaseConfig, args: &FinetuneArgs) -> anyhow::Result<RunConfig> {
    let mut config = finetune_config(run, base)?;
    let mut overrides = corpus::task_overrides(&args.task, &args.reading)?;
    overrides.extend(corpus::data_overrides(&args.data, &args.validation_data, &args.reading)?);
    overrides.extend(corpus::examples_overrides(&args.examples, false)?);
    overrides.extend(args.overrides.iter().cloned());
    let tuned = RunConfig::from_toml(&config.to_toml(), &format!("config of `{}`", run.name()), &overrides)?;
    let ModelConfig { dropout, n_classes, pooling, .. } = tuned.model;
    config.model = ModelConfig { dropout, n_classes, pooling, ..config.model };
    if (&tuned.model, &tuned.tokenizer, &tuned.base) != (&config.model, &config.tokenizer, &config.base) {
        return Err(Advice {
            message: format!("`--set` changes the model, the tokenizer or the adapters of the base `{}`", run.name()),
            hint: "of the model only `model.dropout` may be set, and adapters by `--lora`, `--lora-alpha` and `--lora-targets`; to change more, train a new run".into(),
        }
        .into());
    }
    Ok(tuned)
}

/// Fine-tunings of one base on one text, each with what it is told apart by.
pub(super) fn side_by_side(runs: &[RunInfo]) -> anyhow::Result<()> {
    if runs.len() < 2 {
        return Ok(());
    }
    let loss = |loss: Option<f64>| loss.map_or("unknown".to_owned(), |loss| format!("{loss:.4}"));
    let row = |(info, Forgetting { old, new }): (&RunInfo, Forgetting)| {
        let best = info.summary.as_ref().map_or(0, |summary| summary.best.1);
        let old = [old.map(|old| old.before), old.map(|old| old.after)].map(loss);
        let [before, after] = [new.before, new.after].map(|new| loss(Some(new)));
        vec![info.manifest.name.clone(), way(&info.config), best.to_string(), before, after, old[0].clone(), old[1].clone()]
    };
    output::text("\nfine-tunings of this base on this text, at their best steps; losses before and after\n")?;
    output::table(&["run", "way", "step", "new text", "after", "old text", "after"], &told(runs).map(row).collect::<Vec<_>>())
}

/// The same for programs.
pub(super) fn as_json(runs: &[RunInfo]) -> Value {
    told(runs).map(|(info, forgetting)| json!({ "run": info.manifest.name, "way": way(&info.config), "forgetting": forgetting })).collect()
}

fn told(runs: &[RunInfo]) -> impl Iterator<Item = (&RunInfo, Forgetting)> {
    runs.iter().filter_map(|info| Some((info, info.summary.as_ref()?.forgetting?)))
}

/// How a run is fine-tuned.
fn way(config: &RunConfig) -> String {
    let base = config.base.as_ref();
    let lora = base.and_then(|base| base.lora.as_ref()).map(|lora| format!("LoRA {}", lora.rank));
    let lwf = base.and_then(|base| base.distillation).map(|distillation| format!("LwF {}", distillation.weight));
    let parts: Vec<_> = lora.into_iter().chain(lwf).collect();
    if parts.is_empty() { "plain".into() } else { parts.join(", ") }
}

/// What a fine-tuning has learned and forgotten, as results are printed.
pub(super) fn rows(forgetting: &Forgetting) -> [(&'static str, String); 2] {
    let change = |Change { before, after }: Change| format!("{before:.4} before, {after:.4} after ({:+.4})", after - before);
    let old = forgetting.old.map_or("unknown: the base's prepared data are gone".to_owned(), change);
    [("new text", change(forgetting.new)), ("old text", old)]
}
