//! What commands share that know a task: reading its file, testing a run with it, printing and keeping what came of it.

use std::path::Path;

use kindling_config::{DataConfig, TaskConfig};
use kindling_data::{RowsOf, TestRows, read_rows};
use kindling_eval::{Course, Predictor, SystemScores, TaskReport, evaluate, number, page};
use kindling_infer::Opened;
use kindling_model::Gpt;
use kindling_runs::Run;
use kindling_train::judge;
use serde_json::json;

use crate::args::Args;
use crate::failure::Advice;
use crate::output;
use crate::progress::{Progress, line};

/// Rows that are computed at once, where nobody says how many.
pub(super) const BATCH_SIZE: usize = 32;
/// Rows that are shown of those that were answered worst.
const N_WORST: usize = 3;
/// Characters of a text that are shown.
const SHOWN: usize = 100;

/// Reads the file of a task.
pub(crate) fn load(path: &Path) -> anyhow::Result<TaskConfig> {
    let text = std::fs::read_to_string(path).map_err(|error| Advice {
        message: format!("cannot read the task `{}`: {error}", path.display()),
        hint: "pass the path of a task's file; `tasks/` of the repository has some, and `docs/guide.md` says how to write one".into(),
    })?;
    let dir = std::path::absolute(path)?.parent().map(Path::to_owned).unwrap_or_default();
    Ok(TaskConfig::from_toml(&text, &path.display().to_string(), &dir)?)
}

/// The task that a run is used for: that of a file, or its own, with where its rows are.
pub(super) fn of_run(opened: &Opened, file: Option<&Path>, lossy: bool, skip_bad: bool) -> anyhow::Result<(TaskConfig, DataConfig)> {
    let config = opened.run.config();
    let task = match (file, &config.task) {
        (Some(file), _) => load(file)?,
        (None, Some(task)) => task.clone(),
        (None, None) => {
            return Err(Advice {
                message: format!("run `{}` was not trained for a task", opened.run.name()),
                hint: "pass `--task TASK.toml`".into(),
            }
            .into());
        }
    };
    let has_head = config.model.n_classes > 0;
    if let Some(own) = config.task.as_ref().filter(|own| has_head && own.labels != task.labels) {
        return Err(Advice {
            message: format!(
                "the head of run `{}` has the labels {:?}, and the task `{}` {:?}",
                opened.run.name(),
                own.labels,
                task.name,
                task.labels
            ),
            hint: "use a run that was trained on this task, or without `--head`".into(),
        }
        .into());
    }
    let data = task.data_config(has_head, lossy, skip_bad);
    Ok((task, data))
}

/// Tests the model of a run, keeps what came of it in the run's folder, and says where.
pub(super) fn test(
    args: &Args,
    run: &Run,
    (model, opened): (&Gpt, &Opened),
    (task, data): (&TaskConfig, &DataConfig),
    batch_size: usize,
    progress: &mut Progress,
) -> anyhow::Result<TaskReport> {
    let spool = std::env::temp_dir();
    let rows = read_rows(data, RowsOf::Test, &spool)?;
    // What only baselines and the overlap need may be gone.
    let training = if data.paths.is_empty() { Ok(TestRows::default()) } else { read_rows(data, RowsOf::Training, &spool) };
    let training = training.unwrap_or_else(|error| {
        line(args.quiet, &format!("warning: no baselines, for the training rows cannot be read: {error}"));
        TestRows::default()
    });
    let predictor = Predictor { model, tokenizer: &opened.tokenizer, task, batch_size };
    let report = evaluate(&predictor, rows, &training.rows, data.skip_bad, &mut |done, total| progress.answering(done, total))?;
    progress.clear();
    let mut lines = String::new();
    for prediction in &report.predictions {
        lines += &serde_json::to_string(prediction)?;
        lines.push('\n');
    }
    let page = page(run.name(), &report, &course(run)?);
    run.save_task_results(&report.task, &serde_json::to_vec_pretty(&report)?, lines.as_bytes(), page.as_bytes())?;
    Ok(report)
}

/// How a run was trained, as far as its log tells.
fn course(run: &Run) -> anyhow::Result<Course> {
    let rows = run.metrics()?;
    let of = |kind: &str| {
        let rows = rows.iter().filter(|row| row["kind"] == kind);
        rows.filter_map(|row| Some((row["step"].as_u64()?, row["loss"].as_f64()?))).collect::<Vec<_>>()
    };
    let verdict = judge(run)?;
    let gap = verdict.gap.map_or(String::new(), |gap| format!(" The validation loss is {gap} above the training loss."));
    let mut words = verdict.trend.to_string();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Ok(Course { training: of("train"), validation: of("validation"), verdict: Some(format!("{words}.{gap}")) })
}

