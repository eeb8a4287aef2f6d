//! Training and using a byte-level BPE, beside the tokenizers that users would pick instead.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use cargo_metadata::MetadataCommand;
use kindling_tokenizer::{BpeTrainer, PreTokenCounts, SplitPattern, Tokenizer};
use kindling_train::peak_memory_bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::machine::machine;
use crate::process::{measure, measure_self, median, number};

const PEERS: &str = include_str!("../peers/tokenizer.py");
/// What is measured, and which peers can do it, the fastest first: the speed of a shared machine changes within minutes, and the closest
/// race is to be run at once.
const WHAT: [(What, &[&str]); 3] = [
    (What::Train, &["rustbpe", "tokenizers"]),
    (What::Encode, &["fastokens", "tiktoken", "tokenizers"]),
    (What::Single, &["fastokens", "tiktoken", "tokenizers"]),
];
/// Characters a document, for encoding.
const DOCUMENT_CHARS: usize = 100_000;
/// Documents whose ids are compared with the peers'.
const COMPARED: usize = 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A text; by default 100 MB of Rust source from the packages that this workspace is built from
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens in all
    #[arg(long, default_value_t = 16_384)]
    vocab: usize,
    /// A Python with tokenizers, tiktoken, rustbpe and fastokens
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// Measurements of each, alternating
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum What {
    Train,
    Encode,
    Single,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Encode => "encode",
            Self::Single => "single",
        }
    }
}

/// One measurement, in this process alone.
#[derive(clap::Args)]
pub(crate) struct InProcess {
    what: What,
    text: PathBuf,
    /// Written when training, read when encoding
    tokenizer: PathBuf,
    #[arg(long)]
    vocab: usize,
}

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let report = report(args.text.as_deref(), args.vocab, args.peer.as_deref(), args.rounds, threads)?;
    if args.json {
        println!("{report:#}");
    } else {
        print!("{}\n\n{}", machine(threads), table(&report)?);
    }
    Ok(())
}

/// Measures everybody in turn.
pub(crate) fn report(text: Option<&Path>, vocab: usize, peer: Option<&Path>, rounds: usize, threads: usize) -> anyhow::Result<Value> {
    let folder = tempfile::tempdir().context("cannot make a folder for the measurements")?;
    let text = &text_or_rust_source(text, folder.path(), 1)?;
    let bytes = std::fs::read(text).with_context(|| format!("cannot read `{}`", text.display()))?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let script = folder.path().join("tokenizer.py");
    std::fs::write(&script, PEERS).context("cannot write the peers' script")?;
    let tokenizer = folder.path().join("tokenizer.json");
    let vocab_text = vocab.to_string();
    let mut measured: Vec<(What, &str, Vec<Value>)> = Vec::new();
    for (what, peers) in WHAT {
        measured.push((what, "kindling", Vec::new()));
        measured.extend(peers.iter().filter(|_| peer.is_some()).map(|name| (what, *name, Vec::new())));
    }
    for round in 1..=rounds.max(1) {
        for (what, by, values) in &mut measured {
            eprintln!("round {round} of {}: {by} {}", rounds.max(1), what.name());
            let path = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
            values.push(if *by == "kindling" {
                measure_self(threads, &["tokenize", what.name(), &path(text)?, &path(&tokenizer)?, "--vocab", &vocab_text])?
            } else {
                let (threads, python) = (threads.to_string(), peer.expect("there are measurements of peers only with one"));
                let args = [&path(&script)?, &path(text)?, *by, what.name(), "--vocab", &vocab_text, "--threads", &threads, "--tokenizer"];
                measure(python, args.iter().map(|arg| (*arg).to_owned()).chain([path(&tokenizer)?]).collect(), &[])?
            });
        }
    }
    let mb = bytes.len() as f64 / 1e6;
    let seconds_of = |what: What, by: &str| {
        measured.iter().find(|(w, b, _)| (*w, *b) == (what, by)).map(|(_, _, values)| median(values, "seconds")).transpose()
    };
    let mut rows = Vec::new();
    for (what, by, values) in &measured {
        let seconds = median(values, "seconds")?;
        let ours = seconds_of(*what, "kindling")?.context("Kindling is always measured")?;
        let our_ids = measured.iter().find(|(w, b, _)| (w, *b) == (what, "kindling")).map(|(_, _, values)| values[0]["ids"].clone());
        rows.push(json!({
            "what": what.name(), "by": by, "seconds": seconds, "mb_per_s": mb / seconds, "peak_rss_mib": median(values, "peak_rss_mib")?,
            "times": if *by == "kindling" { Value::Null } else { json!(seconds / ours) },
            "same_ids": if *what == What::Train { Value::Null } else { json!(Some(values[0]["ids"].clone()) == our_ids) },
            "all_seconds": values.iter().map(|value| number(value, "seconds")).collect::<anyhow::Result<Vec<_>>>()?,
        }));
    }
    Ok(json!({
        "bench": "tokenizer", "machine": machine(threads), "threads": threads, "rounds": rounds.max(1), "vocab_size": vocab,
        "text": { "bytes": bytes.len(), "sha256": sha256 }, "rows": rows,
    }))
}

