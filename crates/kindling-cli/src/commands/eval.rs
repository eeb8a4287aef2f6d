//! `kindling eval`: the scores of a text, or of a task.

use std::path::Path;
use std::process::ExitCode;

use kindling_data::read_document;
use kindling_eval::{Score, score_text};
use kindling_infer::Opened;
use kindling_kernels::WeightFormat;
use kindling_runs::Registry;
use serde_json::json;

use super::task;
use crate::adapters::{side_by_side, title};
use crate::args::{Args, EvalArgs};
use crate::failure::Advice;
use crate::opened::open_run;
use crate::output;
use crate::progress::Progress;

pub(crate) fn run(args: &Args, eval_args: &EvalArgs) -> anyhow::Result<ExitCode> {
    if eval_args.runs.len() > 1 && !eval_args.adapter.is_empty() {
        return Err(Advice {
            message: "several runs with `--adapter`".into(),
            hint: "pass one run with its adapters, or the runs of the adapters without `--adapter`".into(),
        }
        .into());
    }
    let registry = Registry::new(&args.runs_dir);
    // Before anything is computed.
    let text = eval_args.text.as_ref().map(|path| read_document(path, eval_args.lossy)).transpose()?;
    let runs = eval_args.runs.iter().map(|name| open_run(args, &registry, name)).collect::<anyhow::Result<Vec<_>>>()?;
    match (text, &eval_args.text) {
        (Some(text), Some(path)) => score(args, eval_args, &registry, &runs, (&text, path)),
        _ => test(args, eval_args, &registry, &runs),
    }
}

/// Tests runs on a task.
fn test(args: &Args, eval_args: &EvalArgs, registry: &Registry, runs: &[Opened]) -> anyhow::Result<ExitCode> {
    let task_of = |opened| task::of_run(opened, eval_args.task.as_deref(), eval_args.lossy, eval_args.skip_bad);
    let mut progress = Progress::new(args.quiet);
    if let ([opened], true) = (runs, eval_args.adapter.is_empty()) {
        let (task, data) = task_of(opened)?;
        let (report, test) = task::test(args, opened, (&task, &data), eval_args.batch_size, &mut progress)?;
        if eval_args.task.is_some() {
            task::warn_of_trained(args, opened, &test);
        }
        if args.json {
            output::json(&task::as_json(&opened.run, &report))?
        } else {
            task::print(&opened.run, &report)?
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (mut tested, mut reports) = (Vec::new(), Vec::new());
    // The rows that the first was trained on.
    let mut first = None;
    for opened in runs {
        let (task, data) = task_of(opened)?;
        for (adapter, model) in side_by_side(registry, opened, &eval_args.adapter)? {
            let name = if eval_args.adapter.is_empty() { opened.run.name() } else { title(adapter) };
            let one = task::ask(name, (&model, &opened.tokenizer), (&task, &data), eval_args.batch_size, &mut progress)?;
            if eval_args.adapter.is_empty() {
                let training = task::training_rows(args, &data, &one.test);
                task::keep(args, &opened.run, &one.test.report(&task, &one.answers, &training));
                reports.push(opened.run.task_report_path(&task.name));
                first.get_or_insert(training);
            } else if first.is_none() {
                first = Some(task::training_rows(args, &data, &one.test));
            }
            tested.push(one);
        }
        if let (Some(one), true) = (tested.last(), eval_args.task.is_some()) {
            task::warn_of_trained(args, opened, &one.test);
        }
    }
    let found = kindling_eval::side_by_side(&tested, &first.unwrap_or_default())?;
    if args.json {
        output::json(&found)?;
    } else {
        task::print_side_by_side(&found, &reports)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How a model scores a text.
struct TextScore<'a> {
    opened: &'a Opened,
    adapter: Option<&'a str>,
    /// How its weights were kept; as they are where nothing is said.
    weights: Option<WeightFormat>,
    score: Score,
}

/// Scores a text by each run.
fn score(args: &Args, eval_args: &EvalArgs, registry: &Registry, runs: &[Opened], (text, path): (&str, &Path)) -> anyhow::Result<ExitCode> {
    if let Some(opened) = runs.iter().find(|opened| opened.model.config().n_classes > 0) {
        return Err(Advice {
            message: format!("run `{}` has a classification head, and predicts no text", opened.run.name()),
            hint: "leave out `--text`, to test it on its task".into(),
        }
        .into());
    }
    let mut progress = Progress::new(args.quiet);
    let mut scores = Vec::new();
    for opened in runs {
        for (adapter, model) in side_by_side(registry, opened, &eval_args.adapter)? {
            let formats = std::iter::once(None).chain(eval_args.weights.iter().copied().map(Some));
            for weights in formats {
                let model = weights.map_or_else(|| model.clone(), |format| model.packed(format));
                let score = score_text(&model, &opened.tokenizer, text, &mut |done, total| progress.scoring(done, total))?;
                scores.push(TextScore { opened, adapter, weights, score });
            }
        }
    }
    if args.json {
        let as_json = |TextScore { opened, adapter, weights, score }: &TextScore<'_>| {
            let nll = score.nll;
            let mut one = json!({
                "run": opened.run.name(), "step": opened.step, "text": path, "loss": nll.loss(),
                "standard_error": score.standard_error, "perplexity": nll.perplexity(), "bits_per_byte": nll.bits_per_byte(),
                "bits_per_character": nll.bits_per_character(), "accuracy": nll.accuracy(), "top_5_accuracy": nll.top_k_accuracy(),
                "n_targets": nll.tokens, "n_bytes": nll.bytes, "n_characters": nll.characters
            });
            if !eval_args.adapter.is_empty() {
                one["adapter"] = json!(adapter);
            }
            if !eval_args.weights.is_empty() {
                one["weights"] = json!(weights.unwrap_or_default().to_string());
            }
            one
        };
        match scores.as_slice() {
            [one] => output::json(&as_json(one))?,
            all => output::json(&all.iter().map(as_json).collect::<Vec<_>>())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    for (i, TextScore { opened, adapter, weights, score: Score { nll, .. } }) in scores.iter().enumerate() {
        if let Some(format) = weights {
            // Behind the same weights as they are.
            let before = scores[..i].iter().rfind(|score| score.weights.is_none()).and_then(|score| score.score.nll.bits_per_byte());
            let price = nll.bits_per_byte().zip(before).map_or_else(String::new, |(now, before)| format!(", {:+.5}", now - before));
            let told = format!("{} bits a byte{price}; loss {:.5}", output::bits_per_byte(nll.bits_per_byte()), nll.loss());
            output::pairs(&[(&format!("as {format}"), told)])?;
            continue;
        }
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
        if !eval_args.adapter.is_empty() {
            rows.insert(1, ("adapter", title(*adapter).to_owned()));
        }
        rows.extend(output::score_rows(nll));
        output::pairs(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}
