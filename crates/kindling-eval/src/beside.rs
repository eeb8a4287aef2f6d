//! Several systems that did the same test, beside each other: each for itself, all as seeds of one recipe, and their average as one system.

use kindling_config::{TaskConfig, TaskKind};
use kindling_data::TestRow;
use kindling_metrics::Comparison;
use serde::Serialize;

use crate::{Answer, EvalError, SystemScores, Test, baselines, compare, score_names, scores};

/// What a system said to a test.
#[derive(Clone, Debug)]
pub struct Tested {
    /// What it is called.
    pub name: String,
    /// What was asked of it.
    pub task: TaskConfig,
    /// The rows, with its own prompts.
    pub test: Test,
    /// What it said to each.
    pub answers: Vec<Answer>,
}

/// Systems beside each other.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SideBySide {
    /// The task's name.
    pub task: String,
    /// Rows that were scored.
    pub n_rows: usize,
    /// The systems, the average of what they hold likely where they tell it, and baselines.
    pub systems: Vec<SystemScores>,
    /// Of each score, over the systems.
    pub means: Vec<MeanScore>,
    /// The first score of one system less that of another: the first system and all others, the average and baselines.
    pub differences: Vec<Difference>,
}

/// A score as systems have it that differ in their seed alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeanScore {
    /// What it is called.
    pub name: &'static str,
    /// Its mean.
    pub mean: f64,
    /// Of one system, from the systems: the root of the sum of squares over n − 1.
    pub standard_deviation: f64,
}

/// How one system differs from another on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The one.
    pub system: String,
    /// The other.
    pub less: String,
    /// The difference.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// Puts at least two systems beside each other, and baselines, which learn from the rows in `training` as the first system's task has them.
///
/// # Errors
/// Systems whose tasks are of another kind or have other labels, or that did not answer the same rows.
pub fn side_by_side(tested: &[Tested], training: &[TestRow]) -> Result<SideBySide, EvalError> {
    let Tested { task, test: Test { rows, questions, .. }, .. } = &tested[0];
    let asked_else = |other: &&Tested| (other.task.kind, &other.task.labels) != (task.kind, &task.labels);
    if let Some(other) = tested[1..].iter().find(asked_else) {
        return Err(EvalError::OtherTask { system: tested[0].name.clone(), other: other.name.clone() });
    }
    let is_same = |row: &TestRow, other: &TestRow| (&row.place, row.target.trim()) == (&other.place, other.target.trim());
    let others = |other: &&Tested| other.test.rows.len() != rows.len() || !rows.iter().zip(&other.test.rows).all(|(a, b)| is_same(a, b));
    if let Some(other) = tested[1..].iter().find(others) {
        return Err(EvalError::OtherRows { system: tested[0].name.clone(), other: other.name.clone() });
    }
    let n = tested.len();
    let mut systems: Vec<(String, Vec<Answer>)> = tested.iter().map(|one| (one.name.clone(), one.answers.clone())).collect();
    let averaged = average(task, &tested.iter().map(|one| one.answers.as_slice()).collect::<Vec<_>>());
    let averaged_at = averaged.is_some().then_some(n);
    systems.extend(averaged.map(|answers| (format!("average of {n}"), answers)));
    let baselines_at = systems.len();
    systems.extend(baselines(task, training, rows, questions).into_iter().map(|(name, answers)| (name.to_owned(), answers)));
    let firsts = (1..systems.len()).map(|other| (0, other));
    let averages = averaged_at.into_iter().flat_map(|average| (baselines_at..systems.len()).map(move |other| (average, other)));
    let difference = |(one, other): (usize, usize)| {
        let ((system, a), (less, b)) = (&systems[one], &systems[other]);
        Some(Difference { system: system.clone(), less: less.clone(), comparison: compare(task, rows, a, b)? })
    };
    let differences = firsts.chain(averages).filter_map(difference).collect();
    let systems: Vec<SystemScores> = systems.iter().map(|(name, answers)| scores(task, name, rows, answers).0).collect();
    Ok(SideBySide { task: task.name.clone(), n_rows: rows.len(), means: means(&systems[..n]), systems, differences })
}

/// What systems hold likely together, each counting the same: of each label the mean of its probabilities, and the label with the largest.
/// None where a system gives no probabilities of labels.
fn average(task: &TaskConfig, systems: &[&[Answer]]) -> Option<Vec<Answer>> {
    if task.kind != TaskKind::Classification {
        return None;
    }
    let of_row = |i: usize| {
        let mut sum = vec![0.0; task.labels.len()];
        for answers in systems {
            let of_one = &answers[i].probabilities;
            if of_one.len() != sum.len() {
                return None;
            }
            sum.iter_mut().zip(of_one).for_each(|(sum, one)| *sum += one / systems.len() as f64);
        }
        let best = (0..sum.len()).reduce(|best, i| if sum[i] > sum[best] { i } else { best })?;
        let is_truncated = systems.iter().any(|answers| answers[i].is_truncated);
        Some(Answer { text: task.labels[best].clone(), probabilities: sum, log_likelihood: None, is_truncated })
    };
    (0..systems[0].len()).map(of_row).collect()
}

