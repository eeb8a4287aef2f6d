//! `kindling finetune`: a new run from the weights of another, and what it has learned and forgotten.

use std::process::ExitCode;

use kindling_config::{BaseConfig, Distillation, RunConfig, TokenizerConfig, TokenizerKind};
use kindling_data::Prepared;
use kindling_eval::validate;
use kindling_infer::open;
use kindling_model::{Gpt, weights};
use kindling_runs::{Registry, Run, hash_file};
use kindling_train::{Training, document_token};
use serde::Serialize;

use super::train::{New, begin, go_on};
use crate::args::{Args, FinetuneArgs};
use crate::failure::Advice;
use crate::progress::{Progress, line};
use crate::{corpus, device, interrupt};

/// Steps of a fine-tuning at most, unless it is told otherwise.
const MOST_STEPS: usize = 500;

pub(crate) fn run(args: &Args, finetune_args: &FinetuneArgs) -> anyhow::Result<ExitCode> {
    let device = device::open(&args.device)?;
    let registry = Registry::new(&args.runs_dir);
    let mut progress = Progress::new(args.quiet);
    let stop = interrupt::listen(args.quiet)?;
    // Opened as for use, so that weights and tokenizer are verified.
    let opened = open(&registry.resolve(&finetune_args.base)?, &device)?;
    for message in &opened.rejected {
        line(args.quiet, &format!("warning: {message}; using another checkpoint"));
    }
    let weights = opened.run.best_checkpoint()?.0.weights();
    let base = BaseConfig {
        run: std::path::absolute(opened.run.dir())?.display().to_string(),
        weights_hash: hash_file(&weights)?,
        distillation: finetune_args.lwf.map(|weight| Distillation { weight, temperature: finetune_args.temperature }),
    };
    let config = config(&opened.run, base, finetune_args)?;
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

/// The base's configuration, with another text and gentler steps.
fn config(run: &Run, base: BaseConfig, args: &FinetuneArgs) -> anyhow::Result<RunConfig> {
    let mut config = run.config().clone();
    let tokenizer = std::path::absolute(run.tokenizer_path()?)?;
    config.name = format!("{}-finetuned", run.name());
    config.base = Some(base);
    config.tokenizer = TokenizerConfig { kind: TokenizerKind::File, vocab_size: None, path: Some(tokenizer) };
    (config.data.split, config.data.clean) = (None, kindling_config::CleanConfig::default());
    let train = &mut config.train;
    train.steps = train.steps.min(MOST_STEPS);
    (train.lr, train.min_lr) = (train.lr / 10.0, 0.0);
    train.warmup_steps = train.warmup_steps.min(train.steps / 10);
    train.eval_every = (train.steps / 10).max(1);
    train.checkpoint_every = (train.steps / 5).max(1);
    (train.max_tokens, train.max_flops, train.max_hours) = (None, None, None);
    let mut overrides = corpus::data_overrides(&args.data, &args.validation_data, &args.reading)?;
    overrides.extend(args.overrides.iter().cloned());
    let tuned = RunConfig::from_toml(&config.to_toml(), &format!("config of `{}`", run.name()), &overrides)?;
    config.model.dropout = tuned.model.dropout;
    if (&tuned.model, &tuned.tokenizer, &tuned.base) != (&config.model, &config.tokenizer, &config.base) {
        return Err(Advice {
            message: format!("`--set` changes the model or the tokenizer of the base `{}`", run.name()),
            hint: "of the model only `model.dropout` may be set; to change more, train a new run".into(),
        }
        .into());
    }
    Ok(tuned)
}

/// Validation losses before and after a fine-tuning, nats a token.
#[derive(Debug, Serialize)]
pub(super) struct Forgetting {
    /// Of the text that the base was trained on; none where its prepared data are gone.
    old: Option<Change>,
    /// Of the new text.
    new: Change,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Change {
    before: f64,
    after: f64,
}

impl Forgetting {
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let change = |Change { before, after }: Change| format!("{before:.4} before, {after:.4} after ({:+.4})", after - before);
        let old = self.old.map_or("unknown: the base's prepared data are gone".to_owned(), change);
        vec![("new text", change(self.new)), ("old text", old)]
    }
}

/// What a run that began with a base has learned and forgotten: its best weights beside the base's.
pub(super) fn forgetting(args: &Args, training: &Training<'_>, base: &BaseConfig) -> anyhow::Result<Forgetting> {
    let Training { run, config, data, device, .. } = *training;
    let before = weights::load(&run.base_path(base)?, &config.model, device)?;
    let after = open(run.dir(), device)?.model;
    let document_token = document_token(config, &data.tokenizer)?;
    let mut progress = Progress::new(args.quiet);
    let mut loss =
        |model: &Gpt, data: &Prepared| validate(model, data, document_token, &mut |done, total| progress.scoring(done, total)).nll.loss();
    let mut change = |data: &Prepared| Change { before: loss(&before, data), after: loss(&after, data) };
    let new = change(data);
    let old = Run::open(base.run.as_ref()).ok().map(|base| base.manifest().data.clone());
    // The data that the base was trained on, and no others.
    let old = old.and_then(|old| Prepared::open(old.dir.as_ref()).ok().filter(|data| data.manifest.data_hash() == old.data_hash));
    Ok(Forgetting { old: old.as_ref().map(&mut change), new })
}
