//! The report on a task as a page, of itself alone: scores, learning curve, confusion. Computes no score.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{NamedScore, TaskReport, number, score_names};

/// Rows that are shown of those that were answered worst.
const N_WORST: usize = 20;
/// Side of a cell of the confusion, in the picture's units.
const SIDE: usize = 64;

/// How the training went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Steps with the training loss, in nats.
    pub training: Vec<(u64, f64)>,
    /// Steps with the validation loss.
    pub validation: Vec<(u64, f64)>,
    /// What both say, in words.
    pub verdict: Option<String>,
}

/// The report as HTML, which needs nothing else to be shown.
pub fn page(run: &str, report: &TaskReport, course: &Course) -> String {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", include_str!("report/page.html")).expect("the page's template is one");
    let scores: Vec<Value> = score_names(&report.systems)
        .iter()
        .map(|name| {
            let cells: Vec<Cell> =
                report.systems.iter().map(|system| cell(system.scores.iter().find(|score| score.name == *name))).collect();
            json!({ "name": name, "cells": cells })
        })
        .collect();
    let comparisons: Vec<String> = report
        .systems
        .iter()
        .filter_map(|system| {
            let found = system.beaten_by?;
            let (low, high) = (number(found.interval.low), number(found.interval.high));
            Some(format!(
                "The model less {}: {} ({low} to {high} in paired resamples, p {:.3}).",
                system.system,
                number(found.difference),
                found.p_value
            ))
        })
        .collect();
    let groups: Vec<Value> = report
        .groups
        .iter()
        .map(|group| {
            let cells: Vec<Cell> = group.scores.iter().map(|score| cell(Some(score))).collect();
            json!({ "name": group.group, "n_rows": group.n_rows, "cells": cells })
        })
        .collect();
    let group_score = report.groups.first().and_then(|group| group.scores.first()).map(|score| score.name);
    let labels: Vec<Value> = report.classes.iter().flat_map(labels_of).collect();
    let confusion = report.classes.as_ref().map(|classes| {
        let names: Vec<&str> = classes.labels.iter().map(|label| label.label.as_str()).collect();
        confusion(&names, &classes.confusion)
    });
    let values = json!({
        "run": run, "report": report, "kind": report.kind.name(), "scores": scores, "comparisons": comparisons, "groups": groups,
        "group_score": group_score, "labels": labels,
        "curve": curve(course), "verdict": course.verdict, "confusion": confusion, "worst": report.worst(N_WORST),
    });
    let page = environment.get_template("page").and_then(|template| template.render(minijinja::Value::from(Serde(values))));
    page.expect("the template knows what it is given")
}

#[derive(Serialize)]
struct Cell {
    value: String,
    interval: Option<String>,
}

fn cell(score: Option<&NamedScore>) -> Cell {
    Cell {
        value: score.map_or_else(String::new, |score| number(score.value)),
        interval: score.and_then(|score| score.interval).map(|interval| format!("{} to {}", number(interval.low), number(interval.high))),
    }
}

fn labels_of(classes: &crate::ClassReport) -> Vec<Value> {
    let row = |name: &str, scores: &kindling_metrics::PrecisionRecallF1, n: u64| {
        let cells = [scores.precision, scores.recall, scores.f1].map(|share| format!("{share:.4}"));
        json!({ "name": name, "cells": [&cells[0], &cells[1], &cells[2], &n.to_string()] })
    };
    let n_rows = classes.labels.iter().map(|label| label.scores.support).sum();
    let labels = classes.labels.iter().map(|label| row(&label.label, &label.scores.scores, label.scores.support));
    let means = [("macro", &classes.macro_average), ("weighted", &classes.weighted), ("micro", &classes.micro)];
    labels.chain(means.map(|(name, scores)| row(name, scores, n_rows))).collect()
}

/// The curve's points, and lines at round losses.
fn curve(course: &Course) -> Option<Value> {
    let all = || course.training.iter().chain(&course.validation).filter(|(_, loss)| loss.is_finite());
    let (first, last) = (all().map(|(step, _)| *step).min()?, all().map(|(step, _)| *step).max()?);
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, loss)| (low.min(*loss), high.max(*loss)));
    let (width, height) = ((last - first).max(1) as f64, (high - low).max(1e-9));
    let y = |loss: f64| 10.0 + 210.0 * (high - loss) / height;
    let points = |of: &[(u64, f64)]| {
        let point = |(step, loss): &(u64, f64)| format!("{:.1},{:.1}", 50.0 + 580.0 * (step - first) as f64 / width, y(*loss));
        of.iter().filter(|(_, loss)| loss.is_finite()).map(point).collect::<Vec<_>>().join(" ")
    };
    let ticks: Vec<Value> = (0..5)
        .map(|i| {
            let loss = low + height * f64::from(i) / 4.0;
            json!({ "y": y(loss), "label": format!("{loss:.2}") })
        })
        .collect();
    Some(
        json!({ "training": points(&course.training), "validation": points(&course.validation), "ticks": ticks, "first": first, "last": last }),
    )
}

