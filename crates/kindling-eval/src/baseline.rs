//! What a task is worth without a model: the likeliest label, counts of words, a copy. A model that is not better has learned nothing.

use std::collections::{HashMap, HashSet};

use kindling_config::{TaskConfig, TaskKind};
use kindling_data::{Templates, TestRow};

use crate::{Answer, Asked};

/// What baselines say to `rows`, with their names; those that learn learn from the rows in `training`.
pub fn baselines(task: &TaskConfig, training: &[TestRow], rows: &[TestRow], asked: &[Asked]) -> Vec<(&'static str, Vec<Answer>)> {
    let text = |text: String| Answer { text, probabilities: Vec::new(), log_likelihood: None, is_truncated: false };
    match task.kind {
        TaskKind::Classification if !training.is_empty() => {
            let bayes = NaiveBayes::new(task, training);
            let majority = bayes.majority();
            vec![
                ("majority label", rows.iter().map(|_| text(majority.clone())).collect()),
                ("naive Bayes on words", rows.iter().map(|row| bayes.answer(&row.prompt)).collect()),
            ]
        }
        TaskKind::SequenceToSequence => vec![("copy of the prompt", rows.iter().map(|row| text(copied(task, row))).collect())],
        TaskKind::QuestionAnswering if !training.is_empty() => {
            let known: HashSet<&str> = training.iter().map(|row| row.target.trim()).collect();
            let said = rows.iter().map(|row| text(last_mentioned(&row.prompt, &known).unwrap_or_default())).collect();
            vec![("last answer mentioned", said)]
        }
        TaskKind::MultipleChoice => {
            // The first of the longest.
            let longest =
                |asked: &Asked| asked.choices.iter().rev().max_by_key(|choice| choice.chars().count()).cloned().unwrap_or_default();
            vec![("longest choice", asked.iter().map(|asked| text(longest(asked))).collect())]
        }
        _ => Vec::new(),
    }
}

/// What is given, without what the template says about it where it is one field.
fn copied(task: &TaskConfig, row: &TestRow) -> String {
    let config = task.examples(false);
    let fields = Templates::new(&config).map(|templates| templates.prompt_fields()).unwrap_or_default();
    let only = fields.first().filter(|_| fields.len() == 1).and_then(|field| row.fields.get(field)?.as_str());
    only.unwrap_or(&row.prompt).trim().to_owned()
}

/// Multinomial naive Bayes on words (McCallum and Nigam 1998), one added to each count: a label's probability is in proportion to its share
/// of the rows times the product, over the words of the prompt that training knows, of (1 + count in the label) / (words of the label +
/// known words). Words are what stands between white space.
struct NaiveBayes<'a> {
    labels: &'a [String],
    /// Of each label, rows and words.
    n_rows: Vec<u64>,
    n_words: Vec<u64>,
    /// Of each word, how often it stands in rows of each label.
    counts: HashMap<&'a str, Vec<u64>>,
}

impl<'a> NaiveBayes<'a> {
    fn new(task: &'a TaskConfig, training: &'a [TestRow]) -> Self {
        let n = task.labels.len();
        let mut this = Self { labels: &task.labels, n_rows: vec![0; n], n_words: vec![0; n], counts: HashMap::new() };
        for row in training {
            let Some(label) = task.labels.iter().position(|label| *label == row.target) else { continue };
            this.n_rows[label] += 1;
            for word in row.prompt.split_whitespace() {
                this.n_words[label] += 1;
                this.counts.entry(word).or_insert_with(|| vec![0; n])[label] += 1;
            }
        }
        this
    }

    /// The label of most rows; of several the first.
    fn majority(&self) -> String {
        let best = (0..self.labels.len()).rev().max_by_key(|label| self.n_rows[*label]).unwrap_or_default();
        self.labels[best].clone()
    }