/// One measurement of ours.
pub(crate) fn in_process(args: &InProcess) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.text).with_context(|| format!("cannot read `{}`", args.text.display()))?;
    let mut places = text.char_indices().step_by(DOCUMENT_CHARS).map(|(at, _)| at).chain([text.len()]);
    let mut start = places.next().unwrap_or(0);
    let mut docs = Vec::new();
    for end in places {
        docs.push(&text[start..end]);
        start = end;
    }
    let (seconds, ids) = match args.what {
        What::Train => {
            let begin = Instant::now();
            let mut counts = PreTokenCounts::new(SplitPattern::Gpt2);
            counts.add(&docs)?;
            let bpe = BpeTrainer::new(args.vocab).train_on(&counts)?;
            let seconds = begin.elapsed().as_secs_f64();
            Tokenizer::from(bpe).save(&args.tokenizer)?;
            (seconds, None)
        }
        What::Encode | What::Single => {
            let tokenizer = Tokenizer::load(&args.tokenizer)?;
            let begin = Instant::now();
            let encoded = match args.what {
                What::Single => docs.iter().map(|doc| tokenizer.encode(doc)).collect::<Result<Vec<_>, _>>()?,
                _ => tokenizer.encode_batch(&docs)?,
            };
            let seconds = begin.elapsed().as_secs_f64();
            let mut digest = Sha256::new();
            for id in encoded.iter().take(COMPARED).flatten() {
                digest.update(id.to_le_bytes());
            }
            (seconds, Some(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
        }
    };
    println!("{}", json!({ "seconds": seconds, "ids": ids, "peak_rss_mib": peak_memory_bytes().map(|bytes| bytes >> 20) }));
    Ok(())
}

/// A text that is given, or Rust source, so many times, in a folder.
pub(crate) fn text_or_rust_source(text: Option<&Path>, folder: &Path, n_times: usize) -> anyhow::Result<PathBuf> {
    if let Some(text) = text {
        return Ok(text.to_owned());
    }
    eprintln!("gathering Rust source");
    let (source, path) = (rust_source()?, folder.join("rust.txt"));
    let mut file = std::fs::File::create(&path).context("cannot write the text")?;
    (0..n_times).try_for_each(|_| file.write_all(&source)).context("cannot write the text")?;
    Ok(path)
}

/// Rust source of the packages that this workspace is built from, up to 100 MB: without what was generated, and each file once.
fn rust_source() -> anyhow::Result<Vec<u8>> {
    const MOST_BYTES: usize = 100_000_000;
    // Bindings that were generated, whatever they say of themselves.
    const GENERATED: [&str; 12] =
        ["windows", "winapi", "web-sys", "js-sys", "libc", "ash", "objc2", "cudarc", "tracel-llvm", "linux-raw-sys", "vk-", "-sys"];
    let ask = |options: &[&str]| {
        MetadataCommand::new().other_options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>()).exec()
    };
    // Packages of other platforms may not be on this machine yet; then cargo fetches them.
    let metadata = ask(&["--locked", "--offline"]).or_else(|_| ask(&["--locked"]));
    let metadata = metadata.context("cannot ask cargo for the packages; run inside of the workspace, or pass --text FILE")?;
    let mut roots: Vec<_> = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_some() && !GENERATED.iter().any(|name| package.name.contains(name)))
        .filter_map(|package| package.manifest_path.parent().map(|root| (package.name.to_string(), package.version.clone(), root)))
        .collect();
    roots.sort();
    let (mut text, mut seen) = (Vec::new(), HashSet::new());
    for (.., root) in roots {
        let mut files = Vec::new();
        find_sources(root.as_std_path(), &mut files)?;
        files.sort();
        for file in files {
            let source = std::fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
            let head = String::from_utf8_lossy(&source[..source.len().min(2000)]).into_owned();
            let generated = head.contains("@generated") || head.contains("automatically generated") || source.len() > 1_000_000;
            let fits = text.len() + source.len() <= MOST_BYTES;
            if !generated && fits && std::str::from_utf8(&source).is_ok() && seen.insert(Sha256::digest(&source)) {
                text.extend_from_slice(&source);
            }
        }
    }
    ensure!(!text.is_empty(), "no package of this workspace is on this machine: build it first, or pass --text FILE");
    Ok(text)
}

fn find_sources(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.to_string_lossy().contains("bindings") {
            files.push(path);
        }
    }
    Ok(())
}

/// A table in Markdown.
pub(crate) fn table(report: &Value) -> anyhow::Result<String> {
    let mut out = String::from("| what   | by         | seconds |   MB/s | peak MiB | same ids | Kindling is    |\n");
    out.push_str("|--------|------------|--------:|-------:|---------:|----------|---------------:|\n");
    for row in report["rows"].as_array().context("a report has rows")? {
        let [what, by] = ["what", "by"].map(|key| row[key].as_str().unwrap_or_default());
        let times = row["times"].as_f64().map(|times| format!("{times:.2} × as fast")).unwrap_or_default();
        let same = row["same_ids"].as_bool().map_or("", |same| if same { "yes" } else { "no" });
        out.push_str(&format!(
            "| {what:6} | {by:10} | {:7.3} | {:6.1} | {:8.0} | {same:8} | {times:>14} |\n",
            number(row, "seconds")?,
            number(row, "mb_per_s")?,
            number(row, "peak_rss_mib")?
        ));
    }
    out.push_str(&format!(
        "\nThe text has {} bytes and the SHA-256 `{}`.\n",
        report["text"]["bytes"],
        report["text"]["sha256"].as_str().unwrap_or_default()
    ));
    Ok(out)
}
