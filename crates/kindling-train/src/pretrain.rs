//! The training loop, whole. Where text becomes tokens, and what a step computes inside the model, is elsewhere.
//!
//! A run is a pure function of (config, tokenizer, shards, seed) on one backend and thread count: the batch, the
//! learning rate and the dropout masks of a step follow from its number, so a resumed run goes on as if it had never stopped.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use kindling_config::{BaseConfig, RunConfig};
use kindling_data::{Batch, BatchOptions, BatchSampler, Prepared, memorised};
use kindling_eval::{Score, validate};
use kindling_infer::{InferError, generate, prompt_ids};
use kindling_kernels::Precision;
use kindling_metrics::Nll;
use kindling_model::{Gpt, ModelError, weights};
use kindling_runs::{
    ADAPTER_FILE, CONFIG_FILE, CheckpointKind, EMA_FILE, Ended, Forgetting, MODEL_FILE, MemorisedText, OPTIMIZER_FILE, Run, RunsError,
    STATE_FILE, Summary,
};
use kindling_tokenizer::Tokenizer;

use crate::finetune::forgetting;
use crate::gradients::timed_gradients;
use crate::resume::{Begun, begin, load, rolls_back};
use crate::state::write_synced;
use crate::{Listener, TrainError, TrainEvent, TrainState, TrainingPrecision, lr_at, matmul_peak, mfu, peak_memory_bytes};

/// A run that has jumped so many steps in a row learns nothing any more.
const MOST_SKIPPED: u64 = 20;
/// Nor does one that went back so often.
const MOST_ROLLBACKS: u64 = 10;
/// How long the device's matrix products are timed.
const MATMUL_BUDGET: Duration = Duration::from_millis(80);

/// What a training needs.
#[derive(Debug)]
pub struct Training<'a> {
    /// Its folder, locked.
    pub run: &'a Run,
    /// What is trained: the run's own configuration, or one that [`check_resumable`](crate::check_resumable) allows, which is saved when the
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

