//! What a run begins or goes on with, and what it may not go on with. Takes no step.

use burn::module::Module;
use burn::tensor::Device;
use kindling_config::{RunConfig, SpikeAction, TrainConfig};
use kindling_infer::load_weights;
use kindling_kernels::Precision;
use kindling_model::{Adapter, Gpt, weights};
use kindling_runs::{CONFIG_FILE, Checkpoint, EMA_FILE, OPTIMIZER_FILE, Run, RunsError, STATE_FILE};

use crate::ema::Ema;
use crate::pretrain::tell;
use crate::{Listener, Optimizer, TrainError, TrainEvent, TrainState, Training, TrainingPrecision};

/// Everything that the rest of a run depends on.
pub(crate) struct Begun {
    pub(crate) model: Gpt,
    pub(crate) ema: Option<Ema>,
    pub(crate) optimizer: Optimizer,
    /// The base that it is held to, without autodiff.
    pub(crate) teacher: Option<Gpt>,
    pub(crate) state: TrainState,
}

impl Begun {
    /// The weights that are scored, sampled from and kept as the best, without autodiff.
    pub(crate) fn used(&self) -> Gpt {
        match &self.ema {
            Some(ema) => ema.model(&self.model),
            None => self.model.valid(),
        }
    }
}

/// Whether a run that began with `old` may go on with `new`: the number of steps and the budgets may differ, and with them the
/// learning rates to come; how often to look, how much is computed at once, and samples, which change nothing. All else is refused.
///
/// # Errors
/// [`TrainError::Changed`] names the first key of the configuration that may not differ.
pub fn check_resumable(old: &RunConfig, new: &RunConfig) -> Result<(), TrainError> {
    let mut allowed = old.clone();
    let (from, to) = (&new.train, &mut allowed.train);
    (to.steps, to.micro_batch_size) = (from.steps, from.micro_batch_size);
    (to.max_tokens, to.max_flops, to.max_hours, to.patience) = (from.max_tokens, from.max_flops, from.max_hours, from.patience);
    (to.log_every, to.eval_every, to.sample_every) = (from.log_every, from.eval_every, from.sample_every);
    (to.keep_checkpoints, to.keep_every) = (from.keep_checkpoints, from.keep_every);
    // A run that goes back goes back to these.
    if !rolls_back(from) {
        to.checkpoint_every = from.checkpoint_every;
    }
    to.gradient_checkpointing = from.gradient_checkpointing;
    allowed.sample = new.sample.clone();
    if allowed == *new {
        return Ok(());
    }
    let (then, now) = (allowed.settings(), new.settings());
    let key = then.keys().chain(now.keys()).find(|key| then.get(*key) != now.get(*key)).expect("what differs is written differently");
    let written = |value: Option<&String>| value.map_or("missing".to_owned(), |value| format!("`{key} = {value}`"));
    Err(TrainError::Changed { what: "the configuration".into(), found: written(now.get(key)), expected: written(then.get(key)) })
}

/// Whether a spike leads back to a checkpoint.
pub(crate) fn rolls_back(train: &TrainConfig) -> bool {
    train.spike_guard.is_some_and(|guard| guard.action == SpikeAction::Rollback)
}

