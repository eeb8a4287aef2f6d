//! `kindling train`: resolve the configuration, prepare the data, make or open the run, train, say what came of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use burn::tensor::Device;
use kindling_config::{RunConfig, TrainConfig};
use kindling_data::{DataError, Preparation, Prepared, prepare, read_document, rebuild};
use kindling_infer::{open, prompt_ids};
use kindling_runs::{DataRef, Ended, Manifest, MemorisedText, Registry, Run, RunsError, Summary};
use kindling_tokenizer::Tokenizer;
use kindling_train::{
    Listener, Outcome, Profile, RunLog, TrainEvent, Training, TrainingPrecision, check_disk, check_memory, check_resumable, document_token,
    find_lr, fit_prompt, fit_vocabulary, judge, sampler, train,
};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

use super::preview::{packing, preview};
use super::{finetune, task};
use crate::args::{Args, TrainArgs};
use crate::failure::STOPPED;
use crate::progress::{Progress, indent, line};
use crate::{corpus, device, interrupt, output};

/// A text that is proposed to be scored has so many bytes at most: it is tried first.
const LONGEST_SCORED: u64 = 16 << 20;
/// The lock file that this binary was built from.
const LOCK_FILE: &str = include_str!("../../../../Cargo.lock");

pub(crate) fn run(args: &Args, train_args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let device = device::open(&args.device)?;
    let registry = Registry::new(&args.runs_dir);
    let mut progress = Progress::new(args.quiet);
    let stop = interrupt::listen(args.quiet)?;
    if args.may_have_dashboard() {
        progress.on_dashboard(&stop);
    }
    if train_args.find_lr {
        return find_rate(args, train_args, &device, &stop, &mut progress);
    }
    if let Some(n) = train_args.preview {
        let (config, data) = prepared(config_of(train_args)?, args, &train_args.corpus.data_dir, &stop, &mut progress)?;
        preview(&config, &data, n, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (run, config, data) = match &train_args.resume {
        Some(name) => resume(&registry, name, args, train_args, &stop, &mut progress)?,
        None => {
            let new = New { name: train_args.name.as_deref(), data_dir: &train_args.corpus.data_dir, base: None };
            begin(&registry, args, &new, config_of(train_args)?, &device, &stop, &mut progress)?
        }
    };
    go_on(
        args,
        &registry,
        &Training { run: &run, config: &config, data: &data, device: &device, stop: &stop },
        train_args.profile,
        progress,
    )
}

/// Trains a run, and says what came of it.
pub(super) fn go_on(
    args: &Args,
    registry: &Registry,
    training: &Training<'_>,
    with_profile: bool,
    mut progress: Progress,
) -> anyhow::Result<ExitCode> {
    let Training { run, config, device, .. } = *training;
    let computed = TrainingPrecision::on(device, config.train.precision);
    if let Some(why) = computed.fallback {
        line(args.quiet, &format!("warning: training in f32: {why}"));
    }
    let began = &run.manifest().precision;
    if began != computed.name {
        line(args.quiet, &format!("warning: this run began in {began}, and goes on in {}", computed.name));
    }
    let trained = config.lora().map_or(String::new(), |lora| {
        format!(", all frozen, and {} in adapters of rank {}, which are trained", output::count(config.n_trained() as u64), lora.rank)
    });
    progress.model(&format!(
        "{} parameters{trained}: {} layers, {} heads, d_model {}, context {}; on {} in {} with {} threads",
        output::count(config.model.n_params() as u64),
        config.model.n_layers,
        config.model.n_heads,
        config.model.d_model,
        config.model.context_len,
        args.device,
        computed.name,
        rayon::current_num_threads()
    ));
    progress.line_run(run.dir());
    progress.log_every(config.train.log_every as u64);

    let mut last_sample = String::new();
    let mut log = RunLog::new(run, config.train.log_every as u64);
    let mut terminal = |event: &TrainEvent<'_>| {
        progress.train(event);
        if let TrainEvent::Sample { prompt, text, .. } = event {
            last_sample = format!("{prompt}{text}");
        }
    };
    let mut profile = with_profile.then(|| Profile::new(run)).transpose()?;
    let mut listeners: Vec<&mut dyn Listener> = vec![&mut log, &mut terminal];
    listeners.extend(profile.as_mut().map(|profile| profile as &mut dyn Listener));
    let outcome = train(training, &mut listeners);
    progress.clear();
    let outcome = outcome?;
    if let Some(profile) = profile {
        profile.finish()?;
        line(args.quiet, &format!("trace: {}; open it in ui.perfetto.dev", run.trace_path().display()));
    }
    match outcome {
        Outcome::Finished(summary) => {
            finished(args, registry, training, &summary, &last_sample, true)?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::AlreadyFinished(summary) => {
            line(args.quiet, &format!("run `{}` is finished: {}", run.name(), ended(&summary)));
            finished(args, registry, training, &summary, &last_sample, false)?;
            Ok(ExitCode::SUCCESS)
        }
        Outcome::Stopped { step } => {
            let command = format!("{} train{} --resume {}", program(), own_options(args), quoted(&registry.handle(run)));
            if args.json {
                output::json(&json!({ "run": run.name(), "dir": run.dir(), "stopped_at_step": step, "resume": command }))?;
            } else {
                output::text(&format!(
                    "stopped after step {step}; everything is saved in {}\ngo on with: {command}\n",
                    run.dir().display()
                ))?;
            }
            Ok(ExitCode::from(STOPPED))
        }
    }
}

/// Where a new run and its data come to lie, and what it begins with.
pub(super) struct New<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) data_dir: &'a Path,
    /// Weights in place of random ones.
    pub(super) base: Option<&'a Path>,
}

