//! A task from its rows to a report: what a model says, how right that is, and what baselines reach.

use std::collections::BTreeMap;

use kindling_config::{TaskConfig, TaskKind};
use kindling_data::{DataError, RowOverlap, Templates, TestRow, TestRows, overlap};
use kindling_metrics::{Bleu, Chrf};
use kindling_tokenizer::Tokenizer;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    Answer, Asked, ClassReport, EvalError, NamedScore, Prediction, SystemScores, baselines, class_report, compare, references, scores,
};

/// Words of a run that a test shares with training to be told.
const OVERLAP_WORDS: usize = 8;

/// The rows of a test, and what they ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// The rows that can be asked.
    pub rows: Vec<TestRow>,
    /// What each asks.
    pub questions: Vec<Asked>,
    /// Rows that were left out because they are bad.
    pub n_bad: usize,
}

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
    /// The same by the values of the field that parts rows into groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupScores>,
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

/// What systems reach on some of the rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupScores {
    /// The value of the field, as text.
    pub group: String,
    /// Rows that have it.
    pub n_rows: usize,
    /// The first score of each system, in the order of the report.
    pub scores: Vec<NamedScore>,
}

/// The names of all scores of some systems, in their order.
pub fn score_names(systems: &[SystemScores]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for score in systems.iter().flat_map(|system| &system.scores) {
        if !names.contains(&score.name) {
            names.push(score.name);
        }
    }
    names
}

impl TaskReport {
    /// The `n` rows that were answered worst, the worst first: where the score of a row is the same, those that the model was surest of.
    pub fn worst(&self, n: usize) -> Vec<&Prediction> {
        let sure = |prediction: &Prediction| prediction.probabilities.iter().copied().fold(0.0, f64::max);
        let mut worst: Vec<&Prediction> = self.predictions.iter().filter(|prediction| prediction.score < 1.0).collect();
        worst.sort_by(|a, b| a.score.total_cmp(&b.score).then(sure(b).total_cmp(&sure(a))));
        worst.truncate(n);
        worst
    }
}

/// What a row asks of a model with this vocabulary; the right answer, where it is known, has to be one of its choices.
///
/// # Errors
/// What is wrong with the row.
pub fn asked(
    task: &TaskConfig,
    tokenizer: &Tokenizer,
    prompt: &str,
    fields: &Map<String, Value>,
    target: Option<&str>,
) -> Result<Asked, String> {
    let asked = choices(task, prompt, fields, target)?;
    for text in std::iter::once(&asked.prompt).chain(&asked.choices) {
        tokenizer.encode(text).map_err(|error| error.to_string())?;
    }
    Ok(asked)
}

fn choices(task: &TaskConfig, prompt: &str, fields: &Map<String, Value>, target: Option<&str>) -> Result<Asked, String> {
    let prompt = prompt.to_owned();
    let Some(field) = task.choices.as_ref().filter(|_| task.kind == TaskKind::MultipleChoice) else {
        return Ok(Asked { prompt, choices: Vec::new() });
    };
    let texts = fields.get(field).and_then(Value::as_array).map(|values| values.iter().map(Value::as_str).collect::<Option<Vec<&str>>>());
    let texts = match texts {
        Some(Some(texts)) if texts.len() > 1 => texts,
        _ => return Err(format!("field `{field}` is no list of at least two texts to choose from")),
    };
    if texts.iter().any(|text| text.trim().is_empty()) {
        return Err(format!("field `{field}` has a choice without text"));
    }
    if let Some(target) = target.filter(|target| !texts.iter().any(|text| text.trim() == target.trim())) {
        return Err(format!("the target `{}` is none of the choices in `{field}`", target.trim()));
    }
    // What parts a target from its prompt parts every choice from it.
    let before = &task.target[..task.target.len() - task.target.trim_start().len()];
    Ok(Asked { prompt, choices: texts.into_iter().map(|text| format!("{before}{}", text.trim())).collect() })
}

