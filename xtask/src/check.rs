//! `cargo xtask check`: other people's clients against the server. Trains a model for a few seconds to have one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::binary::{Build, build};
use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Whose client
    #[arg(value_enum)]
    client: Client,
    /// A Python that has the client's package
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Client {
    /// The package `openai`: models, completions, chats, streams, log-probabilities, embeddings, and errors
    Openai,
}

const KEY: &str = "a key that nobody knows";

/// `cargo xtask check CLIENT`. The code is 1 if the client is not content.
pub(crate) fn command(workspace: &Workspace, args: &CheckArgs) -> Result<u8> {
    let binary = match build(workspace, &[])? {
        Build::Done(binary) => binary,
        Build::Failed(code) => return Ok(code),
    };
    let Client::Openai = args.client;
    let folder = workspace.target.join(format!("check-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let checked = check(workspace, &binary, &folder, &args.python);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    checked
}

fn check(workspace: &Workspace, binary: &Path, folder: &Path, python: &Path) -> Result<u8> {
    let in_folder = |name: &str| folder.join(name).display().to_string();
    let mut train = Command::new(binary);
    train.current_dir(&workspace.root).args(["train", "--quiet", "--config", "configs/spark.toml", "--data", "docs", "--name", "check"]);
    train.args(["--set", "train.steps=30", "--runs-dir", &in_folder("runs"), "--data-dir", &in_folder("data")]);
    if !train.stdout(Stdio::null()).status().context("cannot start kindling")?.success() {
        bail!("the model to check with could not be trained");
    }
    fs::write(folder.join("key"), KEY)?;
    let mut serve = Command::new(binary);
    serve.args(["serve", "check", "--port", "0", "--runs-dir", &in_folder("runs"), "--api-key-file", &in_folder("key")]);
    let mut server = Server(serve.stdout(Stdio::piped()).spawn().context("cannot start kindling")?);
    let mut address = String::new();
    BufReader::new(server.0.stdout.take().context("its output is read")?).read_line(&mut address)?;
    let script = workspace.root.join("crates/kindling-bench/peers/openai_client.py");
    let status = Command::new(python).arg(script).args([&format!("{}/v1", address.trim()), "check", KEY]).status();
    let status = status.with_context(|| format!("cannot start `{}`", python.display()))?;
    Ok(u8::from(!status.success()))
}

/// Ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