/// Where rows are examples and the config has no prompt for samples, they begin with that of the first example that validates, if it
/// fits the context and the vocabulary can give it back.
pub fn fit_prompt(config: &mut RunConfig, data: &Prepared) {
    if !data.manifest.examples || !config.sample.prompt.is_empty() {
        return;
    }
    let context_len = config.model.context_len as u64;
    let tokens = data.validation.read_marked(0..data.validation.n_tokens().min(context_len + 1));
    let n_given = tokens.iter().take_while(|token| !token.is_learned()).count();
    if n_given == tokens.len() {
        return;
    }
    // The end-of-text token is before every prompt.
    let given: Vec<u32> = tokens[1..n_given].iter().map(|token| token.id()).collect();
    let text = data.tokenizer.decode(&given).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    if let Some(text) = text.filter(|text| data.tokenizer.encode(text).is_ok_and(|ids| ids == given)) {
        config.sample.prompt = text;
    }
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
    let Training { run, config, data, device, stop } = *training;
    let steps = config.train.last_step(&config.model);
    // Said before hours of training, and not at the first sample.
    prompt_ids(&data.tokenizer, &config.sample.prompt)?;
    let sampler = sampler(config, data)?;
    let mut now = begin(training, listeners)?;
    // A damaged summary is none: it is made anew.
    let summary = run.summary().unwrap_or(None).filter(|summary| summary.steps == now.state.step);
    if let Some(summary) = summary.filter(|_| ended(config, &now.state).is_some()) {
        return Ok(Outcome::AlreadyFinished(summary));
    }
    // Only now that nothing refuses is anything of the run changed.
    if config != run.config() {
        run.save_config(config)?;
    }
    run.rewind_log(now.state.step)?;
    let matmul_peak = matmul_peak(device, TrainingPrecision::on(device, config.train.precision).precision, MATMUL_BUDGET);
    tell(listeners, &TrainEvent::Started { step: now.state.step, steps, config, matmul_peak })?;

    let started = Instant::now();
    let (mut train_s, mut train_tokens) = (0.0, 0);
    let (mut last_nll, mut last_sample) = (None, None);
    while ended(config, &now.state).is_none() {
        let step_started = Instant::now();
        let step = now.state.step;
        let started_data = Instant::now();
        let batch = sampler.batch_at(&data.training, step + now.state.left_out);
        tell(listeners, &span("data", started_data, step))?;
        let taken;
        (now, taken) = take_step(config, &batch, now, listeners)?;
        if let Taken::Spike { loss } = taken
            && let Some(back) = roll_back(training, &mut now, loss, listeners)?
        {
            now = back;
            continue;
        }
        tell(listeners, &span("step", step_started, step))?;
        let n_tokens = (batch.n_rows * batch.row_len) as u64;
        let step_s = step_started.elapsed().as_secs_f64();
        let state = &mut now.state;
        state.step += 1;
        state.tokens += n_tokens;
        state.seconds += step_s;
        train_s += step_s;
        train_tokens += n_tokens;
        let step = state.step;
        match taken {
            Taken::Step { loss, lr, grad_norm } => {
                tell(listeners, &TrainEvent::Step { step, loss, lr, grad_norm, tokens: now.state.tokens, step_s })?;
            }
            Taken::Spike { loss } => tell(listeners, &TrainEvent::Skipped { step, loss, tokens: now.state.tokens, step_s })?,
        }

        let due = |every: usize| every > 0 && step.is_multiple_of(every as u64);
        if due(config.train.eval_every) || ended(config, &now.state).is_some() {
            last_nll = Some(evaluate(training, &mut now, listeners)?);
        }
        // Evaluated once more, it may have run out of patience.
        let is_last = ended(config, &now.state).is_some();
        let stopped = stop.load(Ordering::Relaxed);
        if due(config.train.checkpoint_every) {
            // It has come past what led back.
            now.state.rollbacks = 0;
        }
        if due(config.train.checkpoint_every) || is_last || stopped {
            let started = Instant::now();
            let dir = save(training, CheckpointKind::Last, &now)?;
            tell(listeners, &span("checkpoint", started, step))?;
            tell(listeners, &TrainEvent::Saved { step, dir: &dir })?;
        }
        if due(config.train.sample_every) || is_last {
            last_sample = Some(sample(training, &now, listeners)?);
        }
        if stopped && !is_last {
            return Ok(Outcome::Stopped { step });
        }
    }
    // Killed between its last checkpoint and its summary, a run has nothing left to do but to say how it stands.
    let nll = match last_nll {
        Some(nll) => nll,
        None => score(training, &now, listeners)?.nll,
    };
    let last_sample = match last_sample {
        Some(text) => text,
        None => sample(training, &now, listeners)?,
    };
    let state = now.state.clone();
    let tokens_per_s = if train_s > 0.0 { train_tokens as f64 / train_s } else { 0.0 };
    let mut summary = Summary {
        steps: state.step,
        tokens: state.tokens,
        validation_loss: nll.loss(),
        perplexity: Some(nll.perplexity()).filter(|perplexity| perplexity.is_finite()),
        bits_per_byte: nll.bits_per_byte(),
        accuracy: nll.accuracy(),
        best: state.best.unwrap_or((nll.loss(), state.step)),
        tokens_per_s,
        mfu: Some(mfu(config, tokens_per_s, matmul_peak)).filter(|_| train_s > 0.0),
        matmul_peak_flops_per_s: Some(matmul_peak),
        elapsed_s: started.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory_bytes(),
        ended: ended(config, &state).unwrap_or_default(),
        memorised: longest_memorised(data, &last_sample)?,
        forgetting: None,
    };
    run.finish(&summary)?;
    // It takes memory of its own, and what it compares with may be gone: without it the run is finished, too.
    if let Some(base) = &config.base {
        drop(now);
        summary.forgetting = forgotten(training, base, listeners)?;
        summary.peak_memory_bytes = peak_memory_bytes();
        run.finish(&summary)?;
    }
    Ok(Outcome::Finished(summary))
}

/// Whether a run that stands like this has come to its end, and why.
fn ended(config: &RunConfig, state: &TrainState) -> Option<Ended> {
    let train = &config.train;
    if state.step >= train.last_step(&config.model) {
        Some(Ended::Steps)
    } else if train.max_hours.is_some_and(|hours| state.seconds >= 3600.0 * hours) {
        Some(Ended::Hours)
    } else if train.patience > 0 && state.stalled >= train.patience {
        Some(Ended::Patience)
    } else {
        None
    }
}

/// What came of a step's gradients.
enum Taken {
    /// The weights have moved.
    Step { loss: f64, lr: f64, grad_norm: f64 },
    /// They have not, for the loss has jumped, or is no number.
    Spike { loss: f64 },
}