/// From the newest checkpoint that verifies, or from the beginning.
pub(crate) fn begin(training: &Training<'_>, listeners: &mut [&mut dyn Listener]) -> Result<Begun, TrainError> {
    let Training { run, config, data, device, .. } = *training;
    check_resumable(run.config(), config)?;
    let data_hash = data.manifest.data_hash();
    unchanged("the hash of tokenizer and shards", &data_hash, &run.manifest().data.data_hash)?;
    match run.last_checkpoint() {
        Ok((checkpoint, rejected)) => {
            for error in &rejected {
                tell(listeners, &TrainEvent::CheckpointRejected { message: &error.to_string() })?;
            }
            let begun = load(run, &checkpoint, config, device)?;
            unchanged("the hash of tokenizer and shards", &data_hash, &begun.state.data_hash)?;
            Ok(begun)
        }
        Err(RunsError::NoCheckpoint { rejected, .. }) if rejected.is_empty() => {
            let autodiff = device.clone().autodiff();
            let model = match &config.base {
                Some(base) => weights::load_base(&run.base_path(base)?, &config.model, config.seed, &autodiff)?,
                None => Gpt::new(&config.model, config.seed, &autodiff),
            };
            let model = match config.lora() {
                Some(lora) => model.with_adapter(Adapter::new(lora, &config.model, config.seed, &autodiff)),
                None => model,
            };
            let model = computing(model, config, device);
            let ema = (config.train.ema > 0.0).then(|| Ema::new(config.train.ema, &model));
            // A merged run begins with weights whose loss is known.
            let merged = run.summary().ok().flatten().filter(|summary| summary.steps == 0 && run.best_step() == Some(0));
            let best = merged.map(|summary| summary.best);
            let state = TrainState { data_hash, seed: Some(config.seed), best, ..TrainState::default() };
            let teacher = teacher(run, config, &model, device)?;
            Ok(Begun { model, ema, optimizer: Optimizer::new(&config.train), teacher, state })
        }
        Err(error) => Err(error.into()),
    }
}

/// What a checkpoint of the run holds, to go on with `config`.
pub(crate) fn load(run: &Run, checkpoint: &Checkpoint, config: &RunConfig, device: &Device) -> Result<Begun, TrainError> {
    let path = checkpoint.file(CONFIG_FILE);
    // Checkpoints of version 1 have none.
    if let Ok(text) = std::fs::read_to_string(&path) {
        let then = RunConfig::from_toml(&text, &path.display().to_string(), &[])
            .map_err(|error| TrainError::State { path: path.clone(), what: error.to_string() })?;
        check_resumable(&then, config)?;
    }
    let path = checkpoint.file(STATE_FILE);
    let mut state = TrainState::read(&path)?;
    if state.step != checkpoint.step {
        return Err(TrainError::State { path, what: format!("step is {}, expected {}", state.step, checkpoint.step) });
    }
    if let Some(seed) = state.seed {
        unchanged("the seed", &config.seed.0.to_string(), &seed.0.to_string())?;
    }
    let steps = config.train.last_step(&config.model);
    if state.step > steps {
        return Err(TrainError::StepsTaken { steps, taken: state.step });
    }
    // The best weights may be gone, replaced by a later step that is now taken again: then the next are the best.
    if state.best.is_some_and(|(_, step)| run.best_step() != Some(step)) {
        (state.best, state.stalled) = (None, 0);
    }
    let autodiff = device.clone().autodiff();
    let model = load_weights(run, &checkpoint.trained(), &autodiff)?;
    let optimizer = Optimizer::load(&config.train, &model, &checkpoint.file(OPTIMIZER_FILE), device)?;
    let decay = config.train.ema;
    let average = (decay > 0.0).then(|| load_weights(run, &checkpoint.file(EMA_FILE), &autodiff)).transpose()?;
    let ema = average.map(|average| Ema::new(decay, &average));
    let teacher = teacher(run, config, &model, device)?;
    Ok(Begun { model: computing(model, config, device), ema, optimizer, teacher, state })
}

/// The run's base, if what it says is held on to. Beside an adapter it is there already.
fn teacher(run: &Run, config: &RunConfig, model: &Gpt, device: &Device) -> Result<Option<Gpt>, TrainError> {
    let Some(base) = config.base.as_ref().filter(|base| base.distillation.is_some()) else { return Ok(None) };
    Ok(Some(match model.adapter() {
        Some(_) => model.without_adapter().valid().with_precision(Precision::F32),
        None => weights::load_base(&run.base_path(base)?, &config.model, config.seed, device)?,
    }))
}

fn computing(model: Gpt, config: &RunConfig, device: &Device) -> Gpt {
    model.with_precision(TrainingPrecision::on(device, config.train.precision).precision)
}

fn unchanged(what: &str, found: &str, expected: &str) -> Result<(), TrainError> {
    if found == expected {
        return Ok(());
    }
    Err(TrainError::Changed { what: what.into(), found: format!("`{found}`"), expected: format!("`{expected}`") })
}