/// A new run.
pub(super) fn begin(
    registry: &Registry,
    args: &Args,
    new: &New<'_>,
    config: RunConfig,
    device: &Device,
    stop: &AtomicBool,
    progress: &mut Progress,
) -> anyhow::Result<(Run, RunConfig, Prepared)> {
    // A name that is taken or impossible is said before minutes of work.
    let name = new.name.map_or_else(|| registry.next_name(&config.name), str::to_owned);
    Run::check_name(&name)?;
    if registry.root().join(&name).exists() {
        return Err(RunsError::Exists(name).into());
    }
    let (config, data) = prepared(config, args, new.data_dir, stop, progress)?;
    task::check(&config, &data.tokenizer)?;
    check_disk(&config, registry.root(), 0)?;
    let (mut name, manifest) = (name, manifest(args, &config, &data, device)?);
    loop {
        match Run::create(registry.root(), &name, &config, manifest.clone(), &data.tokenizer_path(), new.base) {
            // Another run took the number meanwhile.
            Err(RunsError::Exists(_)) if new.name.is_none() => name = registry.next_name(&config.name),
            run => return Ok((run?, config, data)),
        }
    }
}

fn config_of(train_args: &TrainArgs) -> anyhow::Result<RunConfig> {
    let precision = train_args.precision.iter().map(|precision| format!("train.precision=\"{precision}\""));
    corpus::config(&train_args.corpus, precision)
}

/// The data of a configuration, and what it leaves open filled in.
pub(super) fn prepared(
    mut config: RunConfig,
    args: &Args,
    data_dir: &Path,
    stop: &AtomicBool,
    progress: &mut Progress,
) -> anyhow::Result<(RunConfig, Prepared)> {
    let preparation = Preparation { config: &config, data_dir, workspace: Path::new("."), stop };
    let data = prepare(&preparation, &mut |event| progress.prepare(event))?;
    progress.clear();
    progress.shards(&data.manifest, &data.dir, data.reused);
    fit_vocabulary(&mut config, data.tokenizer.vocab_size())?;
    fit_prompt(&mut config, &data);
    if let Some(stats) = sampler(&config, &data)?.packing() {
        line(args.quiet, &format!("packed     {}", packing(&stats, config.model.context_len)));
    }
    prompt_ids(&data.tokenizer, &config.sample.prompt)?;
    document_token(&config, &data.tokenizer)?;
    if matches!(args.device.as_str(), "flex" | "ndarray") {
        check_memory(&config)?;
    }
    Ok((config, data))
}