/// Moves the weights, unless the run is guarded and this is a spike.
fn take_step(config: &RunConfig, batch: &Batch, mut now: Begun, listeners: &mut [&mut dyn Listener]) -> Result<(Begun, Taken), TrainError> {
    let step = now.state.step;
    let lr = lr_at(&config.train, config.train.last_step(&config.model), step);
    let guard = config.train.spike_guard;
    let mut told = Ok(());
    let result = timed_gradients(&now.model, now.teacher.as_ref(), batch, config, step, &mut |name, started| {
        if told.is_ok() {
            told = tell(listeners, &span(name, started, step));
        }
    });
    told?;
    let (loss, grads) = match result {
        Err(TrainError::NotFinite { .. }) if guard.is_some() => return Ok((now, Taken::Spike { loss: f64::NAN })),
        result => result?,
    };
    if guard.is_some_and(|guard| now.state.losses.is_spike(loss, guard.sigmas)) {
        return Ok((now, Taken::Spike { loss }));
    }
    let started = Instant::now();
    let (model, norm) = now.optimizer.step(lr, now.model, grads);
    now.model = model;
    if let Some(ema) = now.ema.as_mut().filter(|_| norm.is_ok()) {
        ema.update(&now.model, step + 1);
    }
    tell(listeners, &span("optimizer", started, step))?;
    let taken = match norm {
        Ok(grad_norm) => {
            if guard.is_some() {
                now.state.losses.add(loss);
            }
            now.state.skipped = 0;
            Taken::Step { loss, lr, grad_norm }
        }
        Err(_) if guard.is_some() => Taken::Spike { loss: f64::NAN },
        Err(bad) => return Err(TrainError::NotFinite { what: format!("the gradient of `{}`", bad.parameter), step, micro_batch: None }),
    };
    Ok((now, taken))
}

/// The run as its last checkpoint has it, with the batches up to now left out; `None` if it is to skip the step alone.
fn roll_back(
    training: &Training<'_>,
    now: &mut Begun,
    loss: f64,
    listeners: &mut [&mut dyn Listener],
) -> Result<Option<Begun>, TrainError> {
    let Training { run, config, device, .. } = *training;
    let from = now.state.step;
    now.state.skipped += 1;
    if now.state.skipped > MOST_SKIPPED || now.state.rollbacks >= MOST_ROLLBACKS {
        return Err(TrainError::Diverged { step: from, loss });
    }
    if !rolls_back(&config.train) {
        return Ok(None);
    }
    // Not to one that was saved because the run was stopped: then it would matter that it was.
    let is_due = |step: u64| step.is_multiple_of(config.train.checkpoint_every as u64);
    let (checkpoint, _) = match run.last_checkpoint_of(is_due) {
        Err(RunsError::NoCheckpoint { .. }) => return Ok(None),
        result => result?,
    };
    let mut back = load(run, &checkpoint, config, device)?;
    back.state.left_out = now.state.left_out + from + 1 - back.state.step;
    back.state.rollbacks = now.state.rollbacks + 1;
    back.state.seconds = now.state.seconds;
    // Saved before a step is taken, so that a run that is killed now goes on with the same batches.
    save(training, CheckpointKind::Last, &back)?;
    run.rewind_log(back.state.step)?;
    tell(listeners, &TrainEvent::RolledBack { from, to: back.state.step, loss })?;
    Ok(Some(back))
}

/// What makes the run's batches.
///
/// # Errors
/// Data that are too small; documents that cannot be told apart where the run masks by document.
pub fn sampler(config: &RunConfig, data: &Prepared) -> Result<BatchSampler, TrainError> {
    let options = BatchOptions {
        context_len: config.model.context_len,
        batch_size: config.train.batch_size,
        order: config.data.order,
        document_token: document_token(config, &data.tokenizer)?,
    };
    Ok(data.sampler(&data.manifest.training.parts(), options, config.seed)?)
}

/// Scores the whole validation split, and keeps the weights if they are the best so far.
fn evaluate(training: &Training<'_>, now: &mut Begun, listeners: &mut [&mut dyn Listener]) -> Result<Nll, TrainError> {
    let Score { nll, standard_error } = score(training, now, listeners)?;
    let step = now.state.step;
    let is_best = now.state.best.is_none_or(|(best, _)| nll.loss() < best);
    if is_best {
        now.state.best = Some((nll.loss(), step));
        now.state.stalled = 0;
        save(training, CheckpointKind::Best, now)?;
    } else {
        now.state.stalled += 1;
    }
    tell(listeners, &TrainEvent::Validated { step, nll, standard_error, is_best })?;
    Ok(nll)
}

/// The score of the whole validation split, in f32, as `kindling eval` will score it.
fn score(training: &Training<'_>, now: &Begun, listeners: &mut [&mut dyn Listener]) -> Result<Score, TrainError> {
    let started = Instant::now();
    let model = now.used().with_precision(Precision::F32);
    let document_token = document_token(training.config, &training.data.tokenizer)?;
    let mut told = Ok(());
    let score = validate(&model, training.data, document_token, &mut |done, total| {
        if told.is_ok() {
            told = tell(listeners, &TrainEvent::Validating { done, total });
        }
    });
    told?;
    tell(listeners, &span("evaluation", started, now.state.step))?;
    if !score.nll.loss().is_finite() {
        return Err(TrainError::NotFinite { what: "the validation loss".into(), step: now.state.step, micro_batch: None });
    }
    Ok(score)
}

