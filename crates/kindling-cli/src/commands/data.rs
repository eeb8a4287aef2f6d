//! `kindling data audit`: what is doubtful about a corpus.

use std::path::Path;
use std::process::ExitCode;

use kindling_data::{Audit, AuditOptions, Repeats, audit};

use crate::args::{Args, AuditArgs};
use crate::output::count;
use crate::progress::{Progress, left_out};
use crate::{corpus, interrupt, output};

pub(crate) fn run(args: &Args, audit_args: &AuditArgs) -> anyhow::Result<ExitCode> {
    let config = corpus::config(&audit_args.corpus, [])?;
    let mut progress = Progress::new(args.quiet);
    let stop = interrupt::listen(args.quiet)?;
    let options = AuditOptions { ngram: audit_args.ngram.into(), near_similarity: audit_args.similarity, n_examples: audit_args.show };
    let found = audit(&config.data, Path::new("."), options, &stop, &mut |done, total| progress.reading(done, total))?;
    progress.clear();
    if args.json {
        output::json(&found)?;
    } else {
        output::text(&told(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn told(audit: &Audit) -> String {
    let corpus = &audit.corpus;
    let n_documents = count(corpus.n_documents as u64);
    let mut lines = vec![format!("corpus     {n_documents} documents, {} bytes, hash {}", count(corpus.n_bytes), corpus.hash)];
    lines.extend(left_out(corpus, &audit.cleaning).into_iter().map(|text| format!("           {text}")));
    for (name, what, repeats) in [("exact", "repeat an earlier one", &audit.exact), ("near", "nearly repeat an earlier one", &audit.near)] {
        lines.push(format!("{name:10} {} documents {what}{}", count(repeats.n_documents as u64), how_much(repeats, corpus.n_bytes)));
        lines.extend(repeats.examples.iter().map(|(document, first)| format!("             {document} repeats {first}")));
    }
    if audit.personal.is_empty() {
        lines.push("personal   no e-mail addresses, telephone numbers, IP addresses or keys".into());
    }
    for personal in &audit.personal {
        let n_documents = count(personal.n_documents as u64);
        lines.push(format!("personal   {} of kind `{}` in {n_documents} documents", count(personal.n_found), personal.kind));
        lines.extend(personal.examples.iter().map(|(document, byte, text)| format!("             {document}, byte {byte}: {text}")));
    }
    let overlap = &audit.overlap;
    lines.push(format!(
        "overlap    {} of {} validation documents share a passage of {} words with the training text; {} of {} passages",
        count(overlap.n_contaminated as u64),
        count(overlap.n_documents as u64),
        overlap.ngram,
        count(overlap.n_shared as u64),
        count(overlap.n_passages as u64)
    ));
    for (held_out, training, text) in &overlap.examples {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        lines.push(format!("             {held_out} and {training}: {text}"));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn how_much(repeats: &Repeats, n_bytes: u64) -> String {
    if repeats.n_documents == 0 {
        return String::new();
    }
    let share = 100.0 * repeats.n_bytes as f64 / n_bytes.max(1) as f64;
    let across = count(repeats.across_the_split as u64);
    format!(", {} bytes ({share:.1} %), {across} of them across the split", count(repeats.n_bytes))
}
