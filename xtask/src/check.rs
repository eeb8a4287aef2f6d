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
    /// For `openai` and `lm-eval`: a Python that has the client's package
    #[arg(long, value_name = "PYTHON", default_value = "python3")]
    python: PathBuf,
    /// For `page`: a folder in which `npm install playwright-core` was run
    #[arg(long, value_name = "FOLDER", required_if_eq("client", "page"))]
    node: Option<PathBuf>,
    /// For `page`: a Chromium
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/chromium")]
    chromium: PathBuf,
    /// For `page`: where pictures go
    #[arg(long, value_name = "FOLDER", default_value = "target/page")]
    pictures: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Client {
    /// The package `openai`: models, completions, chats, streams, log-probabilities, embeddings, and errors
    Openai,
    /// The package `lm_eval` with `transformers`: its scores of a text and of choices are those of `kindling eval`
    LmEval,
    /// The page, in headless Chromium: send, stop, regenerate, parameters, probabilities; pictures of it go to `--pictures`
    Page,
}

const KEY: &str = "a key that nobody knows";

/// `cargo xtask check CLIENT`. The code is 1 if the client is not content.
pub(crate) fn command(workspace: &Workspace, args: &CheckArgs) -> Result<u8> {
    let binary = match build(workspace, &[])? {
        Build::Done(binary) => binary,
        Build::Failed(code) => return Ok(code),
    };
    let folder = workspace.target.join(format!("check-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let checked = check(workspace, &binary, &folder, args);
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
    checked
}

fn check(workspace: &Workspace, binary: &Path, folder: &Path, args: &CheckArgs) -> Result<u8> {
    let in_folder = |name: &str| folder.join(name).display().to_string();
    let mut train = Command::new(binary);
    train.current_dir(&workspace.root).args(["train", "--quiet", "--config", "configs/spark.toml", "--data", "docs", "--name", "check"]);
    // A context that a text does not fill in a moment; and on the page, not before a browser beside it has pressed a key: of a larger model, which
    // need have learned nothing.
    let settings: &[&str] = match args.client {
        Client::Page => &["context_len=2048", "n_layers=6", "n_heads=6", "d_model=384", "d_ff=1536"],
        Client::Openai | Client::LmEval => &["context_len=1024"],
    };
    let steps = if matches!(args.client, Client::Page) { 2 } else { 30 };
    train.args(settings.iter().flat_map(|setting| ["--set".to_owned(), format!("model.{setting}")]));
    train.args(["--set", "train.batch_size=1", "--set", &format!("train.steps={steps}")]);
    train.args(["--runs-dir", &in_folder("runs"), "--data-dir", &in_folder("data")]);
    if !train.stdout(Stdio::null()).status().context("cannot start kindling")?.success() {
        bail!("the model to check with could not be trained");
    }
    fs::write(folder.join("key"), KEY)?;
    let mut serve = Command::new(binary);
    serve.args(["serve", "check", "--quiet", "--port", "0", "--runs-dir", &in_folder("runs"), "--api-key-file", &in_folder("key")]);
    let mut server = Server(serve.stdout(Stdio::piped()).spawn().context("cannot start kindling")?);
    let mut address = String::new();
    BufReader::new(server.0.stdout.take().context("its output is read")?).read_line(&mut address)?;
    let peers = workspace.root.join("crates/kindling-bench/peers");
    let mut client = Command::new(&args.python);
    match args.client {
        Client::Page => {
            let node = args.node.as_deref().context("`--node` is given")?;
            // Node finds packages from where a module lies.
            let script = node.join("kindling_page.mjs");
            fs::copy(peers.join("page.mjs"), &script).with_context(|| format!("cannot write `{}`", script.display()))?;
            fs::create_dir_all(&args.pictures)?;
            client = Command::new("node");
            client.arg(script).args([address.trim(), KEY]).arg(&args.chromium).arg(std::path::absolute(&args.pictures)?)
        }
        Client::Openai => client.arg(peers.join("openai_client.py")).args([&format!("{}/v1", address.trim()), "check", KEY]),
        Client::LmEval => {
            score(workspace, binary, folder)?;
            client.arg(peers.join("lm_eval_client.py")).args([address.trim(), "check", KEY]).arg(folder)
        }
    };
    let status = client.status().with_context(|| format!("cannot start `{}`", client.get_program().display()))?;
    Ok(u8::from(!status.success()))
}

/// Writes a text and rows with choices, what `kindling eval` says of them, and the run's tokenizer, into the folder.
fn score(workspace: &Workspace, binary: &Path, folder: &Path) -> Result<()> {
    const TASK: &str = "name = \"rows\"\nkind = \"multiple-choice\"\nprompt = \"{{ question }}\"\ntarget = \" {{ answer }}\"\nchoices = \"choices\"\n\n\
                        [data]\ntest = [\"rows.jsonl\"]\n";
    // Every third line of the guide with enough words is a row: what follows its first words, beside what follows others.
    let guide = fs::read_to_string(workspace.root.join("docs/guide.md"))?;
    let lines: Vec<Vec<&str>> =
        guide.lines().map(|line| line.split_whitespace().collect()).filter(|words: &Vec<_>| words.len() > 9).collect();
    let ends: Vec<String> =
        lines.iter().enumerate().map(|(i, words)| words[5..6 + i % 4].join(" ").chars().filter(char::is_ascii).collect()).collect();
    let row = |i: usize| {
        let mut choices: Vec<&String> = [0, 1, 2, 3].map(|step| &ends[(i + step * 7) % ends.len()]).to_vec();
        choices.sort();
        choices.dedup();
        serde_json::json!({ "question": lines[i][..5].join(" "), "choices": choices, "answer": ends[i] })
    };
    let rows = (0..lines.len()).map(row).filter(|row| row["choices"].as_array().is_some_and(|choices| choices.len() > 2));
    fs::write(folder.join("rows.jsonl"), rows.map(|row| format!("{row}\n")).collect::<String>())?;
    fs::write(folder.join("rows.toml"), TASK)?;
    // One that fits a context, so that both look at it as a whole.
    fs::write(folder.join("text.txt"), guide.chars().take(1500).collect::<String>())?;
    let runs = folder.join("runs");
    fs::copy(runs.join("check/tokenizer.json"), folder.join("tokenizer.json"))?;
    for (option, file) in [("--text", "text.txt"), ("--task", "rows.toml")] {
        let mut eval = Command::new(binary);
        eval.args(["eval", "check", "--quiet", "--json", "--runs-dir"]).arg(&runs).arg(option).arg(folder.join(file));
        let output = eval.stderr(Stdio::inherit()).output().context("cannot start kindling")?;
        if !output.status.success() {
            bail!("`kindling eval {option}` ended with {}", output.status);
        }
        fs::write(folder.join(file).with_extension("json"), output.stdout)?;
    }
    Ok(())
}

/// Ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
