//! `kindling eval`: the scores of a text.

use std::process::ExitCode;

use kindling_data::read_document;
use kindling_eval::score_text;
use kindling_infer::open;
use kindling_runs::Registry;
use serde_json::json;

use crate::args::{Args, EvalArgs};
use crate::progress::{Progress, line};
use crate::{device, output};

pub(crate) fn run(args: &Args, eval_args: &EvalArgs) -> anyhow::Result<ExitCode> {
    let text = read_document(&eval_args.text, eval_args.lossy)?;
    let dir = Registry::new(&args.runs_dir).resolve(&eval_args.run)?;
    let opened = open(&dir, &device::open(&args.device)?)?;
    for message in &opened.rejected {
        line(args.quiet, &format!("warning: {message}; using another checkpoint"));
    }
    let mut progress = Progress::new(args.quiet);
    let score = score_text(&opened.model, &opened.tokenizer, &text, &mut |done, total| progress.scoring(done, total))?;
    let nll = score.nll;
    if args.json {
        output::json(&json!({
            "run": opened.run.name(), "step": opened.step, "text": eval_args.text, "loss": nll.loss(), "standard_error": score.standard_error, "perplexity": nll.perplexity(),
            "bits_per_byte": nll.bits_per_byte(), "accuracy": nll.accuracy(), "n_targets": nll.tokens, "n_bytes": nll.bytes
        }))?;
    } else {
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
        rows.extend(output::score_rows(&nll));
        output::pairs(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}
