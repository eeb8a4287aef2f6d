//! `cargo xtask ci`: the stages that a change has to pass, their times, and one verdict.

use std::env;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{self, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::binary::{Build, build_for_gpu_check};
use crate::test::{TestArgs, Tested, Totals, test};
use crate::tidy;
use crate::train::{TrainArgs, Trained, train};
use crate::verify_resume::{self, VerifyResumeArgs};
use crate::workspace::{Workspace, run};

/// What the user asked for.
#[derive(clap::Args)]
pub(crate) struct CiArgs {
    /// Leave a stage out; may be given more than once
    #[arg(long, value_name = "STAGE")]
    skip: Vec<Stage>,
}

/// In the order in which they run: what fails fastest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    Fmt,
    Clippy,
    Tidy,
    Test,
    Train,
    Resume,
    Docs,
    Vulkan,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Tidy => "tidy",
            Self::Test => "test",
            Self::Train => "train",
            Self::Resume => "resume",
            Self::Docs => "docs",
            Self::Vulkan => "vulkan",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Fmt => "the code is formatted",
            Self::Clippy => "no lint is raised",
            Self::Tidy => "the rules of the workspace hold",
            Self::Test => "every test passes",
            Self::Train => "the README's main job, for 20 steps",
            Self::Resume => "runs that are killed end as those that are not",
            Self::Docs => "the docs build, and their links lead somewhere",
            Self::Vulkan => "the GPU backends build, and a Vulkan device computes",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    /// The binary did not build: nothing after it makes sense.
    BuildFailed,
    Skipped(String),
}

impl Outcome {
    fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Passed,
            code => Self::Failed(format!("exit code {code}")),
        }
    }

    fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::BuildFailed)
    }
}

struct Row {
    stage: Stage,
    outcome: Outcome,
    elapsed: Duration,
}

/// `cargo xtask ci`. The total of the tests is the last line on stdout.
pub(crate) fn command(workspace: &Workspace, args: &CiArgs) -> Result<u8> {
    let mut totals = None;
    let rows =
        run_all(&args.skip, |stage| run_stage(workspace, stage, &mut totals).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}"))));
    print!("\n{}", table(&rows));
    if let Some(totals) = totals {
        println!("\n{totals}");
    }
    Ok(u8::from(rows.iter().any(|row| row.outcome.is_failure())))
}

/// Runs the stages in order, with a heading and a time for each.
fn run_all(skip: &[Stage], mut run_stage: impl FnMut(Stage) -> Outcome) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for stage in Stage::value_variants() {
        println!("\n== {}: {}", stage.name(), stage.about());
        let start = Instant::now();
        let outcome = if skip.contains(stage) {
            Outcome::Skipped("`--skip`".into())
        } else if rows.iter().any(|row| row.outcome == Outcome::BuildFailed) {
            Outcome::Skipped("the build failed".into())
        } else {
            run_stage(*stage)
        };
        let row = Row { stage: *stage, outcome, elapsed: start.elapsed() };
        println!("== {}", summary(&row));
        rows.push(row);
    }
    rows
}

fn run_stage(workspace: &Workspace, stage: Stage, totals: &mut Option<Totals>) -> Result<Outcome> {
    match stage {
        Stage::Fmt => {
            let mut cargo = workspace.cargo(&["fmt", "--all", "--", "--check"]);
            Ok(Outcome::of_code(run(&mut cargo)?))
        }
        Stage::Clippy => {
            let mut cargo = workspace.locked_cargo(&["clippy", "--release", "--workspace", "--all-targets"]);
            cargo.args(["--", "-D", "warnings"]);
            Ok(Outcome::of_code(run(&mut cargo)?))
        }
        Stage::Tidy => Ok(Outcome::of_code(tidy::command(workspace)?)),
        Stage::Test => run_tests(workspace, totals),
        Stage::Train => train_briefly(workspace),
        Stage::Resume => Ok(Outcome::of_code(verify_resume::command(workspace, &VerifyResumeArgs::few())?)),
        Stage::Docs => {
            let mut cargo = workspace.locked_cargo(&["doc", "--release", "--workspace", "--no-deps"]);
            cargo.env("RUSTDOCFLAGS", "-D warnings");
            Ok(Outcome::of_code(run(&mut cargo)?))
        }
        Stage::Vulkan => check_vulkan(workspace),
    }
}

