//! `kindling eval`: the scores of a text.

use std::process::ExitCode;

use kindling_data::read_document;
use kindling_eval::{Score, score_text};
use kindling_infer::open;
use kindling_runs::Registry;
use serde_json::json;

use crate::adapters::{side_by_side, title};
use crate::args::{Args, EvalArgs};
use crate::progress::{Progress, line};
use crate::{device, output};

pub(crate) fn run(args: &Args, eval_args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let text = read_document(&eval_args.text, eval_args.lossy)?;
    let registry = Registry::new(&args.runs_dir);
    let opened = open(&registry.resolve(&eval_args.run)?, &device::open(&args.device)?)?;
    for message in &opened.rejected {
        line(args.quiet, &format!("warning: {message}; using another checkpoint"));
    }
    let mut progress = Progress::new(args.quiet);
    let mut scores = Vec::new();
    for (adapter, model) in side_by_side(&registry, &opened, &eval_args.adapter)? {
        let score = score_text(&model, &opened.tokenizer, &text, &mut |done, total| progress.scoring(done, total))?;
        scores.push((adapter, score));
    }
    if args.json {
        let as_json = |(adapter, score): &(Option<&str>, Score)| {
            let nll = score.nll;
            let mut one = json!({
                "run": opened.run.name(), "step": opened.step, "text": eval_args.text, "loss": nll.loss(),
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
                format!(
                    "{}, {} bytes, {} tokens predicted",
                    eval_args.text.display(),
                    output::count(text.len() as u64),
                    output::count(nll.tokens)
                ),
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
