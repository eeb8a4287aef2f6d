//! A task that a model is trained for and measured on. Reads no data.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::check_size;
use crate::run::{check_name, invalid};
use crate::{ConfigError, DataConfig, ExamplesConfig, Order, toml_text};

/// What rows mean, how they become prompts and targets, and where they are. A run keeps the task that it was trained for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// What reports and runs call it.
    pub name: String,
    /// What is done.
    pub kind: TaskKind,
    /// What the model is given: a template of Jinja over the fields of a row.
    pub prompt: String,
    /// What it is to say: the label, the translation, the answer.
    pub target: String,
    /// Training learns the prompt too, and not the target alone; a classification head does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learn_prompt: bool,
    /// The field of training rows that ask several things of one text: a list of rows, which follow one another. Each is rendered by `prompt`
    /// and `target` with what the whole row has beside it. Rows of a test ask one thing each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<String>,
    /// Of a classification: every target that there is, in the order of reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Of multiple choice: the field that has the list of choices, of which the target is one. White space before the target is put
    /// before each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<String>,
    /// The field that has all targets that are right, where there may be several: a list of texts or numbers, or one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<String>,
    /// A field whose values part the rows of a test into groups that are scored by themselves too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// Where the rows are.
    pub data: TaskData,
    /// How targets are written that are not labels or choices.
    #[serde(default)]
    pub decode: DecodeConfig,
}

/// What a task asks of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// One of a few labels that all rows share.
    Classification,
    /// Another text: a translation, a summary.
    SequenceToSequence,
    /// A short answer, that of a person counts as right word by word.
    QuestionAnswering,
    /// One of the choices of the row, told apart by their log-likelihood a byte.
    MultipleChoice,
    /// What comes next.
    Generation,
}

/// The rows of a task: JSON lines, CSV, TSV or Parquet; or `{a,b}` in a name: files of text whose lines belong together, of which
/// line N is a row with the fields `a` and `b`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskData {
    /// Files, folders or globs of rows to train on, relative to the task's own file.
    #[serde(default)]
    pub train: Vec<PathBuf>,
    /// Rows that choose the checkpoint and end the training; by default a share of `train`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<PathBuf>,
    /// Which share.
    #[serde(default = "a_tenth")]
    pub validation_fraction: f64,
    /// Rows that scores are told of, and that no training sees; by default a share of `train`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<PathBuf>,
    /// Which share, told by the hash of the prompt.
    #[serde(default = "a_tenth")]
    pub test_fraction: f64,
    /// Names of the fields, for CSV and TSV without a line of names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

fn a_tenth() -> f64 {
    0.1
}

/// Beam search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeConfig {
    /// Texts that are followed at once; 1 is greedy.
    pub beam_size: usize,
    /// Finished texts are compared by log-likelihood / length^α, so that short ones are not preferred; 0 compares log-likelihoods.
    pub length_penalty: f64,
    /// Tokens of a target at most.
    pub max_new_tokens: usize,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self { beam_size: 1, length_penalty: 1.0, max_new_tokens: 128 }
    }
}

impl TaskConfig {
    /// Reads a task's file; its paths come out relative to `dir`, or as they are where they are absolute.
    ///
    /// # Errors
    /// Broken TOML, an unknown key, a value of the wrong type, or an impossible one.
    pub fn from_toml(text: &str, source_name: &str, dir: &Path) -> Result<Self, ConfigError> {
        let mut task: Self = toml_text::parse(text, source_name, &[])?;
        task.validate().map_err(|error| ConfigError::Task { source_name: source_name.to_owned(), error: Box::new(error) })?;
        let data = &mut task.data;
        for path in [&mut data.train, &mut data.validation, &mut data.test].into_iter().flatten() {
            *path = dir.join(&*path);
        }
        Ok(task)
    }