/// The same as `cargo xtask test`, with its total kept for the last line.
fn run_tests(workspace: &Workspace, kept: &mut Option<Totals>) -> Result<Outcome> {
    let (totals, outcome) = match test(workspace, &TestArgs::default())? {
        Tested::NotBuilt(_) => (Totals::default(), Outcome::BuildFailed),
        Tested::Ran { totals, code: 0 } => (totals, Outcome::Passed),
        Tested::Ran { totals, .. } => (totals, Outcome::Failed(totals.to_string())),
    };
    println!("{totals}");
    *kept = Some(totals);
    Ok(outcome)
}

/// `cargo xtask train -- --set train.steps=20`, into a runs folder that is gone afterwards.
fn train_briefly(workspace: &Workspace) -> Result<Outcome> {
    let runs = workspace.target.join(format!("ci-runs-{}", process::id()));
    let options = ["--no-dashboard", "--set", "train.steps=20", "--runs-dir"].map(Into::into);
    let args = TrainArgs::with_options(options.into_iter().chain([runs.clone().into()]).collect());
    let trained = train(workspace, &args)?;
    if runs.exists() {
        fs::remove_dir_all(&runs).with_context(|| format!("cannot remove `{}`", runs.display()))?;
    }
    Ok(match trained {
        Trained::NotBuilt(_) => Outcome::BuildFailed,
        Trained::Ran(code) => Outcome::of_code(code),
    })
}

/// Builds the GPU backends and has the binary compute on the Vulkan device, where there is one.
fn check_vulkan(workspace: &Workspace) -> Result<Outcome> {
    let variables = DRIVER_VARIABLES.map(|name| (name, env::var_os(name).is_some_and(|v| !v.is_empty())));
    let Some(driver) = vulkan_driver(&DRIVER_FOLDERS.map(Path::new), &variables) else {
        return Ok(Outcome::Skipped(format!(
            "no Vulkan driver: no JSON file in {}, and {} are not set",
            DRIVER_FOLDERS.join(" or "),
            DRIVER_VARIABLES.join(" and ")
        )));
    };
    println!("driver: {driver}");
    match build_for_gpu_check(workspace)? {
        // Unlike a failed build of the default features this one says nothing about the other stages.
        Build::Failed(code) => Ok(Outcome::Failed(format!("the build with `wgpu`: exit code {code}"))),
        Build::Done(binary) => {
            let mut kindling = Command::new(binary);
            kindling.args(["devices", "--check"]).current_dir(&workspace.root);
            Ok(Outcome::of_code(run(&mut kindling)?))
        }
    }
}

/// Where the Vulkan loader looks for drivers, and the variables that point it elsewhere.
const DRIVER_FOLDERS: [&str; 2] = ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"];
const DRIVER_VARIABLES: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// What speaks for a Vulkan driver: a variable that is set, or a JSON file in one of the folders.
fn vulkan_driver(folders: &[&Path], variables: &[(&str, bool)]) -> Option<String> {
    if let Some((name, _)) = variables.iter().find(|(_, set)| *set) {
        return Some(format!("`{name}` is set"));
    }
    let mut files = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.next().map(|path| path.display().to_string())
}

/// `clippy: passed, 12.3 s`.
fn summary(row: &Row) -> String {
    let (verdict, why) = words(&row.outcome);
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    format!("{}: {verdict}{why}, {:.1} s", row.stage.name(), row.elapsed.as_secs_f64())
}

