//! `kindling eval`: the scores of a text, or of a task.

use std::path::Path;
use std::process::ExitCode;

use kindling_data::read_document;
use kindling_eval::{Score, score_text};
use kindling_infer::{Opened, open};
use kindling_runs::Registry;
use serde_json::json;

use super::task;
use crate::adapters::{side_by_side, title};
use crate::args::{Args, EvalArgs};
use crate::failure::Advice;
use crate::progress::{Progress, line};
use crate::{device, output};

pub(crate) fn run(args: &Args, eval_args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    // Before anything is computed.
    let text = eval_args.text.as_ref().map(|path| read_document(path, eval_args.lossy)).transpose()?;
    let opened = open(&registry.resolve(&eval_args.run)?, &device::open(&args.device)?)?;
    for message in &opened.rejected {
        line(args.quiet, &format!("warning: {message}; using another checkpoint"));
    }
    match (text, &eval_args.text) {
        (Some(text), Some(path)) => score(args, eval_args, &registry, &opened, (&text, path)),
        _ => test(args, eval_args, &registry, &opened),
    }
}

/// Tests a run on a task.
fn test(args: &Args, eval_args: &EvalArgs, registry: &Registry, opened: &Opened) -> anyhow::Result<ExitCode> {
    let (task, data) = task::of_run(opened, eval_args.task.as_deref(), eval_args.lossy, eval_args.skip_bad)?;
    let mut progress = Progress::new(args.quiet);
    let mut all = Vec::new();
    for (adapter, model) in side_by_side(registry, opened, &eval_args.adapter)? {
        let report = task::test(args, &opened.run, (&model, opened), (&task, &data), eval_args.batch_size, &mut progress)?;
        if args.json {
            let mut one = task::as_json(&opened.run, &report);
            if !eval_args.adapter.is_empty() {
                one["adapter"] = json!(adapter);
            }
            all.push(one);
        } else {
            if !eval_args.adapter.is_empty() {
                output::text(&format!("== {} ==\n", title(adapter)))?;
            }
            task::print(&opened.run, &report)?;
        }
    }
    match all.as_slice() {
        _ if !args.json => {}
        [one] => output::json(one)?,
        all => output::json(&all)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Scores a text.
fn score(args: &Args, eval_args: &EvalArgs, registry: &Registry, opened: &Opened, (text, path): (&str, &Path)) -> anyhow::Result<ExitCode> {
    if opened.model.config().n_classes > 0 {
        return Err(Advice {
            message: format!("run `{}` has a classification head, and predicts no text", opened.run.name()),
            hint: "leave out `--text`, to test it on its task".into(),
        }
        .into());
    }
    let mut progress = Progress::new(args.quiet);
    let mut scores = Vec::new();
    for (adapter, model) in side_by_side(registry, opened, &eval_args.adapter)? {
        let score = score_text(&model, &opened.tokenizer, text, &mut |done, total| progress.scoring(done, total))?;
        scores.push((adapter, score));
    }
    if args.json {
        let as_json = |(adapter, score): &(Option<&str>, Score)| {
            let nll = score.nll;
            let mut one = json!({
                "run": opened.run.name(), "step": opened.step, "text": path, "loss": nll.loss(),
                "standard_error": score.standard_error, "perplexity": nll.perplexity(), "bits_per_byte": nll.bits_per_byte(),
                "accuracy": nll.accuracy(), "n_targets": nll.tokens, "n_bytes": nll.bytes
            });
            if scores.len() > 1 {
                one["adapter"] = json!(adapter);
            }
            one
        };
        match scores.as_slice() {
            [one] => output::json(&as_json(one))?,
            all => output::json(&all.iter().map(as_json).collect::<Vec<_>>())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    for (i, (adapter, Score { nll, .. })) in scores.iter().enumerate() {
        if i > 0 {
            output::text("\n")?;
        }
        let mut rows = vec![
            ("run", format!("{} (checkpoint of step {})", opened.run.name(), opened.step)),
            (
                "text",
                format!("{}, {} bytes, {} tokens predicted", path.display(), output::count(text.len() as u64), output::count(nll.tokens)),
            ),
        ];
        if scores.len() > 1 {
            rows.insert(1, ("adapter", title(*adapter).to_owned()));
        }
        rows.extend(output::score_rows(nll));
        output::pairs(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}
