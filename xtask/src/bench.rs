//! `cargo xtask bench`: builds `kindling-bench` and hands everything over to it. Times nothing itself.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::workspace::{Workspace, run};

/// What the user asked for.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct BenchArgs {
    /// The benchmark and its options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCH")]
    options: Vec<OsString>,
}

/// `cargo xtask bench`.
pub(crate) fn command(workspace: &Workspace, args: &BenchArgs) -> Result<u8> {
    // Beside `kindling`, so that both are compiled with the same features of Burn, once.
    let code = run(&mut workspace.locked_cargo(&["build", "--release", "--package", "kindling-cli", "--package", "kindling-bench"]))?;
    if code != 0 {
        return Ok(code);
    }
    // Where the user stands: a path to a Python counts from there.
    run(Command::new(workspace.target.join("release").join(format!("kindling-bench{EXE_SUFFIX}"))).args(&args.options))
}