impl Test {
    /// The rows of `test` with what they ask of a model with this vocabulary.
    ///
    /// # Errors
    /// A row that cannot be asked, unless `skip_bad`; no row at all.
    pub fn new(task: &TaskConfig, tokenizer: &Tokenizer, test: TestRows, skip_bad: bool) -> Result<Self, EvalError> {
        let mut this = Self { rows: Vec::new(), questions: Vec::new(), n_bad: test.n_bad };
        for row in test.rows {
            let group = match &task.groups {
                Some(field) if !row.fields.contains_key(field) => Err(format!("no field `{field}`, by which the task has groups")),
                _ => Ok(()),
            };
            let question = || asked(task, tokenizer, &row.prompt, &row.fields, Some(&row.target));
            match group.and_then(|()| references(task, &row)).and_then(|_| question()) {
                Ok(question) => {
                    this.questions.push(question);
                    this.rows.push(row);
                }
                Err(_) if skip_bad => this.n_bad += 1,
                Err(message) => return Err(EvalError::Row { place: row.place, message }),
            }
        }
        if this.rows.is_empty() { Err(EvalError::Data(DataError::NoTestRows(task.name.clone()))) } else { Ok(this) }
    }

    /// How right `answers` to these questions are, beside baselines, which learn from `training`.
    pub fn report(&self, task: &TaskConfig, answers: &[Answer], training: &[TestRow]) -> TaskReport {
        let Self { rows, questions, n_bad } = self;
        let fields = Templates::new(&task.examples(false)).ok().map(|templates| templates.fields());
        let (system, predictions) = scores(task, "model", rows, answers);
        let baselines = baselines(task, training, rows, questions);
        let mut systems = vec![system];
        for (name, said) in &baselines {
            let (baseline, _) = scores(task, name, rows, said);
            systems.push(SystemScores { beaten_by: compare(task, rows, answers, said), ..baseline });
        }
        let all: Vec<&[Answer]> = std::iter::once(answers).chain(baselines.iter().map(|(_, said)| said.as_slice())).collect();
        let n_references = task.references.is_none().then_some(1);
        let is_translation = task.kind == TaskKind::SequenceToSequence;
        TaskReport {
            task: task.name.clone(),
            kind: task.kind,
            n_rows: rows.len(),
            n_bad: *n_bad,
            n_truncated: answers.iter().filter(|answer| answer.is_truncated).count(),
            systems,
            groups: self.groups(task, &all),
            classes: (task.kind == TaskKind::Classification).then(|| class_report(task, rows, answers)),
            overlap: fields.filter(|_| !training.is_empty()).map(|fields| overlap(training, rows, &fields, OVERLAP_WORDS)),
            signatures: if is_translation {
                vec![
                    format!("BLEU|{}", Bleu::default().signature(n_references)),
                    format!("chrF2|{}", Chrf::default().signature(n_references)),
                ]
            } else {
                Vec::new()
            },
            predictions,
        }
    }

    /// The first score of each system, group by group.
    fn groups(&self, task: &TaskConfig, systems: &[&[Answer]]) -> Vec<GroupScores> {
        let Some(field) = &task.groups else { return Vec::new() };
        let mut groups = BTreeMap::<String, Vec<usize>>::new();
        for (i, row) in self.rows.iter().enumerate() {
            let value = &row.fields[field];
            groups.entry(value.as_str().map_or_else(|| value.to_string(), str::to_owned)).or_default().push(i);
        }
        let of = |(group, members): (String, Vec<usize>)| {
            let rows: Vec<TestRow> = members.iter().map(|i| self.rows[*i].clone()).collect();
            let first = |answers: &&[Answer]| {
                let answers: Vec<Answer> = members.iter().map(|i| answers[*i].clone()).collect();
                scores(task, "", &rows, &answers).0.scores.swap_remove(0)
            };
            GroupScores { group, n_rows: rows.len(), scores: systems.iter().map(first).collect() }
        };
        groups.into_iter().map(of).collect()
    }
}