    fn answer(&self, prompt: &str) -> Answer {
        let all = self.n_rows.iter().sum::<u64>() as f64;
        let n_known = self.counts.len() as f64;
        let mut scores: Vec<f64> = self.n_rows.iter().map(|n| (*n as f64 / all).ln()).collect();
        for counts in prompt.split_whitespace().filter_map(|word| self.counts.get(word)) {
            for ((score, count), n_words) in scores.iter_mut().zip(counts).zip(&self.n_words) {
                *score += ((1 + count) as f64 / (*n_words as f64 + n_known)).ln();
            }
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let best = scores.iter().position(|score| *score == largest).unwrap_or_default();
        Answer {
            text: self.labels[best].clone(),
            probabilities: weights.into_iter().map(|weight| weight / sum).collect(),
            log_likelihood: None,
            is_truncated: false,
        }
    }
}

/// The known answer that stands last in a prompt, between other characters than letters and digits; of several that end there the longest.
fn last_mentioned(prompt: &str, known: &HashSet<&str>) -> Option<String> {
    let words_of = |text: &str| {
        let (mut words, mut start) = (Vec::new(), None);
        for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
            match (c.is_alphanumeric(), start) {
                (true, None) => start = Some(at),
                (false, Some(from)) => {
                    words.push((from, at));
                    start = None;
                }
                _ => {}
            }
        }
        words
    };
    let longest = known.iter().map(|answer| words_of(answer).len()).max()?;
    let words: Vec<(usize, usize)> = words_of(prompt);
    let ends_with = |last: usize| {
        (last.saturating_sub(longest.saturating_sub(1))..=last)
            .map(|first| &prompt[words[first].0..words[last].1])
            .find(|text| known.contains(text))
    };
    (0..words.len()).rev().find_map(ends_with).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(prompt: &str, target: &str) -> TestRow {
        TestRow { place: String::new(), fields: serde_json::Map::new(), prompt: prompt.into(), target: target.into() }
    }

    fn classification() -> TaskConfig {
        let text = "name = \"t\"\nkind = \"classification\"\nprompt = \"{{ text }}\"\ntarget = \"{{ label }}\"\nlabels = [\"bad\", \"good\"]\n\
                    [data]\ntrain = [\"t.jsonl\"]\n";
        TaskConfig::from_toml(text, "t.toml", std::path::Path::new("")).expect("a task")
    }

    #[test]
    fn naive_bayes_counts_words() {
        let task = classification();
        let training = [row("a fine day", "good"), row("a dull day", "bad"), row("fine fine", "good")];
        let bayes = NaiveBayes::new(&task, &training);
        assert_eq!(bayes.majority(), "good");
        // Four known words; three words of `bad`, five of `good`. `unknown` counts for neither.
        let found = bayes.answer("a fine unknown");
        let bad = 1.0 / 3.0 * (2.0 / 7.0) * (1.0 / 7.0);
        let good = 2.0 / 3.0 * (2.0 / 9.0) * (4.0 / 9.0);
        assert_eq!(found.text, "good");
        assert!(
            (found.probabilities[0] - bad / (bad + good)).abs() < 1e-12 && (found.probabilities[1] - good / (bad + good)).abs() < 1e-12
        );
        assert_eq!(bayes.answer("dull").text, "bad");
    }

    #[test]
    fn the_last_known_answer_is_found() {
        let known: HashSet<&str> = ["kitchen", "living room", "room"].into_iter().collect();
        let of = |prompt| last_mentioned(prompt, &known);
        assert_eq!(of("Mary went to the living room. Where is John?").as_deref(), Some("living room"));
        assert_eq!(of("the kitchen, then a room; then kitchens").as_deref(), Some("room"));
        assert_eq!(of("kitchen"), Some("kitchen".into()));
        assert_eq!(of("nothing"), None);
        assert_eq!(last_mentioned("kitchen", &HashSet::new()), None);
        let known: HashSet<&str> = ["O'Brien", "1,000"].into_iter().collect();
        assert_eq!(last_mentioned("O'Brien had 1,000 hats.", &known).as_deref(), Some("1,000"));
    }
}