/// `--find-lr`: the losses while the learning rate rises, and what they suggest.
fn find_rate(args: &Args, train_args: &TrainArgs, device: &Device, stop: &AtomicBool, progress: &mut Progress) -> anyhow::Result<ExitCode> {
    const STEPS: u64 = 150;
    const WIDTH: f64 = 40.0;
    let (config, data) = prepared(config_of(train_args)?, args, &train_args.corpus.data_dir, stop, progress)?;
    let curve =
        find_lr(&config, &data, device, STEPS, stop, &mut |step, point| progress.finding_lr(step, STEPS, point.lr, point.smoothed))?;
    progress.clear();
    if stop.load(Ordering::Relaxed) {
        return Ok(ExitCode::from(STOPPED));
    }
    if args.json {
        output::json(&curve)?;
        return Ok(ExitCode::SUCCESS);
    }
    let losses = || curve.points.iter().map(|point| point.smoothed);
    let (low, high) = (losses().fold(f64::INFINITY, f64::min), losses().fold(f64::NEG_INFINITY, f64::max));
    let mut text = String::from("learning rate    loss\n");
    for point in curve.points.iter().step_by(5) {
        let length = if high > low { (WIDTH * (point.smoothed - low) / (high - low)).round() as usize } else { 0 };
        text += &format!("{:>13.2e}  {:>6.3}  {}\n", point.lr, point.smoothed, "▇".repeat(length));
    }
    let rate = |lr: Option<f64>, what: &str| lr.map_or("none: the loss did not fall".to_owned(), |lr| format!("{lr:.1e}, {what}"));
    output::text(&format!("{text}\n"))?;
    output::pairs(&[
        ("suggested", rate(curve.suggested, "a tenth of where the loss is lowest")),
        ("steepest", rate(curve.steepest, "where it falls fastest")),
        ("now", format!("train.lr={:.1e}", config.train.lr)),
    ])?;
    Ok(ExitCode::SUCCESS)
}

/// A run that stopped, with the data that it began with.
fn resume(
    registry: &Registry,
    name: &str,
    args: &Args,
    train_args: &TrainArgs,
    stop: &AtomicBool,
    progress: &mut Progress,
) -> anyhow::Result<(Run, RunConfig, Prepared)> {
    let run = Run::open_for_writing(&registry.resolve(name)?)?;
    run.tokenizer_path()?;
    let config = RunConfig::from_toml(&run.config().to_toml(), &format!("config of `{name}`"), &train_args.corpus.overrides)?;
    check_resumable(run.config(), &config)?;
    if matches!(args.device.as_str(), "flex" | "ndarray") {
        check_memory(&config)?;
    }
    // A finished run that only tells of itself writes nothing.
    if config != *run.config() || run.summary().is_ok_and(|summary| summary.is_none()) {
        check_disk(&config, run.dir(), run.checkpoint_bytes()?)?;
    }
    let dir = PathBuf::from(&run.manifest().data.dir);
    let preparation = |data_dir| Preparation { config: run.config(), data_dir, workspace: Path::new("."), stop };
    let data = match Prepared::is_complete(&dir).then(|| Prepared::open(&dir)) {
        Some(Ok(data)) => data,
        Some(Err(DataError::Damaged { .. })) => {
            rebuild(&preparation(dir.parent().unwrap_or(&dir)), &dir, &mut |event| progress.prepare(event))?
        }
        Some(Err(error)) => return Err(error.into()),
        None => {
            // Its hash is compared with the run's before anything is trained.
            line(args.quiet, &format!("warning: the prepared data `{}` is gone; preparing it anew", dir.display()));
            prepare(&preparation(&train_args.corpus.data_dir), &mut |event| progress.prepare(event))?
        }
    };
    progress.clear();
    progress.shards(&data.manifest, &data.dir, data.reused);
    Ok((run, config, data))
}

fn manifest(args: &Args, config: &RunConfig, data: &Prepared, device: &Device) -> anyhow::Result<Manifest> {
    let hash = |bytes: &[u8]| format!("{:032x}", xxh3_128(bytes));
    let exe = std::env::current_exe().and_then(std::fs::read).context("cannot read the program itself to note its hash")?;
    let burn = LOCK_FILE.split("[[package]]").find(|package| package.contains("name = \"burn\"\n"));
    let version = burn.and_then(|package| package.lines().find_map(|line| line.strip_prefix("version = "))).unwrap_or_default();
    Ok(Manifest {
        format: String::new(),
        version: 0,
        name: String::new(),
        created_unix_ms: jiff::Timestamp::now().as_millisecond(),
        kindling: env!("CARGO_PKG_VERSION").into(),
        burn: version.trim_matches('"').into(),
        code_hash: hash(&exe),
        lock_hash: hash(LOCK_FILE.as_bytes()),
        device: args.device.clone(),
        threads: rayon::current_num_threads(),
        precision: TrainingPrecision::on(device, config.train.precision).name.into(),
        n_params: config.n_trained(),
        data: DataRef {
            dir: std::path::absolute(&data.dir)?.display().to_string(),
            data_hash: data.manifest.data_hash(),
            corpus_hash: data.manifest.corpus.hash.clone(),
            tokenizer_hash: data.manifest.tokenizer_hash.clone(),
        },
    })
}

