//! What commands share that know a task: reading its file, testing a run with it, printing and keeping what came of it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use kindling_config::{DataConfig, RunConfig, TaskConfig};
use kindling_data::{DataError, RowsOf, Templates, TestRow, TestRows, read_rows};
use kindling_eval::{
    Course, GroupScores, MeanScore, NamedScore, Predictor, SideBySide, SystemScores, TaskReport, Test, Tested, number, page, score_names,
};
use kindling_infer::Opened;
use kindling_metrics::Comparison;
use kindling_model::Gpt;
use kindling_runs::Run;
use kindling_tokenizer::Tokenizer;
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
    let task = TaskConfig::from_toml(&text, &path.display().to_string(), &dir)?;
    match Templates::new(&task.examples(false)) {
        Err(DataError::Template { key, message }) => Err(Advice {
            message: format!("{}: `{}` is no template: {message}", path.display(), if key == "prompt" { key } else { "target" }),
            hint: "a template of Jinja, such as `{{ question }}`: its variables are the fields of the row".into(),
        }
        .into()),
        _ => Ok(task),
    }
}

/// The task that a run is used for: that of a file, or its own, with where its rows are. Of its own these are held out as they were when
/// it was trained.
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
    let labels = config.data.examples.as_ref().map(|examples| &examples.labels);
    if let Some(own) = labels.filter(|own| has_head && **own != task.labels) {
        return Err(Advice {
            message: format!(
                "the head of run `{}` has the labels {own:?}, and the task `{}` {:?}",
                opened.run.name(),
                task.name,
                task.labels
            ),
            hint: "use a run that was trained on this task, or without `--head`".into(),
        }
        .into());
    }
    let data = match file {
        Some(_) => task.data_config(has_head, lossy, skip_bad),
        None => DataConfig { lossy, skip_bad, ..config.data.clone() },
    };
    Ok((task, data))
}

/// Whether the test of a run's task can be asked of it: said before it is trained.
///
/// # Errors
/// Rows that cannot be read or asked; none at all.
pub(super) fn check(config: &RunConfig, tokenizer: &Tokenizer) -> anyhow::Result<()> {
    let Some(task) = &config.task else { return Ok(()) };
    Test::new(task, tokenizer, read_rows(&config.data, RowsOf::Test, &std::env::temp_dir())?, config.data.skip_bad)?;
    Ok(())
}

/// Says how many rows of a test a run has been trained on, as far as their prompts tell, where it is not the run's own test.
pub(super) fn warn_of_trained(args: &Args, opened: &Opened, test: &Test) {
    let config = opened.run.config();
    if config.data.examples.is_none() {
        return;
    }
    let data = DataConfig { skip_bad: true, ..config.data.clone() };
    let Ok(trained) = read_rows(&data, RowsOf::Training, &std::env::temp_dir()) else { return };
    let own = if data.test_paths.is_empty() { Ok(TestRows::default()) } else { read_rows(&data, RowsOf::Test, &std::env::temp_dir()) };
    let held_out: HashSet<String> = own.unwrap_or_default().rows.into_iter().map(|row| row.prompt).collect();
    let trained: HashSet<String> = trained.rows.into_iter().map(|row| row.prompt).filter(|prompt| !held_out.contains(prompt)).collect();
    let n = test.rows.iter().filter(|row| trained.contains(&row.prompt)).count();
    if n > 0 {
        let name = opened.run.name();
        line(args.quiet, &format!("warning: run `{name}` was trained on the prompts of {n} of these {} rows", test.rows.len()));
    }
}

/// The rows that training sees, none of which has a prompt of the test; none where they are gone, for only baselines and the overlap need
/// them.
pub(super) fn training_rows(args: &Args, data: &DataConfig, test: &Test) -> Vec<TestRow> {
    let read = if data.paths.is_empty() { Ok(TestRows::default()) } else { read_rows(data, RowsOf::Training, &std::env::temp_dir()) };
    match read {
        Ok(mut training) => {
            let tested: HashSet<&str> = test.rows.iter().map(|row| row.prompt.as_str()).collect();
            training.rows.retain(|row| !tested.contains(row.prompt.as_str()));
            training.rows
        }
        Err(error) => {
            line(args.quiet, &format!("warning: no baselines, for the training rows cannot be read: {error}"));
            Vec::new()
        }
    }
}

/// Asks a model the test of a task.
pub(super) fn ask(
    name: &str,
    (model, tokenizer): (&Gpt, &Tokenizer),
    (task, data): (&TaskConfig, &DataConfig),
    batch_size: usize,
    progress: &mut Progress,
) -> anyhow::Result<Tested> {
    let test = Test::new(task, tokenizer, read_rows(data, RowsOf::Test, &std::env::temp_dir())?, data.skip_bad)?;
    let predictor = Predictor { model, tokenizer, task, batch_size };
    let answers = predictor.answer(&test.questions, &mut |done, total| progress.answering(done, total))?;
    progress.clear();
    Ok(Tested { name: name.to_owned(), task: task.clone(), test, answers })
}

