//! Where the workspace and its target folder are, and how commands are run there. Knows no task.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

/// The workspace that the current directory lies in.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) metadata: Metadata,
}

impl Workspace {
    /// Asks cargo. The dependencies are left out, so that this takes no network and no lock file.
    pub(crate) fn find() -> Result<Self> {
        let metadata = MetadataCommand::new().no_deps().exec().context("cannot read the workspace")?;
        Ok(Self { root: metadata.workspace_root.clone().into(), target: metadata.target_directory.clone().into(), metadata })
    }

    /// `cargo ARGS`, to be run at the root of the workspace.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        // The cargo that started us, so that the toolchain stays the same.
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(args).current_dir(&self.root);
        command
    }

    /// As [`Workspace::cargo`], with `--locked` once there is a lock file to hold to.
    pub(crate) fn locked_cargo(&self, args: &[&str]) -> Command {
        let mut command = self.cargo(args);
        if self.root.join("Cargo.lock").is_file() {
            command.arg("--locked");
        }
        command
    }

    /// A path the way a user standing in `here` means it, for a child that stands at the root.
    pub(crate) fn seen_from_root(&self, here: &Path, path: &Path) -> PathBuf {
        if here == self.root { path.to_owned() } else { here.join(path) }
    }
}

/// Runs a command with our own input and output, and returns its exit code.
pub(crate) fn run(command: &mut Command) -> Result<u8> {
    let status = command.status().with_context(|| cannot_start(command.get_program().as_ref()))?;
    Ok(exit_code(status))
}

/// What to say of a program that did not start.
pub(crate) fn cannot_start(program: &Path) -> String {
    format!("cannot start `{}`", program.display())
}

/// The exit code of a child, by the shell's rule for one that a signal ended.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return u8::try_from(128 + signal).unwrap_or(1);
        }
    }
    // Windows has codes past a byte; all that is left to say of those is that they are not 0.
    status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_passed_on() {
        for (script, expected) in [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143)] {
            let code = run(Command::new("sh").args(["-c", script])).expect("a shell");
            assert_eq!(code, expected, "{script}");
        }
    }
}