/// Says what came of a training, and, if it has ended just now, of its task's test. What is wrong with that does not make the training
/// fail.
fn finished(
    args: &Args,
    registry: &Registry,
    training: &Training<'_>,
    summary: &Summary,
    sample: &str,
    just_now: bool,
) -> anyhow::Result<()> {
    let Training { run, config, .. } = *training;
    let verdict = judge(run)?;
    let beside = registry.fine_tunings_beside(run)?;
    // What was saved is what is used from now on: opening it here means that it can be opened later.
    let opened = open(run.dir(), &device::open(&args.device)?)?;
    let test = || {
        let task = config.task.as_ref().filter(|_| just_now)?;
        let tested = task::test(args, &opened, (task, &config.data), task::BATCH_SIZE, &mut Progress::new(args.quiet));
        let why = |error: &anyhow::Error| {
            format!(
                "warning: the run is trained, and its test failed: {error:#}; `{} eval {}` tests it again",
                program(),
                quoted(&registry.handle(run))
            )
        };
        tested.map(|(report, _)| report).inspect_err(|error| line(args.quiet, &why(error))).ok()
    };
    if args.json {
        let tested = test();
        let mut value = json!({ "run": run.name(), "dir": run.dir(), "summary": summary, "verdict": verdict, "fine_tunings": finetune::as_json(&beside), "sample": sample });
        if let Some(report) = &tested {
            value["task"] = task::as_json(run, report);
        }
        return output::json(&value);
    }
    let mut rows = vec![
        ("validation loss", format!("{:.4} nats a token (best {:.4} at step {})", summary.validation_loss, summary.best.0, summary.best.1)),
        ("perplexity", output::perplexity(summary.perplexity)),
        ("bits per byte", output::bits_per_byte(summary.bits_per_byte)),
        ("next-token accuracy", format!("{:.2} %", 100.0 * summary.accuracy)),
        ("tokens/s", format!("{:.0} training on {} with {} threads", summary.tokens_per_s, args.device, rayon::current_num_threads())),
        ("MFU", mfu(summary)),
        ("peak memory", summary.peak_memory_bytes.map_or("unknown on this system".into(), output::mebibytes)),
        ("run", format!("{} (checkpoint of step {})", run.dir().display(), opened.step)),
    ];
    let mut judged = vec![("verdict", verdict.trend.to_string())];
    judged.extend(verdict.gap.map(|gap| ("gap", format!("{gap}, validation above training loss"))));
    judged.extend(summary.memorised.as_ref().map(|found| ("memorised", memorised(found))));
    judged.extend(summary.forgetting.iter().flat_map(finetune::rows));
    if config.base.is_some() && summary.forgetting.is_none() && config.model.n_classes == 0 {
        judged.push(("forgotten", "unknown: what the run began with cannot be read".into()));
    }
    rows.splice(4..4, judged);
    if summary.ended != Ended::Steps {
        rows.insert(0, ("ended", ended(summary)));
    }
    let next = next_commands(args, &quoted(&registry.handle(run)), config, summary, &opened.tokenizer);
    rows.extend(next.iter().enumerate().map(|(i, command)| (if i == 0 { "next" } else { "" }, command.clone())));
    if !sample.is_empty() {
        output::text(&format!("sample after {} steps:\n{}\n\n", summary.steps, indent(sample)))?;
    }
    output::pairs(&rows)?;
    finetune::side_by_side(&beside)?;
    if let Some(report) = test() {
        output::text("\n")?;
        task::print(run, &report)?;
    }
    Ok(())
}

/// The longest piece of the last sample that is a copy.
fn memorised(found: &MemorisedText) -> String {
    const SHOWN: usize = 60;
    let text: String = found.text.chars().take(SHOWN).collect();
    let more = if text.len() < found.text.len() { "…" } else { "" };
    format!("{} of the sample's {} tokens stand in the training data like this: {text:?}{more}", found.n_tokens, found.n_sampled)
}

