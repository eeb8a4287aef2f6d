//! `kindling prepare`: a corpus to token shards, and what is in them.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use kindling_data::prepare;
use serde_json::json;

use crate::args::{Args, CorpusArgs};
use crate::progress::Progress;
use crate::{corpus, output};

pub(crate) fn run(args: &Args, corpus_args: &CorpusArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let config = corpus::config(corpus_args, [])?;
    let mut progress = Progress::new(args.quiet);
    let data = prepare(&config, &corpus_args.data_dir, Path::new("."), &mut |event| progress.prepare(event))?;
    progress.clear();
    let seconds = start.elapsed().as_secs_f64();
    let manifest = &data.manifest;
    if args.json {
        output::json(&json!({ "dir": data.dir, "reused": data.reused, "seconds": seconds, "manifest": manifest }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let stats = &manifest.corpus;
    let mut dropped: Vec<String> = [
        (stats.identical_dropped, "identical files"),
        (stats.binary_skipped, "binary files"),
        (stats.empty_skipped, "empty files or rows"),
        (stats.bad_rows_skipped, "rows that cannot be read"),
    ]
    .into_iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, what)| format!("{} {what}", output::count(n as u64)))
    .collect();
    if dropped.is_empty() {
        dropped.push("nothing".into());
    }
    let n_tokens = manifest.training.n_tokens + manifest.validation.n_tokens;
    let split = |split: &kindling_data::SplitManifest| {
        let [documents, bytes, tokens] = [split.n_documents as u64, split.n_bytes, split.n_tokens].map(output::count);
        format!("{documents} documents, {bytes} bytes, {tokens} tokens")
    };
    output::pairs(&[
        ("folder", format!("{}{}", data.dir.display(), if data.reused { " (it was there, and is as it was)" } else { "" })),
        (
            "corpus",
            format!("{} documents, {} bytes, hash {}", output::count(stats.n_documents as u64), output::count(stats.n_bytes), stats.hash),
        ),
        ("left out", dropped.join(", ")),
        ("vocabulary", format!("{} tokens ({})", output::count(manifest.vocab_size as u64), manifest.tokenizer_kind)),
        ("training", split(&manifest.training)),
        ("validation", split(&manifest.validation)),
        ("bytes a token", format!("{:.3}", stats.n_bytes as f64 / n_tokens.max(1) as f64)),
        ("time", format!("{seconds:.1} s, {:.1} MB/s", stats.n_bytes as f64 / 1e6 / seconds)),
    ])?;
    Ok(ExitCode::SUCCESS)
}
