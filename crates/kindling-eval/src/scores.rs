//! Scores of what systems say to the rows of a task, with intervals, and systems side by side. Runs no model.

use kindling_config::{TaskConfig, TaskKind};
use kindling_data::TestRow;
use kindling_metrics::{
    Average, Bleu, BleuStats, Bootstrap, Calibration, Chrf, ChrfStats, ClassScores, Comparison, Confusion, Interval, Mean,
    PrecisionRecallF1, Rouge, Squad, repeated_n, roc_auc, roc_auc_one_vs_rest, words,
};
use serde::Serialize;
use serde_json::Value;

use crate::Answer;

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamedScore {
    /// What it is called.
    pub name: &'static str,
    /// The score on all rows.
    pub value: f64,
    /// Its 95 % interval by bootstrap over rows; none of too few.
    pub interval: Option<Interval>,
}

/// A score as it is told: shares with four digits, scores up to 100 with two.
pub fn number(value: f64) -> String {
    if value.abs() > 1.0 { format!("{value:.2}") } else { format!("{value:.4}") }
}

/// What one system reaches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SystemScores {
    /// The model, or a baseline.
    pub system: String,
    /// Its scores, the one that decides first.
    pub scores: Vec<NamedScore>,
    /// The model's first score less this baseline's, by paired bootstrap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beaten_by: Option<Comparison>,
}

/// How well one label was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelScores {
    /// The label.
    pub label: String,
    /// Precision, recall, F1 and how many rows have it.
    #[serde(flatten)]
    pub scores: ClassScores,
}

/// What a classification tells beside its scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassReport {
    /// Each label.
    pub labels: Vec<LabelScores>,
    /// Mean over labels, each counting the same.
    #[serde(rename = "macro")]
    pub macro_average: PrecisionRecallF1,
    /// Mean over labels, each weighted by its rows.
    pub weighted: PrecisionRecallF1,
    /// From the sums over all labels.
    pub micro: PrecisionRecallF1,
    /// Rows by label, and by what was said.
    pub confusion: Vec<Vec<u64>>,
}

/// A row with what was said to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The file and the line.
    pub place: String,
    /// What was given.
    pub prompt: String,
    /// What is right.
    pub target: String,
    /// All that is right, where there may be several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// What was said.
    pub prediction: String,
    /// Between 0 and 1: what this row counts in the first score, or something like it where that is one of a whole corpus.
    pub score: f64,
    /// Of each label or choice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probabilities: Vec<f64>,
    /// Whether the prompt lost its beginning.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_truncated: bool,
}

/// What is right for a row: all references where the task has some, or the target.
///
/// # Errors
/// What is wrong with the references.
pub fn references(task: &TaskConfig, row: &TestRow) -> Result<Vec<String>, String> {
    let Some(field) = &task.references else { return Ok(vec![row.target.trim().to_owned()]) };
    let given = row.fields.get(field).ok_or_else(|| format!("no field `{field}`, which is to have all that is right"))?;
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let listed: Option<Vec<String>> = given.as_array().map_or(std::slice::from_ref(given), Vec::as_slice).iter().map(text).collect();
    listed.filter(|listed| !listed.is_empty()).ok_or_else(|| format!("field `{field}` is neither a text nor a list of texts"))
}

/// The same of rows that a [`Test`](crate::Test) has.
fn checked_references(task: &TaskConfig, row: &TestRow) -> Vec<String> {
    references(task, row).unwrap_or_else(|_| vec![row.target.trim().to_owned()])
}

/// What a row's part in the scores of a text is.
#[derive(Clone, Debug)]
struct Segment {
    bleu: BleuStats,
    chrf: ChrfStats,
    squad: Squad,
    rouge: [f64; 3],
    repeated: Option<f64>,
}

