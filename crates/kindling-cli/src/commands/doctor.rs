//! `kindling doctor`: whether training on this data is honest arithmetic. Makes no run.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use kindling_data::{Preparation, prepare};
use kindling_train::doctor::{Check, GptSubject, examine};
use kindling_train::fit_vocabulary;
use serde_json::json;

use crate::args::{Args, CorpusArgs};
use crate::failure::{Advice, STOPPED};
use crate::progress::{Progress, line};
use crate::{corpus, device, interrupt, output};

pub(crate) fn run(args: &Args, corpus_args: &CorpusArgs) -> anyhow::Result<ExitCode> {
    let device = device::open(&args.device)?;
    let mut config = corpus::config(corpus_args, [])?;
    let mut progress = Progress::new(args.quiet);
    let stop = interrupt::listen(args.quiet)?;
    let preparation = Preparation { config: &config, data_dir: &corpus_args.data_dir, workspace: Path::new("."), stop: &stop };
    let data = prepare(&preparation, &mut |event| progress.prepare(event))?;
    progress.clear();
    progress.shards(&data.manifest, &data.dir, data.reused);
    fit_vocabulary(&mut config, data.tokenizer.vocab_size())?;
    let mut subject = GptSubject::new(&config, &data, &device)?;
    let checks = examine(&mut subject, &stop, &mut |name| line(args.quiet, &format!("checking {name}")));
    if stop.load(Ordering::Relaxed) {
        return Ok(ExitCode::from(STOPPED));
    }
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed).map(|check| format!("`{}`", check.name)).collect();
    if args.json {
        output::json(&json!({ "passed": failed.is_empty(), "changed": subject.changed(), "checks": checks }))?;
    } else {
        if !subject.changed().is_empty() {
            output::text(&format!("checked with {}\n", subject.changed().join(", ")))?;
        }
        output::table(&["check", "", "measured", "bound", "", ""], &checks.iter().map(row).collect::<Vec<_>>())?;
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Advice {
        message: format!("{} of {} checks failed: {}", failed.len(), checks.len(), failed.join(", ")),
        hint: "what this model would learn cannot be trusted; the table says what was measured, and `kindling devices --check` whether the device computes right".into(),
    }
    .into())
}

fn row(check: &Check) -> Vec<String> {
    let number = |n: f64| if n.fract() == 0.0 { n.to_string() } else { format!("{n:.1e}") };
    let verdict = if check.passed { "passed" } else { "FAILED" };
    let texts = [check.name, verdict, &number(check.measured), &number(check.bound), check.claim, &check.figure];
    texts.map(str::to_owned).to_vec()
}
