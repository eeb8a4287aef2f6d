//! `cargo xtask verify-resume`: a run that is killed again and again ends in the weights of one that never was. What a resume
//! is, `kindling train` knows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::binary::{Build, build};
use crate::workspace::{Workspace, cannot_start};

/// What the user asked for.
#[derive(clap::Args)]
pub(crate) struct VerifyResumeArgs {
    /// How often each run is killed
    #[arg(long, default_value_t = 20)]
    pub(crate) kills: usize,
    /// Only this recipe; by default all of them
    #[arg(long)]
    recipe: Option<Recipe>,
    /// Chooses the moments of the kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl VerifyResumeArgs {
    /// A few kills of every recipe.
    pub(crate) fn few() -> Self {
        Self { kills: 3, recipe: None, seed: 1 }
    }
}

/// What is trained: all with dropout, and with micro-batches that do not divide the batch.
#[derive(Clone, Copy, ValueEnum)]
enum Recipe {
    Adamw,
    /// With a moving average of the weights, and windows without repetition.
    Muon,
    /// With gradient checkpointing and a guard that now and then takes a step for a spike.
    Lion,
    /// With a guard that now and then goes back to a checkpoint.
    Sgd,
    /// An adapter beside a base that is trained first, held to it, with a moving average.
    Lora,
}

impl Recipe {
    fn name(self) -> &'static str {
        match self {
            Self::Adamw => "adamw",
            Self::Muon => "muon",
            Self::Lion => "lion",
            Self::Sgd => "sgd",
            Self::Lora => "lora",
        }
    }

    fn overrides(self) -> &'static [&'static str] {
        match self {
            Self::Adamw => &["train.optimizer=adamw"],
            Self::Muon => &["train.optimizer=muon", "train.ema=0.99", "data.order=epoch", "train.schedule=wsd"],
            Self::Lion => &[
                "train.optimizer=lion",
                "train.lr=3e-4",
                "train.min_lr=3e-5",
                "train.gradient_checkpointing=true",
                "train.spike_guard.action=skip",
                "train.spike_guard.sigmas=2.5",
            ],
            Self::Sgd => &[
                "train.optimizer=sgd",
                // Losses that do not fall, so that some lie far above those before.
                "train.lr=1e-3",
                "train.min_lr=1e-3",
                "train.spike_guard.action=rollback",
                "train.spike_guard.sigmas=1.7",
            ],
            Self::Lora => &["train.ema=0.99"],
        }
    }
}

/// A few seconds of training on the workspace's own pages; a checkpoint every few steps, so that kills meet some half-written.
const COMMON: &[&str] = &[
    "name=verify",
    "model.n_layers=2",
    "model.n_heads=2",
    "model.d_model=64",
    "model.d_ff=128",
    "model.context_len=32",
    "model.dropout={embedding=0.1,attention=0.1,residual=0.1}",
    "tokenizer.vocab_size=512",
    "train.steps=600",
    "train.batch_size=8",
    "train.micro_batch_size=3",
    "train.log_every=1",
    "train.eval_every=60",
    "train.sample_every=0",
    "train.checkpoint_every=5",
    "sample.max_new_tokens=1",
];

/// `cargo xtask verify-resume`. The code is 1 if a run differs.
pub(crate) fn command(workspace: &Workspace, args: &VerifyResumeArgs) -> Result<u8> {
    let binary = match build(workspace, &[])? {
        Build::Done(binary) => binary,
        Build::Failed(code) => return Ok(code),
    };
    let folder = workspace.target.join(format!("verify-resume-{}", std::process::id()));
    let recipes = args.recipe.map_or_else(|| Recipe::value_variants().to_vec(), |recipe| vec![recipe]);
    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut differs = false;
    for recipe in recipes {
        let lab = Lab { binary: &binary, root: &workspace.root, folder: folder.join(recipe.name()), recipe };
        differs |= !lab.verify(args.kills, &mut random).with_context(|| format!("verifying {}", recipe.name()))?;
    }
    if differs {
        eprintln!("what was trained is kept in {}", folder.display());
    } else {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    }
    Ok(u8::from(differs))
}

/// A place to train in.
struct Lab<'a> {
    binary: &'a Path,
    root: &'a Path,
    folder: PathBuf,
    recipe: Recipe,
}