/// What the run has learned and forgotten since its base, if that can be found out.
fn forgotten(training: &Training<'_>, base: &BaseConfig, listeners: &mut [&mut dyn Listener]) -> Result<Option<Forgetting>, TrainError> {
    // A head over classes says nothing of the old text.
    if training.config.model.n_classes > 0 {
        return Ok(None);
    }
    let mut told = Ok(());
    let forgetting = forgetting(training, base, &mut |done, total| {
        if told.is_ok() {
            told = tell(listeners, &TrainEvent::Validating { done, total });
        }
    });
    told.map(|()| forgetting.ok())
}

/// Draws a sample, tells it, and gives back what was drawn behind the prompt.
fn sample(training: &Training<'_>, now: &Begun, listeners: &mut [&mut dyn Listener]) -> Result<String, TrainError> {
    let config = training.config;
    if config.model.n_classes > 0 {
        // A classification head writes nothing.
        return Ok(String::new());
    }
    let started = Instant::now();
    // The same seed at every step: what changes between two samples is the model.
    let model = now.used();
    let pieces = generate(&model, &training.data.tokenizer, &config.sample, config.seed.stream("sample"))?;
    let text = pieces.collect::<Result<String, _>>()?;
    tell(listeners, &span("sample", started, now.state.step))?;
    tell(listeners, &TrainEvent::Sample { step: now.state.step, prompt: &config.sample.prompt, text: &text })?;
    Ok(text)
}

/// The longest run of tokens of a sample that stands in the training data too.
fn longest_memorised(data: &Prepared, text: &str) -> Result<Option<MemorisedText>, TrainError> {
    let ids = data.tokenizer.encode(text).map_err(InferError::Prompt)?;
    let longest = memorised(std::slice::from_ref(&ids), &data.training, 1).pop().and_then(|found| found.longest);
    Ok(longest.map(|span| {
        let bytes = data.tokenizer.decode(&ids[span.start..span.start + span.len]).unwrap_or_default();
        MemorisedText { n_tokens: span.len, n_sampled: ids.len(), text: String::from_utf8_lossy(&bytes).into_owned() }
    }))
}

/// Writes a checkpoint: to go on from with all that it takes, to use with the weights that are used.
fn save(training: &Training<'_>, kind: CheckpointKind, now: &Begun) -> Result<PathBuf, TrainError> {
    let Training { run, config, .. } = *training;
    let (step, train) = (now.state.step, &config.train);
    let keep = if kind == CheckpointKind::Last { train.keep_checkpoints } else { 1 };
    // The last one that a rollback can lead to is kept, whatever was saved at other steps since.
    let last_due = rolls_back(train).then(|| step - step % train.checkpoint_every as u64);
    let is_kept = |other: u64| {
        let for_good = train.keep_every > 0 && other.is_multiple_of(train.keep_every as u64);
        kind == CheckpointKind::Last && (for_good || Some(other) == last_due)
    };
    let trained = if config.lora().is_some() { ADAPTER_FILE } else { MODEL_FILE };
    run.write_checkpoint(kind, step, keep, is_kept, |dir: &Path| {
        match kind {
            CheckpointKind::Best => save_trained(config, &now.used(), &dir.join(trained))?,
            CheckpointKind::Last => {
                save_trained(config, &now.model, &dir.join(trained))?;
                now.optimizer.save(&dir.join(OPTIMIZER_FILE))?;
                if let Some(ema) = &now.ema {
                    save_trained(config, &ema.model(&now.model), &dir.join(EMA_FILE))?;
                }
            }
        }
        write_synced(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
        now.state.write(&dir.join(STATE_FILE))
    })
}

/// Writes what the run trains of a model: its weights, or its adapter alone.
fn save_trained(config: &RunConfig, model: &Gpt, path: &Path) -> Result<(), ModelError> {
    match (model.adapter(), &config.base) {
        (Some(adapter), Some(base)) => weights::save_adapter(adapter, &base.weights_hash, path),
        _ => weights::save(model, path),
    }
}

/// What began then and ends now.
fn span(name: &'static str, started: Instant, step: u64) -> TrainEvent<'static> {
    TrainEvent::Span { name, started, took: started.elapsed(), step }
}

pub(crate) fn tell(listeners: &mut [&mut dyn Listener], event: &TrainEvent<'_>) -> Result<(), TrainError> {
    listeners.iter_mut().try_for_each(|listener| listener.on(event))
}
