//! A task from its rows to a report: what the model says, how right that is, and what baselines reach.

use kindling_config::{TaskConfig, TaskKind};
use kindling_data::{DataError, RowOverlap, TestRow, TestRows, overlap};
use kindling_metrics::{Bleu, Chrf};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{Asked, ClassReport, EvalError, Prediction, Predictor, SystemScores, baselines, class_report, compare, scores};

/// Words of a run that a test shares with training to be told.
const OVERLAP_WORDS: usize = 8;

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskReport {
    /// The task's name.
    pub task: String,
    /// What is done.
    pub kind: TaskKind,
    /// Rows that were scored.
    pub n_rows: usize,
    /// Rows that were left out because they are bad.
    pub n_bad: usize,
    /// Rows whose prompt lost its beginning, which did not fit the context.
    pub n_truncated: usize,
    /// The model, and then baselines.
    pub systems: Vec<SystemScores>,
    /// Of a classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassReport>,
    /// How much of the test stands in training rows; unknown without these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlap: Option<RowOverlap>,
    /// How text scores were computed, as sacrebleu writes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures: Vec<String>,
    /// Row by row.
    #[serde(skip)]
    pub predictions: Vec<Prediction>,
}

impl TaskReport {
    /// The names of all scores, in their order.
    pub fn score_names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for score in self.systems.iter().flat_map(|system| &system.scores) {
            if !names.contains(&score.name) {
                names.push(score.name);
            }
        }
        names
    }

    /// The `n` rows that were answered worst, the worst first: where the score of a row is the same, those that the model was surest of.
    pub fn worst(&self, n: usize) -> Vec<&Prediction> {
        let sure = |prediction: &Prediction| prediction.probabilities.iter().copied().fold(0.0, f64::max);
        let mut worst: Vec<&Prediction> = self.predictions.iter().filter(|prediction| prediction.score < 1.0).collect();
        worst.sort_by(|a, b| a.score.total_cmp(&b.score).then(sure(b).total_cmp(&sure(a))));
        worst.truncate(n);
        worst
    }
}

/// What a row asks.
///
/// # Errors
/// What is wrong with its choices.
pub fn asked(task: &TaskConfig, prompt: &str, fields: &Map<String, Value>, target: Option<&str>) -> Result<Asked, String> {
    let prompt = prompt.to_owned();
    let Some(field) = task.choices.as_ref().filter(|_| task.kind == TaskKind::MultipleChoice) else {
        return Ok(Asked { prompt, choices: Vec::new() });
    };
    let texts = fields.get(field).and_then(Value::as_array).map(|values| values.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
    let texts = match texts {
        Some(Some(texts)) if texts.len() > 1 => texts,
        _ => return Err(format!("field `{field}` is no list of at least two texts to choose from")),
    };
    // What parts a target from its prompt parts every choice from it.
    let target = target.unwrap_or(" ");
    let before = &target[..target.len() - target.trim_start().len()];
    if !target.trim().is_empty() && !texts.iter().any(|text| text.trim() == target.trim()) {
        return Err(format!("the target `{}` is none of the choices in `{field}`", target.trim()));
    }
    Ok(Asked { prompt, choices: texts.into_iter().map(|text| format!("{before}{}", text.trim())).collect() })
}

/// Tests a model with the rows of `test`, and baselines with it, which learn from `training`. `progress` hears of what is done and of how
/// much that is.
///
/// # Errors
/// A row that cannot be asked, unless `skip_bad`; otherwise as [`Predictor::answer`].
pub fn evaluate(
    predictor: &Predictor<'_>,
    test: TestRows,
    training: &[TestRow],
    skip_bad: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<TaskReport, EvalError> {
    let task = predictor.task;
    let mut n_bad = test.n_bad;
    let (mut rows, mut questions) = (Vec::new(), Vec::new());
    for row in test.rows {
        match asked(task, &row.prompt, &row.fields, Some(&row.target)) {
            Ok(question) => {
                questions.push(question);
                rows.push(row);
            }
            Err(_) if skip_bad => n_bad += 1,
            Err(message) => return Err(EvalError::Row { place: row.place, message }),
        }
    }
    if rows.is_empty() {
        return Err(EvalError::Data(DataError::NoTestRows(task.name.clone())));
    }
    let answers = predictor.answer(&questions, progress)?;
    let (system, predictions) = scores(task, "model", &rows, &answers);
    let mut systems = vec![system];
    for (name, said) in baselines(task, training, &rows, &questions) {
        let (baseline, _) = scores(task, name, &rows, &said);
        systems.push(SystemScores { beaten_by: compare(task, &rows, &answers, &said), ..baseline });
    }
    let n_references = task.references.is_none().then_some(1);
    let is_translation = task.kind == TaskKind::SequenceToSequence;
    Ok(TaskReport {
        task: task.name.clone(),
        kind: task.kind,
        n_rows: rows.len(),
        n_bad,
        n_truncated: answers.iter().filter(|answer| answer.is_truncated).count(),
        systems,
        classes: (task.kind == TaskKind::Classification).then(|| class_report(task, &rows, &answers)),
        overlap: (!training.is_empty()).then(|| overlap(training, &rows, OVERLAP_WORDS)),
        signatures: if is_translation {
            vec![format!("BLEU|{}", Bleu::default().signature(n_references)), format!("chrF2|{}", Chrf::default().signature(n_references))]
        } else {
            Vec::new()
        },
        predictions,
    })
}
