//! `kindling apply`: a run does its task on rows of the user's: one, a file of them, or standard input.

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;

use kindling_config::{ExamplesConfig, TaskConfig};
use kindling_data::{PlainRow, Templates, has_rows, read_document, read_plain_rows};
use kindling_eval::{Answer, Predictor, asked};
use kindling_runs::Registry;
use serde_json::{Map, Value, json};

use super::task;
use crate::args::{ApplyArgs, Args};
use crate::failure::Advice;
use crate::opened::open_run;
use crate::output;
use crate::progress::{Progress, line};

pub(crate) fn run(args: &Args, apply: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    let opened = open_run(args, &registry, &apply.run)?;
    let (task, data) = task::of_run(&opened, apply.task.as_deref(), apply.lossy, apply.skip_bad)?;
    let examples = data.examples.clone().unwrap_or_default();
    let columns = if apply.columns.is_empty() { &data.columns } else { &apply.columns };
    let (rows, mut n_bad) = rows(apply, &task, &examples, columns)?;
    let templates = Templates::new(&examples)?;
    let (mut questions, mut places) = (Vec::new(), Vec::new());
    for PlainRow { place, fields } in rows {
        match templates.prompt(&fields).and_then(|prompt| asked(&task, &opened.tokenizer, &prompt, &fields, None)) {
            Ok(question) => {
                questions.push(question);
                places.push(place);
            }
            Err(_) if apply.skip_bad => n_bad += 1,
            Err(message) => {
                let hint = "give every field that the task's prompt has, in characters that the run's vocabulary knows, or pass `--skip-bad` to leave such rows out".into();
                return Err(Advice { message: format!("{place}: {message}"), hint }.into());
            }
        }
    }
    let mut progress = Progress::new(args.quiet);
    let predictor = Predictor { model: &opened.model, tokenizer: &opened.tokenizer, task: &task, batch_size: apply.batch_size };
    let answers = predictor.answer(&questions, &mut |done, total| progress.answering(done, total))?;
    progress.clear();
    let n_truncated = answers.iter().filter(|answer| answer.is_truncated).count();
    if n_truncated > 0 {
        line(args.quiet, &format!("warning: {n_truncated} prompts that did not fit the context lost their beginning"));
    }
    if n_bad > 0 {
        line(args.quiet, &format!("warning: {n_bad} rows left out because they are bad"));
    }
    for ((answer, question), place) in answers.iter().zip(&questions).zip(&places) {
        let names = if question.choices.is_empty() { &task.labels } else { &question.choices };
        if args.json {
            let probabilities: Map<String, Value> =
                names.iter().zip(&answer.probabilities).map(|(name, p)| (name.trim().to_owned(), json!(p))).collect();
            let mut one = json!({ "place": place, "answer": answer.text.trim(), "log_likelihood": answer.log_likelihood });
            if !probabilities.is_empty() {
                one["probabilities"] = Value::Object(probabilities);
            }
            // A line each, so that many can be piped on.
            output::text(&format!("{}\n", serde_json::to_string(&one)?))?;
        } else {
            output::text(&format!("{}\n", told(answer, names)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An answer on one line, with probabilities where there are some, the largest first.
fn told(answer: &Answer, names: &[String]) -> String {
    let text = answer.text.trim().replace('\n', " ");
    if answer.probabilities.is_empty() {
        return text;
    }
    let mut parts: Vec<(&String, f64)> = names.iter().zip(answer.probabilities.iter().copied()).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let parts: Vec<String> = parts.iter().map(|(name, p)| format!("{} {p:.4}", name.trim())).collect();
    format!("{text}\t{}", parts.join(", "))
}

/// The rows that are asked, and how many were left out because they are bad: the text of the command line, those of a file, or lines of
/// standard input.
fn rows(apply: &ApplyArgs, task: &TaskConfig, examples: &ExamplesConfig, columns: &[String]) -> anyhow::Result<(Vec<PlainRow>, usize)> {
    let fields = Templates::new(examples)?.prompt_fields();
    let of_line = |place: String, text: &str| -> anyhow::Result<PlainRow> {
        if let Ok(Value::Object(row)) = serde_json::from_str(text) {
            return Ok(PlainRow { place, fields: row });
        }
        match fields.as_slice() {
            [field] => Ok(PlainRow { place, fields: Map::from_iter([(field.clone(), Value::from(text))]) }),
            fields => {
                let example: Map<String, Value> = fields.iter().map(|field| (field.clone(), Value::from("…"))).collect();
                let names = fields.join("`, `");
                Err(Advice {
                    message: format!("{place}: the task `{}` asks with the fields `{names}`, and this is one text", task.name),
                    hint: format!("pass a row of JSON, such as '{}'", Value::Object(example)),
                }
                .into())
            }
        }
    };
    if let Some(text) = &apply.text {
        return Ok((vec![of_line("the text".into(), text)?], 0));
    }
    if let Some(file) = &apply.file {
        if has_rows(file) {
            return Ok(read_plain_rows(file, columns, apply.lossy, apply.skip_bad)?);
        }
        let text = read_document(file, apply.lossy)?;
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let rows = lines.map(|(i, text)| of_line(format!("{}, line {}", file.display(), i + 1), text)).collect::<Result<_, _>>()?;
        return Ok((rows, 0));
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        line(false, "one row a line; end with Ctrl-D");
    }
    let mut rows = Vec::new();
    for (i, text) in stdin.lock().lines().enumerate() {
        let text = text.map_err(|error| Advice {
            message: format!("line {} of standard input cannot be read: {error}", i + 1),
            hint: "pass text in UTF-8".into(),
        })?;
        if !text.trim().is_empty() {
            rows.push(of_line(format!("line {} of standard input", i + 1), text.trim_end_matches('\r').trim_start_matches('\u{feff}'))?);
        }
    }
    Ok((rows, 0))
}
