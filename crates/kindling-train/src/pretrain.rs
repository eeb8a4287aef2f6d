//! The training loop, whole. Where text becomes tokens, and what a step computes inside the model, is elsewhere.
//!
//! A run is a pure function of (config, tokenizer, shards, seed) on one backend and thread count: the batch, the
//! learning rate and the dropout masks of a step follow from its number, so a resumed run goes on as if it had never stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use kindling_config::RunConfig;
use kindling_data::{BatchOptions, BatchSampler, Prepared};
use kindling_eval::validate;
use kindling_infer::{generate, prompt_ids};
use kindling_kernels::Precision;
use kindling_metrics::Nll;
use kindling_model::{Gpt, weights};
use kindling_runs::{Checkpoint, CheckpointKind, MODEL_FILE, OPTIMIZER_FILE, Run, RunsError, STATE_FILE, Summary};
use kindling_tokenizer::Tokenizer;

use crate::{AdamW, Listener, TrainError, TrainEvent, TrainState, TrainingPrecision, gradients, lr_at, peak_memory_bytes};

/// What a training needs.
#[derive(Debug)]
pub struct Training<'a> {
    /// Its folder, locked.
    pub run: &'a Run,
    /// What is trained: the run's own configuration, or one that [`check_resumable`] allows, which is saved when the
    /// training begins.
    pub config: &'a RunConfig,
    /// Its data.
    pub data: &'a Prepared,
    /// Where it is computed, without autodiff.
    pub device: &'a Device,
    /// Set from outside to end after the current step, with everything saved.
    pub stop: &'a AtomicBool,
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It reached its last step.
    Finished(Summary),
    /// It had reached it before; nothing was done.
    AlreadyFinished(Summary),
    /// It was stopped; everything up to this step is saved.
    Stopped {
        /// Steps taken.
        step: u64,
    },
}

/// Gives `config.model.vocab_size` the tokenizer's size if the config leaves it open.
///
/// # Errors
/// [`TrainError::Vocabulary`] if the config has a smaller one.
pub fn fit_vocabulary(config: &mut RunConfig, tokenizer: usize) -> Result<(), TrainError> {
    let model = &mut config.model.vocab_size;
    match *model {
        0 => *model = tokenizer,
        size if size < tokenizer => return Err(TrainError::Vocabulary { model: size, tokenizer }),
        _ => {}
    }
    Ok(())
}

/// Whether a run that began with `old` may go on with `new`: the number of steps may differ, and with it the learning
/// rates to come; how often to look, how much is computed at once, and samples, which change nothing. All else is refused.
///
/// # Errors
/// [`TrainError::Changed`] names the first line of the configuration that may not differ.
pub fn check_resumable(old: &RunConfig, new: &RunConfig) -> Result<(), TrainError> {
    let mut allowed = old.clone();
    let (from, to) = (&new.train, &mut allowed.train);
    (to.steps, to.micro_batch_size) = (from.steps, from.micro_batch_size);
    (to.log_every, to.eval_every, to.sample_every) = (from.log_every, from.eval_every, from.sample_every);
    (to.checkpoint_every, to.keep_checkpoints) = (from.checkpoint_every, from.keep_checkpoints);
    to.gradient_checkpointing = from.gradient_checkpointing;
    allowed.sample = new.sample.clone();
    if allowed == *new {
        return Ok(());
    }
    let (then, now) = (allowed.to_toml(), new.to_toml());
    // A line that one has and the other has not is what differs; a changed value is one of each.
    let only = |a: &str, b: &str| {
        let line = a.lines().find(|line| !b.lines().any(|other| other == *line));
        line.map_or("missing".to_owned(), |line| format!("`{line}`"))
    };
    Err(TrainError::Changed { what: "the configuration".into(), found: only(&now, &then), expected: only(&then, &now) })
}

/// The token that tells documents apart, if the run masks by document.
///
/// # Errors
/// [`TrainError::NoDocumentToken`] if it does, and the tokenizer has none.
pub fn document_token(config: &RunConfig, tokenizer: &Tokenizer) -> Result<Option<u32>, TrainError> {
    match tokenizer.end_of_text() {
        None if config.data.document_mask => Err(TrainError::NoDocumentToken),
        token => Ok(token.filter(|_| config.data.document_mask)),
    }
}