/// Scores what a system said to all rows. `answers` has probabilities where the system gives some.
pub fn scores(task: &TaskConfig, system: &str, rows: &[TestRow], answers: &[Answer]) -> (SystemScores, Vec<Prediction>) {
    let bootstrap = Bootstrap::default();
    let references: Vec<Vec<String>> = rows.iter().map(|row| checked_references(task, row)).collect();
    let said: Vec<&str> = answers.iter().map(|answer| answer.text.trim()).collect();
    let mean = |name, values: &[f64]| {
        let values: Vec<Mean> = values.iter().map(|value| Mean::from(*value)).collect();
        let mut all = Mean::default();
        values.iter().for_each(|value| all += *value);
        NamedScore { name, value: all.value(), interval: bootstrap.interval_of_sum(&values, Mean::value) }
    };
    let is_exact: Vec<f64> = said.iter().zip(&references).map(|(said, right)| f64::from(right.iter().any(|right| right == said))).collect();
    let (scores, of_rows) = match task.kind {
        TaskKind::Classification => (class_scores(task, rows, answers, &bootstrap), is_exact),
        TaskKind::MultipleChoice => (vec![mean("accuracy", &is_exact)], is_exact),
        _ => {
            let segments: Vec<Segment> = said.iter().zip(&references).map(|(said, right)| segment(said, right)).collect();
            let exact = mean("exact match", &is_exact);
            match task.kind {
                TaskKind::QuestionAnswering => {
                    let squad: Vec<Squad> = segments.iter().map(|segment| segment.squad).collect();
                    let of = |name, score: fn(&Squad) -> f64| {
                        let mut all = Squad::default();
                        squad.iter().for_each(|one| all += *one);
                        NamedScore { name, value: score(&all), interval: bootstrap.interval_of_sum(&squad, score) }
                    };
                    let of_rows = squad.iter().map(Squad::f1).collect();
                    (vec![of("exact match", Squad::exact_match), of("F1", Squad::f1), NamedScore { name: "as written", ..exact }], of_rows)
                }
                TaskKind::SequenceToSequence => {
                    let bleu: Vec<BleuStats> = segments.iter().map(|segment| segment.bleu).collect();
                    let chrf: Vec<ChrfStats> = segments.iter().map(|segment| segment.chrf).collect();
                    let of_rows = chrf.iter().map(|stats| Chrf::default().score(stats) / 100.0).collect();
                    let bleu_score = |stats: &BleuStats| Bleu::default().score(stats).score;
                    let chrf_score = |stats: &ChrfStats| Chrf::default().score(stats);
                    let (mut all_bleu, mut all_chrf) = (BleuStats::default(), ChrfStats::default());
                    bleu.iter().for_each(|stats| all_bleu += *stats);
                    chrf.iter().for_each(|stats| all_chrf += *stats);
                    let scores = vec![
                        NamedScore { name: "BLEU", value: bleu_score(&all_bleu), interval: bootstrap.interval_of_sum(&bleu, bleu_score) },
                        NamedScore { name: "chrF", value: chrf_score(&all_chrf), interval: bootstrap.interval_of_sum(&chrf, chrf_score) },
                        mean("ROUGE-L", &segments.iter().map(|segment| segment.rouge[2]).collect::<Vec<_>>()),
                        exact,
                    ];
                    (scores, of_rows)
                }
                _ => {
                    let rouge = |i: usize| segments.iter().map(|segment| segment.rouge[i]).collect::<Vec<_>>();
                    let repeated: Vec<f64> = segments.iter().filter_map(|segment| segment.repeated).collect();
                    let mut scores = vec![mean("ROUGE-L", &rouge(2)), mean("ROUGE-1", &rouge(0)), mean("ROUGE-2", &rouge(1)), exact];
                    if !repeated.is_empty() {
                        scores.push(mean("repeated 4-grams", &repeated));
                    }
                    (scores, rouge(2))
                }
            }
        }
    };
    let predictions = rows.iter().zip(answers).zip(references).zip(of_rows);
    let predictions = predictions.map(|(((row, answer), references), score)| Prediction {
        place: row.place.clone(),
        prompt: row.prompt.clone(),
        target: row.target.clone(),
        references: if task.references.is_some() { references } else { Vec::new() },
        prediction: answer.text.clone(),
        score,
        probabilities: answer.probabilities.clone(),
        is_truncated: answer.is_truncated,
    });
    (SystemScores { system: system.to_owned(), scores, beaten_by: None }, predictions.collect())
}

fn segment(said: &str, right: &[String]) -> Segment {
    let words: Vec<&str> = words(said).collect();
    Segment {
        bleu: Bleu::default().stats(said, right),
        chrf: Chrf::default().stats(said, right),
        squad: Squad::of(said, right),
        rouge: [Rouge::N(1), Rouge::N(2), Rouge::L].map(|rouge| rouge.score(said, right).f1),
        repeated: repeated_n(&words, 4),
    }
}

