//! What a model says to the rows of a task: labels and choices by their likelihood, all else by beam search. Scores nothing.

use burn::tensor::Tensor;
use kindling_config::{DecodeConfig, TaskConfig, TaskKind};
use kindling_infer::{BeamOptions, beam_search, in_batches, prompt_ids, truncate};
use kindling_model::{Gpt, Pass};
use kindling_tokenizer::Tokenizer;

use crate::EvalError;

/// A model that does a task.
#[derive(Clone, Copy, Debug)]
pub struct Predictor<'a> {
    /// With a classification head, or without.
    pub model: &'a Gpt,
    /// The tokenizer that it was trained with.
    pub tokenizer: &'a Tokenizer,
    /// What is asked of it.
    pub task: &'a TaskConfig,
    /// Rows that are computed at once. Where rows have the same bits whatever stands beside them, as on flex, nothing depends on it.
    pub batch_size: usize,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The prompt.
    pub prompt: String,
    /// The choices that there are, for multiple choice.
    pub choices: Vec<String>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The label, the choice, or the text that was written.
    pub text: String,
    /// Of each label or choice, in their order; none where text was written.
    pub probabilities: Vec<f64>,
    /// Log-likelihood in nats of what was written.
    pub log_likelihood: Option<f64>,
    /// Whether the prompt lost its beginning, which did not fit the context.
    pub is_truncated: bool,
}

/// A prompt and what follows it, as the model sees them.
struct Continuation {
    /// All but the last token.
    ids: Vec<u32>,
    /// The tokens that are predicted: the last ones.
    targets: Vec<u32>,
}