impl Lab<'_> {
    /// Whether a run that is killed so often ends as one that is not. Says so.
    fn verify(&self, kills: usize, random: &mut fastrand::Rng) -> Result<bool> {
        let name = self.recipe.name();
        let start = Instant::now();
        let mut whole = self.begin("whole")?;
        ensure!(whole.wait()?.success(), "the uninterrupted run failed; {}", self.folder.join("whole.log").display());
        let seconds = start.elapsed().as_secs_f64();
        let expected = self.hashes("whole")?;
        let file = if matches!(self.recipe, Recipe::Lora) { "adapter" } else { "model" };
        let model = expected.get(&format!("checkpoints/{file}.safetensors")).context("the last checkpoint has no weights")?;
        println!("{name}: uninterrupted in {seconds:.1} s, final weights {model}");

        let (mut done, mut torn, mut runs, mut equal) = (0, 0, 0, true);
        // At least once to the end, also with no kills.
        while equal && (done < kills || runs == 0) {
            let cut = format!("cut-{runs}");
            let mut child = self.begin(&cut)?;
            // Half of the time at a random moment, half in the middle of a checkpoint.
            while done < kills {
                let limit = Duration::from_secs_f64(random.f64() * 1.5 * seconds / kills as f64);
                let is_killed =
                    if random.bool() { self.kill_after(&mut child, limit)? } else { self.kill_in_checkpoint(&mut child, &cut, limit)? };
                if !is_killed {
                    break;
                }
                done += 1;
                torn += usize::from(self.is_torn(&cut));
                child = self.resume(&cut)?;
            }
            ensure!(child.wait()?.success(), "a resumed run failed; {}", self.folder.join(format!("{cut}.log")).display());
            let found = self.hashes(&cut)?;
            for (file, hash) in &expected {
                if found.get(file) != Some(hash) {
                    println!("{name}: {file} is {}, expected {hash}", found.get(file).map_or("missing", String::as_str));
                    equal = false;
                }
            }
            equal &= found.len() == expected.len();
            runs += 1;
        }
        let verdict = if equal { "the same bytes" } else { "DIFFERENT" };
        println!("{name}: {done} kills, {torn} of them within a checkpoint, in {runs} runs: {verdict}");
        Ok(equal)
    }

    fn begin(&self, run: &str) -> Result<Child> {
        if matches!(self.recipe, Recipe::Lora) {
            return self.begin_beside_base(run);
        }
        let mut options = vec!["train", "--name", run, "--config", "configs/spark.toml", "--data", "docs"];
        for set in COMMON.iter().chain(self.recipe.overrides()) {
            options.extend(["--set", set]);
        }
        self.start(run, &options)
    }

    fn begin_beside_base(&self, run: &str) -> Result<Child> {
        const BASE: &str = "base";
        if !self.run(BASE).join("summary.json").is_file() {
            let mut options = vec!["train", "--name", BASE, "--config", "configs/spark.toml", "--data", "docs"];
            for set in COMMON.iter().chain(&["train.steps=60", "train.checkpoint_every=60"]) {
                options.extend(["--set", set]);
            }
            ensure!(self.start(BASE, &options)?.wait()?.success(), "the base failed; {}", self.folder.join("base.log").display());
        }
        let mut options = vec!["finetune", "--base", BASE, "--name", run, "--data", "docs", "--lora", "4", "--lwf", "1"];
        // The model and the tokenizer are the base's.
        for set in COMMON.iter().filter(|set| set.starts_with("train.")).chain(self.recipe.overrides()) {
            options.extend(["--set", set]);
        }
        self.start(run, &options)
    }

    fn resume(&self, run: &str) -> Result<Child> {
        // Killed before its folder was there, it begins anew.
        if self.run(run).join("config.toml").is_file() { self.start(run, &["train", "--resume", run]) } else { self.begin(run) }
    }

    fn start(&self, run: &str, options: &[&str]) -> Result<Child> {
        fs::create_dir_all(&self.folder)?;
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join(format!("{run}.log")))?;
        let mut command = Command::new(self.binary);
        command.args(options).current_dir(self.root);
        command.arg("--runs-dir").arg(self.folder.join("runs")).arg("--data-dir").arg(self.folder.join("data"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| cannot_start(self.binary))
    }

    fn run(&self, run: &str) -> PathBuf {
        self.folder.join("runs").join(run)
    }

    /// Whether it was still there to be killed.
    fn kill_after(&self, child: &mut Child, wait: Duration) -> Result<bool> {
        sleep(wait);
        kill(child)
    }

    /// Kills while a checkpoint is written, or when the limit has passed since one could have been.
    fn kill_in_checkpoint(&self, child: &mut Child, run: &str, wait: Duration) -> Result<bool> {
        sleep(wait);
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline && child.try_wait()?.is_none() && !self.is_torn(run) {
            sleep(Duration::from_micros(200));
        }
        kill(child)
    }

    /// Whether a checkpoint is half-written.
    fn is_torn(&self, run: &str) -> bool {
        ["checkpoints", "best"].iter().any(|kind| {
            let entries = fs::read_dir(self.run(run).join(kind)).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with('.'))
        })
    }

    /// The checksum of each file of weights and moments in the last and the best checkpoint.
    fn hashes(&self, run: &str) -> Result<BTreeMap<String, String>> {
        let mut hashes = BTreeMap::new();
        for kind in ["checkpoints", "best"] {
            let folder = self.run(run).join(kind);
            let entries = fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
            let last = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("checkpoint.json").is_file()).max();
            let Some(last) = last else { bail!("`{}` has no checkpoint", folder.display()) };
            let index: serde_json::Value = serde_json::from_str(&fs::read_to_string(last.join("checkpoint.json"))?)?;
            let step = index["step"].to_string();
            for (name, hash) in index["files"].as_object().context("an index without files")? {
                // Beside them is how long the run has taken.
                if name.ends_with(".safetensors") {
                    hashes.insert(format!("{kind}/{name}"), hash.as_str().unwrap_or_default().to_owned());
                }
            }
            hashes.insert(format!("{kind}: step"), step);
        }
        Ok(hashes)
    }
}

/// SIGKILL, or what comes closest to it. Whether the process was there to be killed.
fn kill(child: &mut Child) -> Result<bool> {
    if child.try_wait()?.is_some() {
        return Ok(false);
    }
    child.kill().context("cannot kill a run")?;
    let status = child.wait()?;
    Ok(!status.success())
}