fn means(systems: &[SystemScores]) -> Vec<MeanScore> {
    let of = |name: &'static str| {
        let value = |system: &SystemScores| system.scores.iter().find(|score| score.name == name).map(|score| score.value);
        let values: Vec<f64> = systems.iter().map(value).collect::<Option<_>>()?;
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(MeanScore { name, mean, standard_deviation: (squares / (n - 1.0)).sqrt() })
    };
    score_names(systems).into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::path::Path;

    use super::*;
    use crate::Asked;

    fn task() -> TaskConfig {
        let text = "name = \"x\"\nkind = \"classification\"\nprompt = \"{{ p }}\"\ntarget = \"{{ t }}\"\nlabels = [\"a\", \"b\"]\n\
                    [data]\ntest = [\"t\"]\n";
        TaskConfig::from_toml(text, "task.toml", Path::new("")).unwrap()
    }

    fn tested(name: &str, targets: &str, of_a: &[f64]) -> Tested {
        let row = |(i, target): (usize, char)| TestRow {
            place: format!("line {i}"),
            fields: serde_json::Map::new(),
            prompt: String::new(),
            target: target.to_string(),
        };
        let rows: Vec<TestRow> = targets.chars().enumerate().map(row).collect();
        let test = Test { questions: vec![Asked::default(); rows.len()], rows, n_bad: 0 };
        let answer = |a: &f64| {
            let text = if *a >= 0.5 { "a" } else { "b" }.to_owned();
            Answer { text, probabilities: vec![*a, 1.0 - a], log_likelihood: None, is_truncated: false }
        };
        Tested { name: name.into(), task: task(), test, answers: of_a.iter().map(answer).collect() }
    }

    #[test]
    fn an_average_may_be_better_than_each() {
        let one = tested("one", "aabb", &[0.9, 0.4, 0.2, 0.1]);
        let two = tested("two", "aabb", &[0.4, 0.9, 0.2, 0.1]);
        let found = side_by_side(&[one, two], &[]).unwrap();
        let of = |i: usize| (found.systems[i].system.as_str(), found.systems[i].scores[0].value);
        assert_eq!([of(0), of(1), of(2)], [("one", 0.75), ("two", 0.75), ("average of 2", 1.0)]);
        assert_eq!((found.means[0].name, found.means[0].mean, found.means[0].standard_deviation), ("accuracy", 0.75, 0.0));
        let named: Vec<_> =
            found.differences.iter().map(|one| (one.system.as_str(), one.less.as_str(), one.comparison.difference)).collect();
        assert_eq!(named, [("one", "two", 0.0), ("one", "average of 2", -0.25)]);
    }

    #[test]
    fn the_mean_is_of_the_systems_alone() {
        let training = tested("", "aaab", &[0.0; 4]).test.rows;
        let systems = [tested("one", "aabb", &[0.9, 0.9, 0.2, 0.1]), tested("two", "aabb", &[0.9, 0.1, 0.9, 0.1])];
        let found = side_by_side(&systems, &training).unwrap();
        assert_eq!((found.means[0].mean, found.means[0].standard_deviation), (0.75, 0.125f64.sqrt()));
        let systems: Vec<_> = found.systems.iter().map(|one| one.system.as_str()).collect();
        assert_eq!(systems, ["one", "two", "average of 2", "majority label", "naive Bayes on words"]);
        let pairs: Vec<_> = found.differences.iter().map(|one| (one.system.as_str(), one.less.as_str())).collect();
        assert_eq!(pairs[4..], [("average of 2", "majority label"), ("average of 2", "naive Bayes on words")]);
    }

    #[test]
    fn other_rows_and_other_labels_are_refused() {
        let one = || tested("one", "ab", &[0.9, 0.1]);
        let error = side_by_side(&[one(), tested("two", "aa", &[0.9, 0.1])], &[]).unwrap_err();
        assert_eq!(error.to_string(), "`one` and `two` were not asked the same rows");
        let turned = TaskConfig { labels: vec!["b".into(), "a".into()], ..task() };
        let error = side_by_side(&[one(), Tested { task: turned, name: "two".into(), ..one() }], &[]).unwrap_err();
        assert_eq!(error.to_string(), "`one` and `two` have tasks of another kind, or with other labels or in another order");
    }
}
