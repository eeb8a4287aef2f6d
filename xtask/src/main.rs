//! `cargo xtask`: what cargo cannot say by itself. Links no crate of the workspace, so it builds in moments.

mod bench;
mod binary;
mod check;
mod ci;
mod test;
mod tidy;
mod train;
mod verify_resume;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build `kindling` with what the device needs, then run `kindling train`
    Train(train::TrainArgs),
    /// Run every test of the workspace and print one total
    Test(test::TestArgs),
    /// Time what Kindling computes beside its baselines: `train` or `kernels`, with `--help` for their options
    Bench(bench::BenchArgs),
    /// Kill runs with SIGKILL at random moments, resume them, and compare what they end in with a run that was left alone
    VerifyResume(verify_resume::VerifyResumeArgs),
    /// Let other people's clients ask the server
    Check(check::CheckArgs),
    /// Check the rules of the workspace that no lint knows
    Tidy,
    /// Run everything that a change has to pass
    Ci(ci::CiArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<u8> {
    let workspace = Workspace::find()?;
    match task {
        Task::Train(args) => train::command(&workspace, &args),
        Task::Test(args) => test::command(&workspace, &args),
        Task::Bench(args) => bench::command(&workspace, &args),
        Task::VerifyResume(args) => verify_resume::command(&workspace, &args),
        Task::Check(args) => check::command(&workspace, &args),
        Task::Tidy => tidy::command(&workspace),
        Task::Ci(args) => ci::command(&workspace, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a command line as the alias hands it over.
    fn parse(line: &str) -> Task {
        Cli::try_parse_from(std::iter::once("xtask").chain(line.split(' '))).expect("a valid command line").task
    }

    #[test]
    fn the_parser_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn options_after_two_dashes_are_passed_on_untouched() {
        let Task::Train(args) = parse("train --device wgpu -- --set train.steps=20 --resume") else {
            panic!("not the train task");
        };
        assert_eq!(args.options, ["--set", "train.steps=20", "--resume"]);

        let Task::Test(args) = parse("test -- attention -- --nocapture") else {
            panic!("not the test task");
        };
        assert_eq!(args.args, ["attention", "--", "--nocapture"]);
    }

    #[test]
    fn an_unknown_device_is_refused() {
        assert!(Cli::try_parse_from(["xtask", "train", "--device", "tpu"]).is_err());
        assert!(Cli::try_parse_from(["xtask", "train", "--device", "cuda:1"]).is_ok());
    }
}