/// Trains the run from its newest checkpoint, or from the beginning, to its last step.
///
/// # Errors
/// A loss that is not finite, a disk that is full, data that is not what the run began with. Whatever was saved before stays.
pub fn train(training: &Training<'_>, listeners: &mut [&mut dyn Listener]) -> Result<Outcome, TrainError> {
    let Training { run, config, data, stop, .. } = *training;
    let steps = config.train.steps as u64;
    // Said before hours of training, and not at the first sample.
    prompt_ids(&data.tokenizer, &config.sample.prompt)?;
    let sampler = sampler(config, data)?;
    let (model, mut optimizer, mut state) = begin(training, listeners)?;
    let mut model = model.with_precision(TrainingPrecision::on(training.device, config.train.precision).precision);
    // A damaged summary is none: it is made anew.
    if let Some(summary) = run.summary().unwrap_or(None).filter(|summary| summary.steps == steps && state.step == steps) {
        return Ok(Outcome::AlreadyFinished(summary));
    }
    // Only now that nothing refuses is anything of the run changed.
    if config != run.config() {
        run.save_config(config)?;
    }
    run.rewind_log(state.step)?;
    tell(listeners, &TrainEvent::Started { step: state.step, steps })?;

    let started = Instant::now();
    let (mut train_s, mut train_tokens) = (0.0, 0);
    let mut last_nll = None;
    while state.step < steps {
        let step_started = Instant::now();
        let batch = sampler.batch_at(&data.training, state.step);
        let lr = lr_at(&config.train, state.step);
        let (loss, grads) = gradients(&model, &batch, config, state.step)?;
        let (next, grad_norm) = optimizer.step(lr, model, grads).map_err(|bad| TrainError::NotFinite {
            what: format!("the gradient of `{}`", bad.parameter),
            step: state.step,
            micro_batch: None,
        })?;
        model = next;
        let n_tokens = (batch.n_rows * batch.row_len) as u64;
        state.step += 1;
        state.tokens += n_tokens;
        let step_s = step_started.elapsed().as_secs_f64();
        train_s += step_s;
        train_tokens += n_tokens;
        tell(listeners, &TrainEvent::Step { step: state.step, loss, lr, grad_norm, tokens: state.tokens, step_s })?;

        let is_last = state.step == steps;
        let step = state.step;
        let due = |every: usize| every > 0 && step.is_multiple_of(every as u64);
        if due(config.train.eval_every) || is_last {
            last_nll = Some(evaluate(training, &model, &mut state, listeners)?);
        }
        let stopped = stop.load(Ordering::Relaxed);
        if due(config.train.checkpoint_every) || is_last || stopped {
            let dir = save(run, CheckpointKind::Last, config.train.keep_checkpoints, &model, Some(&optimizer), &state)?;
            tell(listeners, &TrainEvent::Saved { step: state.step, dir: &dir })?;
        }
        if due(config.train.sample_every) || is_last {
            sample(training, &model, state.step, listeners)?;
        }
        if stopped && !is_last {
            return Ok(Outcome::Stopped { step: state.step });
        }
    }
    // Killed between its last checkpoint and its summary, a run has nothing left to do but to say how it stands.
    let nll = match last_nll {
        Some(nll) => nll,
        None => evaluate(training, &model, &mut state, listeners)?,
    };
    let summary = Summary {
        steps,
        tokens: state.tokens,
        validation_loss: nll.loss(),
        perplexity: Some(nll.perplexity()).filter(|perplexity| perplexity.is_finite()),
        bits_per_byte: nll.bits_per_byte(),
        accuracy: nll.accuracy(),
        best: state.best.unwrap_or((nll.loss(), steps)),
        tokens_per_s: if train_s > 0.0 { train_tokens as f64 / train_s } else { 0.0 },
        elapsed_s: started.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory_bytes(),
    };
    run.finish(&summary)?;
    Ok(Outcome::Finished(summary))
}

/// What makes the run's batches.
fn sampler(config: &RunConfig, data: &Prepared) -> Result<BatchSampler, TrainError> {
    let options = BatchOptions {
        context_len: config.model.context_len,
        batch_size: config.train.batch_size,
        order: config.data.order,
        document_token: document_token(config, &data.tokenizer)?,
    };
    Ok(BatchSampler::new(&data.manifest.training.parts(), options, config.seed)?)
}

