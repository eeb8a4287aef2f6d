//! `kindling prepare`: a corpus to token shards, and what is in them.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use kindling_data::{Preparation, prepare};
use serde_json::json;

use crate::args::{Args, CorpusArgs};
use crate::progress::{Progress, left_out};
use crate::{corpus, interrupt, output};

pub(crate) fn run(args: &Args, corpus_args: &CorpusArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let config = corpus::config(corpus_args, [])?;
    let mut progress = Progress::new(args.quiet);
    let stop = interrupt::listen(args.quiet)?;
    let preparation = Preparation { config: &config, data_dir: &corpus_args.data_dir, workspace: Path::new("."), stop: &stop };
    let data = prepare(&preparation, &mut |event| progress.prepare(event))?;
    progress.clear();
    let seconds = start.elapsed().as_secs_f64();
    let manifest = &data.manifest;
    if args.json {
        output::json(&json!({ "dir": data.dir, "reused": data.reused, "seconds": seconds, "manifest": manifest }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let stats = &manifest.corpus;
    let mut left_out = left_out(stats, &manifest.cleaning);
    if left_out.is_empty() {
        left_out.push("nothing".into());
    }
    let n_tokens = manifest.training.n_tokens + manifest.validation.n_tokens;
    let split = |split: &kindling_data::SplitManifest| {
        let [documents, bytes, tokens] = [split.n_documents as u64, split.n_bytes, split.n_tokens].map(output::count);
        format!("{documents} documents, {bytes} bytes, {tokens} tokens")
    };
    let mut rows = vec![
        ("folder", format!("{}{}", data.dir.display(), if data.reused { " (it was there, and is as it was)" } else { "" })),
        (
            "corpus",
            format!("{} documents, {} bytes, hash {}", output::count(stats.n_documents as u64), output::count(stats.n_bytes), stats.hash),
        ),
    ];
    rows.extend(left_out.into_iter().enumerate().map(|(i, text)| (if i == 0 { "left out" } else { "" }, text)));
    rows.extend([
        ("vocabulary", format!("{} tokens ({})", output::count(manifest.vocab_size as u64), manifest.tokenizer_kind)),
        ("training", split(&manifest.training)),
    ]);
    let weights: f64 = manifest.training.sources.iter().map(|source| source.weight).sum();
    rows.extend(manifest.training.sources.iter().map(|source| {
        let share = 100.0 * source.weight / weights;
        ("", format!("{}: {} tokens, {share:.1} % of the windows", source.name, output::count(source.n_tokens)))
    }));
    rows.extend([
        ("validation", split(&manifest.validation)),
        ("bytes a token", format!("{:.3}", stats.n_bytes as f64 / n_tokens.max(1) as f64)),
        ("time", format!("{seconds:.1} s, {:.1} MB/s", stats.n_bytes as f64 / 1e6 / seconds)),
    ]);
    output::pairs(&rows)?;
    Ok(ExitCode::SUCCESS)
}