/// The class of each row, and of what was said to it.
fn classes(task: &TaskConfig, rows: &[TestRow], answers: &[Answer]) -> Vec<(usize, Option<usize>)> {
    let class = |text: &str| task.labels.iter().position(|label| label == text);
    rows.iter().zip(answers).map(|(row, answer)| (class(&row.target).unwrap_or_default(), class(&answer.text))).collect()
}

fn confusion(n_classes: usize, classes: impl IntoIterator<Item = (usize, Option<usize>)>) -> Confusion {
    let mut confusion = Confusion::new(n_classes);
    classes.into_iter().for_each(|(truth, said)| confusion.add(truth, said));
    confusion
}

fn class_scores(task: &TaskConfig, rows: &[TestRow], answers: &[Answer], bootstrap: &Bootstrap) -> Vec<NamedScore> {
    let (n, classes) = (task.labels.len(), classes(task, rows, answers));
    let all: Vec<usize> = (0..rows.len()).collect();
    let of =
        |name, score: &dyn Fn(&[usize]) -> f64| NamedScore { name, value: score(&all), interval: bootstrap.interval(rows.len(), score) };
    let drawn = |indices: &[usize]| confusion(n, indices.iter().map(|i| classes[*i]));
    let mut scores = vec![
        of("accuracy", &|indices| drawn(indices).accuracy()),
        of("macro F1", &|indices| drawn(indices).average(Average::Macro).f1),
        of("weighted F1", &|indices| drawn(indices).average(Average::Weighted).f1),
    ];
    if answers.iter().all(|answer| answer.probabilities.len() == n) {
        let auc = |indices: &[usize]| {
            let auc = if n == 2 {
                roc_auc(indices.iter().map(|i| (answers[*i].probabilities[1], classes[*i].0 == 1)))
            } else {
                roc_auc_one_vs_rest(&indices.iter().map(|i| (&answers[*i].probabilities[..], classes[*i].0)).collect::<Vec<_>>())
            };
            auc.unwrap_or(f64::NAN)
        };
        let calibration = |indices: &[usize]| {
            let mut calibration = Calibration::default();
            for i in indices {
                let confidence = answers[*i].probabilities.iter().copied().fold(0.0, f64::max);
                calibration.add(confidence, Some(classes[*i].0) == classes[*i].1);
            }
            calibration.error()
        };
        let auc = of("ROC AUC", &auc);
        // Of a test with one label alone there is none.
        scores.extend((!auc.value.is_nan()).then_some(auc));
        scores.push(of("calibration error", &calibration));
    }
    scores
}

/// What is told of a classification beside its scores.
pub fn class_report(task: &TaskConfig, rows: &[TestRow], answers: &[Answer]) -> ClassReport {
    let n = task.labels.len();
    let confusion = confusion(n, classes(task, rows, answers));
    let label = |(i, label): (usize, &String)| LabelScores { label: label.clone(), scores: confusion.class(i) };
    ClassReport {
        labels: task.labels.iter().enumerate().map(label).collect(),
        macro_average: confusion.average(Average::Macro),
        weighted: confusion.average(Average::Weighted),
        micro: confusion.average(Average::Micro),
        confusion: (0..n).map(|truth| (0..n).map(|said| confusion.count(truth, said)).collect()).collect(),
    }
}

/// The first score of a system less that of a baseline on the same rows.
pub fn compare(task: &TaskConfig, rows: &[TestRow], system: &[Answer], baseline: &[Answer]) -> Option<Comparison> {
    let bootstrap = Bootstrap::default();
    let right: Vec<Vec<String>> = rows.iter().map(|row| checked_references(task, row)).collect();
    let pairs = || system.iter().zip(baseline).zip(&right).map(|((a, b), right)| (a.text.trim(), b.text.trim(), right));
    match task.kind {
        TaskKind::SequenceToSequence => {
            let bleu = Bleu::default();
            let stats: Vec<_> = pairs().map(|(a, b, right)| (bleu.stats(a, right), bleu.stats(b, right))).collect();
            bootstrap.compare_sums(&stats, |stats| bleu.score(stats).score)
        }
        kind => {
            let of = |said: &str, right: &Vec<String>| match kind {
                TaskKind::QuestionAnswering => Squad::of(said, right).exact_match(),
                TaskKind::Generation => Rouge::L.score(said, right).f1,
                _ => f64::from(right.iter().any(|right| right == said)),
            };
            let values: Vec<_> = pairs().map(|(a, b, right)| (Mean::from(of(a, right)), Mean::from(of(b, right)))).collect();
            bootstrap.compare_sums(&values, Mean::value)
        }
    }
}