impl Predictor<'_> {
    /// Answers in the order of what is asked. `progress` hears of rows done and rows in all.
    ///
    /// # Errors
    /// A text that the vocabulary cannot express, a model without what the task needs, logits that are not finite.
    pub fn answer(&self, asked: &[Asked], progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Answer>, EvalError> {
        let n_classes = self.model.config().n_classes;
        if n_classes > 0 && (self.task.kind != TaskKind::Classification || n_classes != self.task.labels.len()) {
            return Err(EvalError::Head { n_classes, task: self.task.name.clone(), n_labels: self.task.labels.len() });
        }
        match self.task.kind {
            TaskKind::Classification if n_classes > 0 => self.by_head(asked, progress),
            TaskKind::Classification => {
                let labels: Vec<&str> = self.task.labels.iter().map(String::as_str).collect();
                self.by_likelihood(asked, |_| labels.clone(), |_| 1.0, self.tokenizer.end_of_text(), progress)
            }
            TaskKind::MultipleChoice => {
                let choices = |asked: &'_ Asked| asked.choices.clone();
                self.by_likelihood(asked, choices, |choice| choice.trim().len().max(1) as f64, None, progress)
            }
            TaskKind::SequenceToSequence | TaskKind::QuestionAnswering | TaskKind::Generation => self.by_search(asked, progress),
        }
    }

    fn prompts(&self, asked: &[Asked]) -> Result<Vec<Vec<u32>>, EvalError> {
        Ok(asked.iter().map(|asked| prompt_ids(self.tokenizer, &asked.prompt)).collect::<Result<_, _>>()?)
    }

    /// The class whose output is the largest at the last token of the prompt.
    fn by_head(&self, asked: &[Asked], progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Answer>, EvalError> {
        let context_len = self.model.config().context_len;
        let mut prompts = self.prompts(asked)?;
        let truncated: Vec<bool> = prompts.iter_mut().map(|prompt| truncate(prompt, context_len)).collect();
        let n_labels = self.task.labels.len();
        let mut answers: Vec<Option<Answer>> = vec![None; asked.len()];
        in_batches(&prompts, self.batch_size, &self.model.device(), progress, &mut |batch, ids, places| {
            let logits: Vec<f32> = to_host(self.model.logits_at(ids, places));
            for (i, logits) in batch.iter().zip(logits.chunks(n_labels)) {
                let logits: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
                let probabilities = softmax(&logits).ok_or(EvalError::NotFinite)?;
                let text = self.task.labels[largest(&logits)].clone();
                answers[*i] = Some(Answer { text, probabilities, log_likelihood: None, is_truncated: truncated[*i] });
            }
            Ok::<_, EvalError>(())
        })?;
        Ok(answers.into_iter().map(|answer| answer.expect("each row is in a batch")).collect())
    }

    /// The likeliest of a few texts, by the log-likelihood of each, and of `end` behind it, divided by `length`.
    fn by_likelihood<T: AsRef<str>>(
        &self,
        asked: &[Asked],
        choices: impl Fn(&Asked) -> Vec<T>,
        length: impl Fn(&str) -> f64,
        end: Option<u32>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Answer>, EvalError> {
        let context_len = self.model.config().context_len;
        let mut continuations = Vec::new();
        let mut of_rows = Vec::with_capacity(asked.len());
        for (asked, prompt) in asked.iter().zip(self.prompts(asked)?) {
            let texts = choices(asked);
            let first = continuations.len();
            let mut is_truncated = false;
            for text in &texts {
                let targets: Vec<u32> = self.tokenizer.encode(text.as_ref())?.into_iter().chain(end).collect();
                if targets.is_empty() {
                    return Err(EvalError::NoEnd);
                }
                if targets.len() > context_len {
                    return Err(EvalError::LongChoice { text: text.as_ref().to_owned(), n_tokens: targets.len(), context_len });
                }
                let mut ids: Vec<u32> = prompt.iter().chain(&targets[..targets.len() - 1]).copied().collect();
                is_truncated |= truncate(&mut ids, context_len);
                continuations.push(Continuation { ids, targets });
            }
            of_rows.push((texts, first, is_truncated));
        }
        let log_likelihoods = self.log_likelihoods(&continuations, progress)?;
        let answer = |(texts, first, is_truncated): (Vec<T>, usize, bool)| {
            let lengths: Vec<f64> = texts.iter().map(|text| length(text.as_ref())).collect();
            let mean = lengths.iter().sum::<f64>() / lengths.len() as f64;
            // Per unit of length, and then as if all had the mean one.
            let scores: Vec<f64> = lengths.iter().zip(&log_likelihoods[first..]).map(|(length, nats)| nats / length * mean).collect();
            let probabilities = softmax(&scores).ok_or(EvalError::NotFinite)?;
            let best = largest(&scores);
            let (text, log_likelihood) = (texts[best].as_ref().to_owned(), Some(log_likelihoods[first + best]));
            Ok(Answer { text, probabilities, log_likelihood, is_truncated })
        };
        of_rows.into_iter().map(answer).collect()
    }

    /// Of the targets of each.
    fn log_likelihoods(&self, continuations: &[Continuation], progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<f64>, EvalError> {
        let rows: Vec<Vec<u32>> = continuations.iter().map(|continuation| continuation.ids.clone()).collect();
        let mut found = vec![0.0; rows.len()];
        in_batches(&rows, self.batch_size, &self.model.device(), progress, &mut |batch, ids, last| {
            let mut places = Vec::new();
            let mut targets = Vec::new();
            for (i, last) in batch.iter().zip(last) {
                let of_row = &continuations[*i].targets;
                places.extend(last + 1 - of_row.len()..=*last);
                targets.extend_from_slice(of_row);
            }
            let nats: Vec<f32> = to_host(self.model.score(ids, &places, &targets, &Pass::default()).0);
            let mut nats = nats.into_iter();
            for i in batch {
                found[*i] = -nats.by_ref().take(continuations[*i].targets.len()).map(f64::from).sum::<f64>();
            }
            Ok::<_, EvalError>(())
        })?;
        Ok(found)
    }

    /// What beam search finds.
    fn by_search(&self, asked: &[Asked], progress: &mut dyn FnMut(u64, u64)) -> Result<Vec<Answer>, EvalError> {
        let DecodeConfig { beam_size, length_penalty, max_new_tokens } = self.task.decode;
        let context_len = self.model.config().context_len;
        let end = self.tokenizer.end_of_text().ok_or(EvalError::NoEnd)?;
        if context_len < 2 {
            return Err(EvalError::ShortContext(context_len));
        }
        // What is written needs room, half of the context at most.
        let max_new_tokens = max_new_tokens.min(context_len.div_ceil(2));
        let mut prompts = self.prompts(asked)?;
        let truncated: Vec<bool> =
            prompts.iter_mut().map(|prompt| truncate(prompt, (context_len + 1 - max_new_tokens).min(context_len - 1))).collect();
        let options = BeamOptions { beam_size, length_penalty, max_new_tokens, batch_size: self.batch_size };
        let total = asked.len() as u64;
        let found = beam_search(self.model, &prompts, end, self.tokenizer.vocab_size(), &options, &mut |done| progress(done, total))?;
        let answer = |(hypotheses, is_truncated): (Vec<kindling_infer::Hypothesis>, bool)| {
            let best = hypotheses.into_iter().next().ok_or(EvalError::NotFinite)?;
            let text = String::from_utf8_lossy(&self.tokenizer.decode(&best.ids)?).into_owned();
            Ok(Answer { text, probabilities: Vec::new(), log_likelihood: Some(best.log_likelihood), is_truncated })
        };
        found.into_iter().zip(truncated).map(answer).collect()
    }
}

fn to_host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("converted to f32")
}

/// The first of the largest.
fn largest(values: &[f64]) -> usize {
    (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best }).unwrap_or(0)
}

/// e^value of each over their sum; none if a value is not finite.
fn softmax(values: &[f64]) -> Option<Vec<f64>> {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = values.iter().map(|value| (value - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    values.iter().all(|value| value.is_finite()).then(|| weights.into_iter().map(|weight| weight / sum).collect())
}
