//! A run that begins with the weights of another: its configuration, and what it has learned and forgotten. The loop is the same.

use kindling_config::{BaseConfig, CleanConfig, Pooling, RunConfig, TokenizerConfig, TokenizerKind};
use kindling_data::Prepared;
use kindling_eval::validate;
use kindling_infer::open;
use kindling_model::{Gpt, weights};
use kindling_runs::{Change, Forgetting, Run};

use crate::{TrainError, Training, document_token};

/// Steps of a fine-tuning at most, unless it is told otherwise.
const MOST_STEPS: usize = 500;

/// The configuration of `run`, for going on with another text and gentler steps: a tenth of the learning rate, falling to 0, and at
/// most 500 steps. Adapters get the whole learning rate, ten times what all weights get, as was found best for them over many models
/// (Schulman et al., "LoRA Without Regret", 2025), and do not decay. It still names the run's own text.
///
/// # Errors
/// A tokenizer that is not the run's.
pub fn finetune_config(run: &Run, base: BaseConfig) -> Result<RunConfig, TrainError> {
    let mut config = run.config().clone();
    let tokenizer = std::path::absolute(run.tokenizer_path()?).map_err(kindling_runs::RunsError::Io)?;
    let is_lora = base.lora.is_some();
    config.name = format!("{}-{}", run.name(), if is_lora { "lora" } else { "finetuned" });
    config.base = Some(base);
    config.tokenizer = TokenizerConfig { kind: TokenizerKind::File, vocab_size: None, path: Some(tokenizer) };
    // What the base was trained for is not what this is for, and a head over its classes is none for it.
    config.task = None;
    (config.model.n_classes, config.model.pooling) = (0, Pooling::default());
    let data = &mut config.data;
    (data.split, data.clean, data.examples) = (None, CleanConfig::default(), None);
    let train = &mut config.train;
    train.steps = train.steps.min(MOST_STEPS);
    (train.lr, train.min_lr) = (if is_lora { train.lr } else { train.lr / 10.0 }, 0.0);
    if is_lora {
        train.weight_decay = 0.0;
    }
    train.warmup_steps = train.warmup_steps.min(train.steps / 10);
    train.eval_every = (train.steps / 10).max(1);
    train.checkpoint_every = (train.steps / 5).max(1);
    (train.max_tokens, train.max_flops, train.max_hours) = (None, None, None);
    Ok(config)
}

/// What a run that began with a base has learned and forgotten. `progress` hears of windows done and windows in all.
///
/// # Errors
/// Weights that are damaged.
pub(crate) fn forgetting(training: &Training<'_>, base: &BaseConfig, progress: &mut dyn FnMut(u64, u64)) -> Result<Forgetting, TrainError> {
    let Training { run, config, data, device, .. } = *training;
    let base_run = Run::open(base.run.as_ref()).ok();
    // The data that the base was trained on, and no others.
    let old = base_run.as_ref().and_then(|run| {
        let known = &run.manifest().data;
        // A head's classes are no text that a model without it could know.
        let is_text = run.config().model.n_classes == config.model.n_classes;
        Prepared::open(known.dir.as_ref()).ok().filter(|data| is_text && data.manifest.data_hash() == known.data_hash)
    });
    // Each as its own run sees it.
    let old = base_run.as_ref().zip(old.as_ref()).map(|(run, data)| (run.config(), data));
    let mut losses = |model: &Gpt| {
        let mut loss = |config: &RunConfig, data: &Prepared| {
            Ok::<_, TrainError>(validate(model, data, document_token(config, &data.tokenizer)?, progress).nll.loss())
        };
        Ok::<_, TrainError>((loss(config, data)?, old.map(|(config, data)| loss(config, data)).transpose()?))
    };
    // One after the other, so that only one is in memory.
    let before = losses(&weights::load_base(&run.base_path(base)?, &config.model, config.seed, device)?)?;
    let after = losses(&open(run.dir(), device)?.model)?;
    let new = Change { before: before.0, after: after.0 };
    Ok(Forgetting { old: before.1.zip(after.1).map(|(before, after)| Change { before, after }), new })
}