/// The model, the optimizer and the state that the run begins or goes on with.
fn begin(training: &Training<'_>, listeners: &mut [&mut dyn Listener]) -> Result<(Gpt, AdamW, TrainState), TrainError> {
    let Training { run, config, data, device, .. } = *training;
    check_resumable(run.config(), config)?;
    let data_hash = data.manifest.data_hash();
    let unchanged = |what: &str, found: &str, expected: &str| {
        if found == expected {
            return Ok(());
        }
        Err(TrainError::Changed { what: what.into(), found: format!("`{found}`"), expected: format!("`{expected}`") })
    };
    unchanged("the hash of tokenizer and shards", &data_hash, &run.manifest().data.data_hash)?;
    let autodiff = device.clone().autodiff();
    match run.last_checkpoint() {
        Ok((checkpoint, rejected)) => {
            for error in &rejected {
                tell(listeners, &TrainEvent::CheckpointRejected { message: &error.to_string() })?;
            }
            let (model, optimizer, mut state) = load(&checkpoint, config, device)?;
            // The best weights may be gone, replaced by a later step that is now taken again: then the next are the best.
            let kept = run.best_checkpoint().is_ok_and(|(best, _)| Some(best.step) == state.best.map(|(_, step)| step));
            state.best = state.best.filter(|_| kept);
            unchanged("the hash of tokenizer and shards", &data_hash, &state.data_hash)?;
            Ok((model, optimizer, state))
        }
        Err(RunsError::NoCheckpoint { rejected, .. }) if rejected.is_empty() => {
            let model = Gpt::new(&config.model, config.seed, &autodiff);
            Ok((model, AdamW::new(&config.train), TrainState { data_hash, ..TrainState::default() }))
        }
        Err(error) => Err(error.into()),
    }
}

fn load(checkpoint: &Checkpoint, config: &RunConfig, device: &Device) -> Result<(Gpt, AdamW, TrainState), TrainError> {
    let model = weights::load(&checkpoint.file(MODEL_FILE), &config.model, &device.clone().autodiff())?;
    let optimizer = AdamW::load(&config.train, &model, &checkpoint.file(OPTIMIZER_FILE), device)?;
    let path = checkpoint.file(STATE_FILE);
    let state = TrainState::read(&path)?;
    if state.step != checkpoint.step {
        return Err(TrainError::State { path, what: format!("step is {}, expected {}", state.step, checkpoint.step) });
    }
    if state.step > config.train.steps as u64 {
        return Err(TrainError::StepsTaken { steps: config.train.steps as u64, taken: state.step });
    }
    Ok((model, optimizer, state))
}

/// Scores the whole validation split, and keeps the weights if they are the best so far.
fn evaluate(training: &Training<'_>, model: &Gpt, state: &mut TrainState, listeners: &mut [&mut dyn Listener]) -> Result<Nll, TrainError> {
    let mut told = Ok(());
    // In f32, as `kindling eval` will score it.
    let model_f32 = model.valid().with_precision(Precision::F32);
    let document_token = document_token(training.config, &training.data.tokenizer)?;
    let nll = validate(&model_f32, training.data, document_token, &mut |done, total| {
        if told.is_ok() {
            told = tell(listeners, &TrainEvent::Validating { done, total });
        }
    });
    told?;
    if !nll.loss().is_finite() {
        return Err(TrainError::NotFinite { what: "the validation loss".into(), step: state.step, micro_batch: None });
    }
    let is_best = state.best.is_none_or(|(best, _)| nll.loss() < best);
    if is_best {
        state.best = Some((nll.loss(), state.step));
        save(training.run, CheckpointKind::Best, 1, model, None, state)?;
    }
    tell(listeners, &TrainEvent::Validated { step: state.step, nll, is_best })?;
    Ok(nll)
}

fn sample(training: &Training<'_>, model: &Gpt, step: u64, listeners: &mut [&mut dyn Listener]) -> Result<(), TrainError> {
    let config = training.config;
    let model = model.valid();
    // The same seed at every step: what changes between two samples is the model.
    let pieces = generate(&model, &training.data.tokenizer, &config.sample, config.seed.stream("sample"))?;
    let text = pieces.collect::<Result<String, _>>()?;
    tell(listeners, &TrainEvent::Sample { step, prompt: &config.sample.prompt, text: &text })
}

fn save(
    run: &Run,
    kind: CheckpointKind,
    keep: usize,
    model: &Gpt,
    optimizer: Option<&AdamW>,
    state: &TrainState,
) -> Result<PathBuf, TrainError> {
    run.write_checkpoint(kind, state.step, keep, |dir: &Path| {
        weights::save(model, &dir.join(MODEL_FILE))?;
        if let Some(optimizer) = optimizer {
            optimizer.save(&dir.join(OPTIMIZER_FILE))?;
        }
        state.write(&dir.join(STATE_FILE))
    })
}

fn tell(listeners: &mut [&mut dyn Listener], event: &TrainEvent<'_>) -> Result<(), TrainError> {
    listeners.iter_mut().try_for_each(|listener| listener.on(event))
}