    /// What makes a run's configuration one that trains on this task, as overrides for [`RunConfig::from_toml`](crate::RunConfig): its
    /// data, their templates and split, its name, and the task itself. With a `head` the model has one output a label.
    ///
    /// # Errors
    /// A head for a task without labels.
    pub fn overrides(&self, head: bool, lossy: bool, skip_bad: bool) -> Result<Vec<String>, ConfigError> {
        if head && self.kind != TaskKind::Classification {
            return Err(ConfigError::Invalid {
                key: "task.kind",
                found: format!("`{}`", self.kind.name()),
                expected: "`classification`, with a head".into(),
                hint: Some("leave out `--head`: the target is then written as text".into()),
            });
        }
        if head && self.turns.is_some() {
            return Err(invalid("task.turns", "given".into(), "none, with a head: it answers once, at the end of a text"));
        }
        let value = |value: Result<toml::Value, toml::ser::Error>| {
            value.map_err(|error| invalid("task.data", format!("no TOML: {error}"), "paths in UTF-8, of the task's own folder too"))
        };
        let name = if head { format!("{}-head", self.name) } else { self.name.clone() };
        Ok(vec![
            format!("name={}", toml::Value::from(name)),
            format!("model.n_classes={}", if head { self.labels.len() } else { 0 }),
            format!("data={}", value(toml::Value::try_from(self.data_config(head, lossy, skip_bad)))?),
            format!("task={}", value(toml::Value::try_from(self))?),
            "sample.prompt=\"\"".to_owned(),
        ])
    }

    /// The data that training on this task reads.
    pub fn data_config(&self, head: bool, lossy: bool, skip_bad: bool) -> DataConfig {
        let TaskData { train, validation, validation_fraction, test, test_fraction, columns } = &self.data;
        DataConfig {
            validation_paths: validation.clone(),
            validation_fraction: *validation_fraction,
            test_paths: test.clone(),
            test_fraction: if test.is_empty() { *test_fraction } else { 0.0 },
            columns: columns.clone(),
            order: Order::Epoch,
            examples: Some(self.examples(head)),
            ..DataConfig::of_paths(train.clone(), lossy, skip_bad)
        }
    }

    /// How rows become prompts and targets.
    pub fn examples(&self, head: bool) -> ExamplesConfig {
        ExamplesConfig {
            prompt: self.prompt.clone(),
            completion: self.target.clone(),
            labels: self.labels.clone(),
            head,
            chats: false,
            learn_prompt: self.learn_prompt && !head,
            turns: self.turns.clone(),
            ..ExamplesConfig::default()
        }
    }

    /// Checks what can be checked without rows.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        check_name("task.name", &self.name)?;
        let has_labels = !self.labels.is_empty();
        let expected = match (self.kind, has_labels, self.choices.is_some()) {
            (TaskKind::Classification, false, _) => Some(("task.labels", "empty", "every label, with `kind = \"classification\"`")),
            (TaskKind::Classification, true, false) => None,
            (TaskKind::MultipleChoice, false, false) => Some(("task.choices", "missing", "the field that has the choices")),
            (TaskKind::MultipleChoice, false, true) => None,
            (_, true, _) => Some(("task.labels", "given", "none but with `kind = \"classification\"`")),
            (_, _, true) => Some(("task.choices", "given", "none but with `kind = \"multiple-choice\"`")),
            _ => None,
        };
        if let Some((key, found, expected)) = expected {
            return Err(invalid(key, found.into(), expected));
        }
        if self.kind == TaskKind::Classification && self.labels.len() < 2 {
            return Err(invalid("task.labels", "one label".into(), "at least two"));
        }
        let same = |i: usize| self.labels[..i].iter().any(|label| label.trim() == self.labels[i].trim());
        if let Some(twice) = (0..self.labels.len()).find(|i| same(*i)) {
            return Err(invalid("task.labels", format!("`{}` twice", self.labels[twice]), "each label once, whatever spaces are about it"));
        }
        if self.labels.iter().any(|label| label.trim().is_empty()) {
            return Err(invalid("task.labels", "a label without text".into(), "labels that say something"));
        }
        for (key, share) in
            [("task.data.validation_fraction", self.data.validation_fraction), ("task.data.test_fraction", self.data.test_fraction)]
        {
            if !(share > 0.0 && share < 1.0) {
                return Err(invalid(key, share.to_string(), "a share above 0 and below 1"));
            }
        }
        if self.data.train.is_empty() && self.data.test.is_empty() {
            return Err(invalid("task.data.train", "empty, and so is `test`".into(), "at least one file"));
        }
        let DecodeConfig { beam_size, length_penalty, max_new_tokens } = self.decode;
        check_size("task.decode.beam_size", beam_size, 1 << 10)?;
        check_size("task.decode.max_new_tokens", max_new_tokens, 1 << 30)?;
        if !(length_penalty >= 0.0 && length_penalty.is_finite()) {
            return Err(invalid("task.decode.length_penalty", length_penalty.to_string(), "0 or a number above it"));
        }
        Ok(())
    }
}

impl TaskKind {
    /// As files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::SequenceToSequence => "sequence-to-sequence",
            Self::QuestionAnswering => "question-answering",
            Self::MultipleChoice => "multiple-choice",
            Self::Generation => "generation",
        }
    }
}
