//! A folder with a text and a tiny config, in which commands are run. Judges nothing but what every error must have.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Said;

/// What `TRAIN` and `TRAIN_ON` stand for, up to the corpus. One thread each: the tests themselves run in parallel.
const TRAIN: &str = "train --threads 1 --runs-dir runs --data-dir data --config tiny.toml --data";

/// 20 steps of a model with 7,000 parameters: a tenth of a second.
const CONFIG: &str = r#"name = "tiny"
seed = 1

[model]
n_layers = 1
n_heads = 2
d_model = 16
d_ff = 32
context_len = 16
bias = true
norm_eps = 1e-5
dropout = { embedding = 0.0, attention = 0.0, residual = 0.0 }

[tokenizer]
kind = "bpe"
vocab_size = 300

[data]
validation_fraction = 0.1

[train]
steps = 20
batch_size = 4
micro_batch_size = 0
lr = 1e-2
min_lr = 1e-3
warmup_steps = 2
beta_1 = 0.9
beta_2 = 0.99
epsilon = 1e-8
weight_decay = 0.1
grad_clip = 1.0
precision = "f32"
gradient_checkpointing = false
log_every = 1
eval_every = 10
sample_every = 0
checkpoint_every = 10
keep_checkpoints = 2

[sample]
prompt = "the "
max_new_tokens = 24
temperature = 0.8
top_k = 0
top_p = 1.0
"#;

/// A temporary folder with `tiny.toml` and `text.txt`.
#[derive(Debug)]
pub struct Lab {
    dir: tempfile::TempDir,
}

/// What can happen to a file.
#[derive(Clone, Copy, Debug)]
pub enum Harm {
    /// Its second half is gone.
    Truncated,
    /// One bit near its end is another.
    Edited,
    /// It is gone.
    Missing,
}

impl Harm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Truncated, Self::Edited, Self::Missing];
}

impl Lab {
    /// A lab without runs.
    #[expect(clippy::new_without_default, reason = "a lab makes a folder, which no default should")]
    pub fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        lab.write("tiny.toml", CONFIG);
        lab.write("text.txt", text(250));
        lab
    }

    /// A lab in which the run `old` has finished.
    pub fn with_run() -> Self {
        let lab = Self::new();
        lab.run("TRAIN --name old").ok();
        lab
    }

    /// A path in the lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the folders that it lies in.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("a folder in the lab");
        fs::write(path, bytes).expect("a file in the lab");
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("cannot read `{name}`: {error}"))
    }

    /// The config with one piece of it replaced.
    pub fn config(&self, old: &str, new: &str) -> String {
        assert!(CONFIG.contains(old), "the config has `{old}`");
        CONFIG.replacen(old, new, 1)
    }

    /// `kindling LINE` in the lab, to be started. Words are split at spaces; single quotes keep them together.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(binary());
        command.args(words(&expand(line))).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs `kindling LINE`.
    pub fn run(&self, line: &str) -> Said {
        Said::new(line, self.command(line).output().expect("kindling starts"))
    }

    /// Starts `kindling LINE` without waiting for it.
    pub fn spawn(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kindling starts")
    }

    /// Runs a script of a POSIX shell; `$KINDLING` is the binary, and `TRAIN` and `TRAIN_ON` stand for what they do in a line.
    pub fn shell(&self, script: &str) -> Said {
        let script = script.split("$KINDLING ").map(expand).collect::<Vec<_>>().join("$KINDLING ");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("KINDLING", binary()).current_dir(self.dir.path()).stdin(Stdio::null());
        Said::new(&script, shell.output().expect("a shell"))
    }

    /// Runs every line and collects what is wrong with its error: the exit code, the form, a missing fragment, or
    /// something lost. A fragment that begins with `!` must not occur. Fails with all of it.
    pub fn check_errors(&self, rows: &[(&str, &[&str])]) {
        let mut faults = Vec::new();
        for (line, expected) in rows {
            let before = (self.snapshot("runs"), self.snapshot("data"));
            let said = self.run(line);
            faults.extend(said.faults(expected));
            faults
                .extend(self.lost("runs", &before.0).into_iter().chain(self.lost("data", &before.1)).map(|lost| format!("{line}: {lost}")));
        }
        if self.path("runs/old").is_dir() {
            let said = self.run("generate old --quiet");
            if said.code != 0 {
                faults.push(format!("the run from before cannot be used any more: {said}"));
            }
        }
        assert!(faults.is_empty(), "{} faults:\n\n{}", faults.len(), faults.join("\n\n"));
    }

    /// Every file below a folder, locks left out.
    pub fn snapshot(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        walk(&self.path(name), &mut files);
        files
    }

    /// What has changed since the snapshot, or was left behind.
    fn lost(&self, name: &str, before: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
        let after = self.snapshot(name);
        let changed =
            before.iter().filter(|(path, bytes)| after.get(*path) != Some(*bytes)).map(|(path, _)| format!("changed {}", path.display()));
        let is_temporary = |path: &&PathBuf| path.iter().any(|part| part.to_string_lossy().starts_with('.'));
        let in_lab = |path: &PathBuf| path.strip_prefix(self.dir.path()).expect("it lies in the lab").to_owned();
        let left = after.keys().map(in_lab).collect::<Vec<_>>();
        changed.chain(left.iter().filter(is_temporary).map(|path| format!("left behind {}", path.display()))).collect()
    }

    /// The only folder of prepared data, from the lab.
    pub fn prepared(&self) -> String {
        let names: Vec<_> = self.names("data").into_iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(names.len(), 1, "one prepared folder: {names:?}");
        format!("data/{}", names[0])
    }

    /// What lies in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap_or_else(|error| panic!("cannot list `{folder}`: {error}"));
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Harms a file.
    pub fn harm(&self, name: &str, harm: Harm) {
        let path = self.path(name);
        let mut bytes = fs::read(&path).unwrap_or_else(|error| panic!("cannot read `{name}`: {error}"));
        match harm {
            Harm::Truncated => bytes.truncate(bytes.len() / 2),
            Harm::Edited => {
                let at = bytes.len() - 3;
                bytes[at] ^= 1;
            }
            Harm::Missing => return fs::remove_file(path).expect("a file that can be removed"),
        }
        fs::write(path, bytes).expect("a file that can be written");
    }

    /// Step and loss of every row of a kind in a run's log. Losses as they are written, digit by digit: reading them as
    /// numbers could hide a difference in the last bit.
    pub fn losses(&self, run: &str, kind: &str) -> Vec<(u64, String)> {
        let field = |row: &str, name: &str| {
            let (_, rest) = row.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("`{name}` in {row}"));
            rest.split([',', '}']).next().expect("split gives at least one part").to_owned()
        };
        let kind = format!("\"kind\":\"{kind}\"");
        let log = self.read(&format!("runs/{run}/metrics.jsonl"));
        let rows = log.lines().filter(|row| row.contains(&kind));
        rows.map(|row| (field(row, "step").parse().expect("a step"), field(row, "loss"))).collect()
    }

    /// The losses of the training steps, as numbers.
    pub fn loss_values(&self, run: &str) -> Vec<f64> {
        self.losses(run, "train").iter().map(|(_, loss)| loss.parse().expect("a loss")).collect()
    }

    /// A run's `summary.json`.
    pub fn summary(&self, run: &str) -> Value {
        serde_json::from_str(&self.read(&format!("runs/{run}/summary.json"))).expect("a summary is JSON")
    }

    /// Waits until something holds.
    pub fn wait_until(&self, what: &str, holds: impl FnMut() -> bool) {
        until(what, holds);
    }

    /// Waits until the log of a run that is being trained has this many rows.
    pub fn wait_for_rows(&self, run: &str, n: usize) {
        let log = self.path(&format!("runs/{run}/metrics.jsonl"));
        until(&format!("{n} rows in {}", log.display()), || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() >= n));
    }
}