/// Keeps what came of a test in the run's folder. Where that cannot be written, what was computed is told all the same.
pub(super) fn keep(args: &Args, run: &Run, report: &TaskReport) {
    if let Err(error) = try_keep(run, report) {
        line(args.quiet, &format!("warning: what came of the test is not kept in `{}`: {error:#}", run.dir().display()));
    }
}

fn try_keep(run: &Run, report: &TaskReport) -> anyhow::Result<()> {
    let mut lines = String::new();
    for prediction in &report.predictions {
        lines += &serde_json::to_string(prediction)?;
        lines.push('\n');
    }
    let page = page(run.name(), report, &course(run)?);
    Ok(run.save_task_results(&report.task, &serde_json::to_vec_pretty(report)?, lines.as_bytes(), page.as_bytes())?)
}

/// Tests the model of a run, and keeps what came of it in the run's folder.
pub(super) fn test(
    args: &Args,
    opened: &Opened,
    (task, data): (&TaskConfig, &DataConfig),
    batch_size: usize,
    progress: &mut Progress,
) -> anyhow::Result<(TaskReport, Test)> {
    let tested = ask(opened.run.name(), (&opened.model, &opened.tokenizer), (task, data), batch_size, progress)?;
    let report = tested.test.report(task, &tested.answers, &training_rows(args, data, &tested.test));
    keep(args, &opened.run, &report);
    Ok((report, tested.test))
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
    count("left out", report.n_bad, "bad rows of the files");
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
    let header: Vec<&str> = std::iter::once("").chain(report.systems.iter().map(|system| system.system.as_str())).collect();
    let cell = |system: &SystemScores, name: &str| system.scores.iter().find(|score| score.name == name).map_or(String::new(), score);
    let rows: Vec<Vec<String>> = score_names(&report.systems)
        .iter()
        .map(|name| std::iter::once((*name).to_owned()).chain(report.systems.iter().map(|system| cell(system, name))).collect())
        .collect();
    output::table(&header, &rows)?;
    for (name, comparison) in report.systems.iter().filter_map(|system| Some((system.system.as_str(), system.beaten_by?))) {
        output::text(&difference("model", name, comparison))?;
    }
    if let Some(name) = report.groups.first().and_then(|group| group.scores.first()).map(|score| score.name) {
        output::text("\n")?;
        let header = [&[name, "rows"][..], &header[1..]].concat();
        let row = |group: &GroupScores| {
            [shown(&group.group), output::count(group.n_rows as u64)].into_iter().chain(group.scores.iter().map(score)).collect()
        };
        output::table(&header, &report.groups.iter().map(row).collect::<Vec<Vec<String>>>())?;
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

/// Prints systems beside each other, with where the report of each is kept.
pub(super) fn print_side_by_side(found: &SideBySide, reports: &[PathBuf]) -> anyhow::Result<()> {
    output::pairs(&[("task", format!("{}, {} rows", found.task, output::count(found.n_rows as u64)))])?;
    output::text("\n")?;
    let names = score_names(&found.systems);
    let header: Vec<&str> = std::iter::once("").chain(names.iter().copied()).collect();
    let row = |system: &SystemScores| {
        let cell = |name: &&str| system.scores.iter().find(|score| score.name == *name).map_or(String::new(), score);
        std::iter::once(system.system.clone()).chain(names.iter().map(cell)).collect::<Vec<String>>()
    };
    output::table(&header, &found.systems.iter().map(row).collect::<Vec<_>>())?;
    output::text("\nmean of the runs, with the standard deviation of one\n")?;
    let mean = |one: &MeanScore| vec![one.name.to_owned(), number(one.mean), format!("± {}", number(one.standard_deviation))];
    output::table(&["", "mean", ""], &found.means.iter().map(mean).collect::<Vec<_>>())?;
    output::text("\n")?;
    for one in &found.differences {
        output::text(&difference(&one.system, &one.less, one.comparison))?;
    }
    if !reports.is_empty() {
        output::text("\n")?;
    }
    output::pairs(&reports.iter().map(|path| ("report", path.display().to_string())).collect::<Vec<_>>())
}

/// A score with its interval.
fn score(score: &NamedScore) -> String {
    match score.interval {
        Some(interval) => format!("{} ({} to {})", number(score.value), number(interval.low), number(interval.high)),
        None => number(score.value),
    }
}

/// How the first score of one system differs from that of another, as a line.
fn difference(system: &str, less: &str, comparison: Comparison) -> String {
    let [difference, low, high] = [comparison.difference, comparison.interval.low, comparison.interval.high].map(signed);
    format!("{system} less {less}: {difference} ({low} to {high} in 95 % of 1,000 paired resamples, p {:.3})\n", comparison.p_value)
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