/// As JSON.
pub(super) fn as_json(run: &Run, report: &TaskReport) -> serde_json::Value {
    let mut value = json!(report);
    value["run"] = json!(run.name());
    value["predictions"] = json!(run.task_predictions_path(&report.task));
    value["report"] = json!(run.task_report_path(&report.task));
    value
}

/// Prints a report.
pub(super) fn print(run: &Run, report: &TaskReport) -> anyhow::Result<()> {
    let mut facts = vec![("task", format!("{}, {}, {} rows", report.task, report.kind.name(), output::count(report.n_rows as u64)))];
    let mut count = |name, n: usize, what: &str| {
        if n > 0 {
            facts.push((name, format!("{} {what}", output::count(n as u64))));
        }
    };
    count("left out", report.n_bad, "rows that are bad");
    count("truncated", report.n_truncated, "prompts that did not fit the context lost their beginning");
    if let Some(overlap) = report.overlap {
        let shared = format!(
            "{} of {} rows share a run of {} words with a training row ({:.1} % of all runs)",
            output::count(overlap.n_shared as u64),
            output::count(overlap.n_rows as u64),
            overlap.n,
            100.0 * overlap.share
        );
        facts.push(("overlap", shared));
    }
    facts.extend(report.signatures.iter().map(|signature| ("signature", signature.clone())));
    output::pairs(&facts)?;
    output::text("\n")?;
    let names = report.score_names();
    let cell = |system: &SystemScores, name: &str| {
        let score = system.scores.iter().find(|score| score.name == name);
        score.map_or(String::new(), |score| match score.interval {
            Some(interval) => format!("{} ({} to {})", number(score.value), number(interval.low), number(interval.high)),
            None => number(score.value),
        })
    };
    let header: Vec<&str> = std::iter::once("").chain(report.systems.iter().map(|system| system.system.as_str())).collect();
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| std::iter::once((*name).to_owned()).chain(report.systems.iter().map(|system| cell(system, name))).collect())
        .collect();
    output::table(&header, &rows)?;
    for system in report.systems.iter().filter_map(|system| Some((system.system.as_str(), system.beaten_by?))) {
        let (name, comparison) = system;
        output::text(&format!(
            "model less {name}: {} ({} to {} in 95 % of 1,000 paired resamples, p {:.3})\n",
            signed(comparison.difference),
            signed(comparison.interval.low),
            signed(comparison.interval.high),
            comparison.p_value
        ))?;
    }
    if let Some(classes) = &report.classes {
        output::text("\n")?;
        let share = |value: f64| format!("{value:.4}");
        let row = |name: &str, scores: kindling_metrics::PrecisionRecallF1, n: u64| {
            vec![name.to_owned(), share(scores.precision), share(scores.recall), share(scores.f1), output::count(n)]
        };
        let n_rows = report.n_rows as u64;
        let mut rows: Vec<Vec<String>> =
            classes.labels.iter().map(|label| row(&shown(&label.label), label.scores.scores, label.scores.support)).collect();
        rows.extend(
            [("macro", classes.macro_average), ("weighted", classes.weighted), ("micro", classes.micro)]
                .map(|(name, scores)| row(name, scores, n_rows)),
        );
        output::table(&["label", "precision", "recall", "F1", "rows"], &rows)?;
        output::text("\nrows by label, and by what was said\n")?;
        let labels: Vec<String> = classes.labels.iter().map(|label| shown(&label.label)).collect();
        let header: Vec<&str> = std::iter::once("").chain(labels.iter().map(String::as_str)).collect();
        let rows: Vec<Vec<String>> = labels
            .iter()
            .zip(&classes.confusion)
            .map(|(label, counts)| std::iter::once(label.clone()).chain(counts.iter().map(|n| output::count(*n))).collect())
            .collect();
        output::table(&header, &rows)?;
    }
    let worst = report.worst(N_WORST);
    if !worst.is_empty() {
        output::text("\nanswered worst\n")?;
        for prediction in worst {
            let (prompt, target) = (shown(&prediction.prompt), shown(&prediction.target));
            output::text(&format!(
                "  {}\n    prompt  {prompt}\n    right   {target}\n    said    {}\n",
                prediction.place,
                shown(&prediction.prediction)
            ))?;
        }
    }
    output::text("\n")?;
    output::pairs(&[
        ("predictions", run.task_predictions_path(&report.task).display().to_string()),
        ("report", run.task_report_path(&report.task).display().to_string()),
    ])
}

/// A difference of scores.
fn signed(value: f64) -> String {
    format!("{}{}", if value < 0.0 { "" } else { "+" }, number(value))
}

/// A text on one line, shortened.
fn shown(text: &str) -> String {
    let line = text.trim().replace('\n', " ⏎ ");
    match line.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}