/// Waits until something holds, for at most a minute.
///
/// # Panics
/// If it does not come to hold.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "no {what} after a minute");
        sleep(Duration::from_millis(2));
    }
}

/// Whether file permissions mean nothing to this process, as to root: then no file is unreadable to it.
pub fn is_root(lab: &Lab) -> bool {
    lab.write("secret", "x");
    close(&lab.path("secret"));
    fs::read(lab.path("secret")).is_ok()
}

#[cfg(unix)]
fn close(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o000)).expect("permissions of a file of ours");
}

#[cfg(not(unix))]
fn close(_: &Path) {}

/// The line of `text`, from 1, that contains `what`.
///
/// # Panics
/// If there is none.
pub fn line_of(text: &str, what: &str) -> usize {
    1 + text.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("`{what}` in the text"))
}

/// The binary under test: `KINDLING_BIN`, or the one that lies beside the tests.
fn binary() -> PathBuf {
    let path = env::var_os("KINDLING_BIN").map_or_else(
        || {
            // target/release/deps/this → target/release/kindling
            let this = env::current_exe().expect("a test knows its own path");
            let folder = this.parent().and_then(Path::parent).expect("tests lie in target/release/deps");
            folder.join(format!("kindling{}", env::consts::EXE_SUFFIX))
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "there is no binary at {}; run `cargo xtask test`, which builds it", path.display());
    path
}

fn expand(line: &str) -> String {
    if let Some(rest) = line.strip_prefix("TRAIN_ON ") {
        return format!("{TRAIN} {rest}");
    }
    line.strip_prefix("TRAIN").map_or_else(|| line.to_owned(), |rest| format!("{TRAIN} text.txt{rest}"))
}

fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_with(String::new).push(c),
        }
    }
    words.extend(word);
    words
}

/// Sentences of few words, always the same ones. Some letters take two bytes.
fn text(n_lines: usize) -> String {
    const WORDS: [&str; 16] =
        ["the", "a", "red", "old", "river", "stone", "house", "walks", "over", "under", "sleeps", "near", "small", "bird", "café", "naïve"];
    let mut state = 1u64;
    let mut word = || {
        // Knuth's MMIX generator; its high bits are good enough to pick words.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 60) as usize]
    };
    (0..n_lines).map(|_| format!("{}.\n", (0..9).map(|_| word()).collect::<Vec<_>>().join(" "))).collect()
}

fn walk(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, files);
        } else if entry.file_name() != "lock" {
            let bytes = fs::read(&path).expect("a file in the lab");
            files.insert(path, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_spaces_outside_of_quotes() {
        for (line, expected) in [("a b  c", vec!["a", "b", "c"]), ("a 'b c' d''e ''", vec!["a", "b c", "de", ""]), ("", vec![])] {
            assert_eq!(words(line), expected, "{line}");
        }
    }

    #[test]
    fn the_first_word_stands_for_a_command() {
        assert_eq!(expand("TRAIN --name x"), format!("{TRAIN} text.txt --name x"));
        assert_eq!(expand("TRAIN_ON x.txt --name x"), format!("{TRAIN} x.txt --name x"));
        assert_eq!(expand("train TRAIN"), "train TRAIN");
    }
}