/// How much of what the device can compute the training used.
pub(super) fn mfu(summary: &Summary) -> String {
    let (Some(mfu), Some(peak)) = (summary.mfu, summary.matmul_peak_flops_per_s) else { return "unknown: not measured".into() };
    format!("{:.1} % of {:.0} GFLOP/s, the best speed of matrix products measured there", 100.0 * mfu, peak / 1e9)
}

/// Why a run has come to its end.
fn ended(summary: &Summary) -> String {
    match summary.ended {
        Ended::Steps => format!("all its {} steps are taken", summary.steps),
        Ended::Hours => format!("`train.max_hours` is over, after {} steps", summary.steps),
        Ended::Patience => format!("no better for `train.patience` evaluations, after {} steps", summary.steps),
    }
}

/// Commands that work when they are pasted.
fn next_commands(args: &Args, name: &str, config: &RunConfig, summary: &Summary, tokenizer: &Tokenizer) -> Vec<String> {
    let program = program();
    let dir = own_options(args);
    let prompt = &config.sample.prompt;
    let prompt = if prompt.is_empty() { String::new() } else { format!(" --prompt {}", quoted(prompt)) };
    let mut commands = match &config.task {
        Some(_) => vec![format!("{program} apply {name}{dir}"), format!("{program} eval {name}{dir}")],
        None => vec![format!("{program} generate {name}{dir}{prompt}")],
    };
    // A text of the user's own, or what lies here; one that this vocabulary can express.
    let data = &config.data;
    let is_short = |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LONGEST_SCORED);
    let can_be_scored = |path: &PathBuf| {
        is_short(path) && read_document(path, data.lossy).is_ok_and(|text| tokenizer.encode(&text).is_ok_and(|ids| ids.len() > 1))
    };
    // Rows of examples are no text.
    let own = if data.examples.is_some() { &[][..] } else { &data.paths };
    let readme = PathBuf::from("README.md");
    if let Some(text) = own.iter().chain([&readme]).find(|path| config.task.is_none() && can_be_scored(path)) {
        let lossy = if data.lossy { " --lossy" } else { "" };
        commands.push(format!("{program} eval {name}{dir} --text {}{lossy}", quoted(&text.display().to_string())));
    }
    commands.push(format!("{program} runs show {name}{dir}"));
    if config.lora().is_some() {
        commands.push(format!("{program} merge {name}{dir}"));
    }
    let train = &config.train;
    let longer = match summary.ended {
        Ended::Hours => format!("train.max_hours={}", 2.0 * train.max_hours.unwrap_or_default()),
        Ended::Patience => format!("train.patience={}", 2 * train.patience),
        // Whatever ends it with that step, doubled.
        Ended::Steps => {
            let binds = |train: TrainConfig| train.last_step(&config.model) == summary.steps;
            let free = TrainConfig { steps: 1 << 40, max_tokens: None, max_flops: None, ..train.clone() };
            let steps = binds(TrainConfig { steps: train.steps, ..free.clone() }).then(|| format!("train.steps={}", 2 * train.steps));
            let tokens = train.max_tokens.filter(|_| binds(TrainConfig { max_tokens: train.max_tokens, ..free.clone() }));
            let flops = train.max_flops.filter(|_| binds(TrainConfig { max_flops: train.max_flops, ..free.clone() }));
            let tokens = tokens.map(|tokens| format!("train.max_tokens={}", 2 * tokens));
            let flops = flops.map(|flops| format!("train.max_flops={:e}", 2.0 * flops));
            steps.into_iter().chain(tokens).chain(flops).collect::<Vec<_>>().join(" --set ")
        }
    };
    commands.push(format!("{program} train{dir} --resume {name} --set {longer}"));
    commands
}

/// A word as a POSIX shell reads it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// The options of this call that the next commands need too.
fn own_options(args: &Args) -> String {
    let mut options = String::new();
    if args.runs_dir != Path::new("runs") {
        options += &format!(" --runs-dir {}", quoted(&args.runs_dir.display().to_string()));
    }
    if args.device != "flex" {
        options += &format!(" --device {}", args.device);
    }
    if let Some(isa) = args.isa {
        options += &format!(" --isa {isa}");
    }
    options
}

/// This program as the user can call it from here.
fn program() -> String {
    let exe = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("kindling"));
    let here = std::env::current_dir().ok();
    let shown = here.and_then(|here| exe.strip_prefix(here).ok().map(Path::to_owned)).unwrap_or(exe);
    quoted(&shown.display().to_string())
}