/// One line a stage: name, verdict, seconds, reason.
fn table(rows: &[Row]) -> String {
    let mut table = format!("{:<8} {:<8} {:>8}\n", "stage", "result", "seconds");
    for row in rows {
        let (verdict, why) = words(&row.outcome);
        let line = format!("{:<8} {verdict:<8} {:>8.1}  {why}", row.stage.name(), row.elapsed.as_secs_f64());
        writeln!(table, "{}", line.trim_end()).expect("a string takes every write");
    }
    table
}

fn words(outcome: &Outcome) -> (&'static str, &str) {
    match outcome {
        Outcome::Passed => ("passed", ""),
        Outcome::Failed(why) => ("FAILED", why),
        Outcome::BuildFailed => ("FAILED", "the build"),
        Outcome::Skipped(why) => ("skipped", why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stages that ran, when `failing` ends with `outcome` and `skip` is left out.
    fn ran(skip: &[Stage], failing: Stage, outcome: &Outcome) -> (Vec<Stage>, Vec<Row>) {
        let mut ran = Vec::new();
        let rows = run_all(skip, |stage| {
            ran.push(stage);
            if stage == failing { outcome.clone() } else { Outcome::Passed }
        });
        (ran, rows)
    }

    #[test]
    fn a_failed_stage_does_not_stop_the_later_ones() {
        let (ran, rows) = ran(&[], Stage::Fmt, &Outcome::Failed("exit code 1".into()));
        assert_eq!(ran, Stage::value_variants());
        assert_eq!(rows.iter().filter(|r| r.outcome.is_failure()).count(), 1);
    }

    #[test]
    fn nothing_runs_after_a_failed_build() {
        let (ran, rows) = ran(&[], Stage::Test, &Outcome::BuildFailed);
        assert_eq!(ran.last(), Some(&Stage::Test));
        assert_eq!(rows.len(), Stage::value_variants().len());
        assert_eq!(rows.iter().filter(|r| r.outcome.is_failure()).count(), 1);
    }

    #[test]
    fn stages_are_left_out_on_demand() {
        let skip = [Stage::Vulkan, Stage::Docs];
        let (ran, rows) = ran(&skip, Stage::Vulkan, &Outcome::BuildFailed);
        assert!(skip.iter().all(|stage| !ran.contains(stage)));
        assert!(!rows.iter().any(|row| row.outcome.is_failure()));
    }

    #[test]
    fn the_table_has_a_line_for_each_stage() {
        let row = |stage, outcome, millis| Row { stage, outcome, elapsed: Duration::from_millis(millis) };
        let rows = [
            row(Stage::Clippy, Outcome::Passed, 61_240),
            row(Stage::Test, Outcome::Failed("3 passed, 1 failed".into()), 500),
            row(Stage::Vulkan, Outcome::Skipped("`--skip`".into()), 0),
        ];
        assert_eq!(
            table(&rows),
            "stage    result    seconds\n\
             clippy   passed       61.2\n\
             test     FAILED        0.5  3 passed, 1 failed\n\
             vulkan   skipped       0.0  `--skip`\n"
        );
        assert_eq!(summary(&rows[2]), "vulkan: skipped (`--skip`), 0.0 s");
    }

    #[test]
    fn a_vulkan_driver_is_a_json_file_or_a_variable() {
        // Any folder will do: the crate's own has files, none of them a JSON file.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(vulkan_driver(&[folder, Path::new("no/such/folder")], &[]), None);
        assert_eq!(vulkan_driver(&[], &[("A", false), ("B", true)]).as_deref(), Some("`B` is set"));

        let drivers = env::temp_dir().join(format!("kindling-xtask-icd-{}", process::id()));
        fs::create_dir_all(&drivers).expect("a temporary folder");
        let file = drivers.join("lvp_icd.json");
        fs::write(&file, "{}").expect("a temporary file");
        let found = vulkan_driver(&[folder, &drivers], &[]);
        fs::remove_dir_all(&drivers).expect("to remove the temporary folder");
        assert_eq!(found, Some(file.display().to_string()));
    }
}