/// Places and darkness of the cells.
fn confusion(labels: &[&str], counts: &[Vec<u64>]) -> Value {
    let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).min(24);
    let left = 24 + 8 * longest;
    let short = |label: &str| label.trim().chars().take(24).collect::<String>();
    let mut cells = Vec::new();
    for (row, of_row) in counts.iter().enumerate() {
        let sum = of_row.iter().sum::<u64>().max(1) as f64;
        for (column, count) in of_row.iter().enumerate() {
            let title = format!("{count} of label {} taken for {}", labels[row].trim(), labels[column].trim());
            cells.push(json!({ "x": left + column * SIDE, "y": row * SIDE, "share": format!("{:.3}", 0.85 * *count as f64 / sum), "count": count, "title": title }));
        }
    }
    let names: Vec<Value> = labels
        .iter()
        .enumerate()
        .map(|(i, label)| json!({ "text": short(label), "at": i * SIDE + SIDE / 2, "at_x": left + i * SIDE + SIDE / 2 }))
        .collect();
    json!({ "cells": cells, "names": names, "side": SIDE, "left": left, "width": left + SIDE * labels.len() + 8, "height": SIDE * labels.len() + 24 })
}

#[cfg(test)]
mod tests {
    use kindling_config::TaskKind;
    use kindling_metrics::{Confusion, Interval};

    use super::*;
    use crate::{ClassReport, GroupScores, LabelScores, Prediction, SystemScores};

    fn report() -> TaskReport {
        let mut counted = Confusion::new(2);
        [(0, 0), (0, 1), (1, 1)].into_iter().for_each(|(truth, said)| counted.add(truth, said));
        let scores = counted.average(kindling_metrics::Average::Macro);
        let score = |value| NamedScore { name: "accuracy", value, interval: Some(Interval { low: 0.25, high: 0.75 }) };
        let system = |name: &str, value| SystemScores { system: name.into(), scores: vec![score(value)], beaten_by: None };
        TaskReport {
            task: "a <b> & c".into(),
            kind: TaskKind::Classification,
            n_rows: 3,
            n_bad: 0,
            n_truncated: 1,
            groups: vec![GroupScores { group: "so & so".into(), n_rows: 2, scores: vec![score(0.125), score(0.0)] }],
            systems: vec![system("model", 0.5), system("majority label", 0.25)],
            classes: Some(ClassReport {
                labels: (0..2).map(|i| LabelScores { label: format!("<{i}>"), scores: counted.class(i) }).collect(),
                macro_average: scores,
                weighted: scores,
                micro: scores,
                confusion: vec![vec![1, 1], vec![0, 1]],
            }),
            overlap: None,
            signatures: Vec::new(),
            predictions: vec![Prediction {
                place: "t.tsv, line 1".into(),
                prompt: "<script>alert(1)</script>".into(),
                target: "x".into(),
                references: Vec::new(),
                prediction: "y".into(),
                score: 0.0,
                probabilities: Vec::new(),
                is_truncated: false,
            }],
        }
    }

    #[test]
    fn the_page_has_everything_and_no_text_of_others_as_markup() {
        let course = Course {
            training: vec![(1, 3.0), (10, 1.0)],
            validation: vec![(5, 2.0), (10, f64::NAN)],
            verdict: Some("still improving".into()),
        };
        let page = page("run-1", &report(), &course);
        for expected in [
            "<title>a &lt;b&gt; &amp; c: run-1</title>",
            "&lt;script&gt;alert(1)&lt;&#x2f;script&gt;",
            "0.5000 <span class=\"dim\">0.2500 to 0.7500</span>",
            "points=\"50.0,10.0 630.0,220.0\"",
            "points=\"307.8,115.0\"",
            "still improving",
            "1 of label &lt;0&gt; taken for &lt;1&gt;",
            "1 with a prompt that lost its beginning",
            "so &amp; so",
            "0.1250 <span",
        ] {
            assert!(page.contains(expected), "{expected} in {page}");
        }
        assert!(!page.contains("<script") && !page.contains("http"), "nothing from outside");
        // Without a course there is no curve.
        assert!(!super::page("run-1", &report(), &Course::default()).contains("Learning curve"));
    }
}
