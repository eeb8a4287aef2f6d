//! Loss over a sequence of tokens in non-overlapping windows, every token but the first predicted once.

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_data::{Batch, DataError, PackedRows, Prepared, encode_document, n_windows, windows};
use kindling_infer::InferError;
use kindling_metrics::{Nll, TOP_K};
use kindling_model::{Gpt, Pass};
use kindling_tokenizer::{Tokenizer, TokenizerError};
use thiserror::Error;

/// A text that cannot be scored.
#[derive(Debug, Error)]
pub enum EvalError {
    /// The tokenizer refuses the text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Nothing to predict.
    #[error("the text has {found} tokens, expected at least 2: one to look at and one to predict")]
    TooShort {
        /// Tokens in the text, a leading end-of-text token included.
        found: usize,
    },
    /// A prompt that cannot be encoded, or logits that are not finite.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// Rows that cannot be read, or none.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A row that asks nothing that can be answered.
    #[error("{place}: {message}")]
    Row {
        /// The file and the line.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A context that has no room for an answer.
    #[error("the model's context is of {0} token, expected at least 2: one of a prompt, and one of an answer")]
    ShortContext(usize),
    /// Systems that are put beside each other and whose tasks are not alike.
    #[error("`{system}` and `{other}` have tasks of another kind, or with other labels or in another order")]
    OtherTask {
        /// The one.
        system: String,
        /// The other.
        other: String,
    },
    /// Systems that are put beside each other and were tested with different rows.
    #[error("`{system}` and `{other}` were not asked the same rows")]
    OtherRows {
        /// The one.
        system: String,
        /// The other.
        other: String,
    },
    /// A model whose head is not the one that a task needs.
    #[error("the model has a head over {n_classes} classes, and the task `{task}` {}", needed(*n_labels))]
    Head {
        /// Outputs of the head.
        n_classes: usize,
        /// The task's name.
        task: String,
        /// Its labels.
        n_labels: usize,
    },
    /// A label or choice that does not fit the context.
    #[error("`{text}` has {n_tokens} tokens, expected at most the context's {context_len}")]
    LongChoice {
        /// The text.
        text: String,
        /// Its tokens, the end included.
        n_tokens: usize,
        /// Tokens that the model sees.
        context_len: usize,
    },
    /// Texts without an end.
    #[error("the tokenizer has no end-of-text token, which says where an answer ends")]
    NoEnd,
    /// The model gives numbers that are none.
    #[error("the model's logits are not finite")]
    NotFinite,
}

fn needed(n_labels: usize) -> String {
    if n_labels == 0 { "is answered with text".to_owned() } else { format!("has {n_labels} labels") }
}

impl EvalError {
    /// Advice that goes beside the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Tokenizer(error) => error.hint(),
            Self::TooShort { .. } => Some("pass a longer text".into()),
            Self::Infer(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Row { .. } => Some("correct the row, or pass `--skip-bad` to leave such rows out".into()),
            Self::ShortContext(_) => Some("use a run with a longer `model.context_len`".into()),
            Self::OtherTask { .. } | Self::OtherRows { .. } => {
                Some("pass runs of tasks with the same test, or one `--task` for all".into())
            }
            Self::Head { .. } => Some("use a run that was trained on this task, or without `--head`".into()),
            Self::LongChoice { .. } => Some("take a base with a longer context, or shorter labels and choices".into()),
            Self::NoEnd => Some("take a run whose tokenizer has `<|endoftext|>`, such as one of kind `bpe`".into()),
            Self::NotFinite => Some("the weights hold NaN or infinite values; train anew with a lower `train.lr`".into()),
        }
    }
}

/// What a model thought of some text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Over all predicted tokens.
    pub nll: Nll,
    /// Standard error of the mean loss as an estimate for all text of the kind, nats a token: windows are taken as drawn
    /// independently, for tokens that follow each other are not (a ratio of means; Cochran, *Sampling Techniques*, 6.4). None for one window.
    pub standard_error: Option<f64>,
}

/// Tokens computed at once: enough to keep every core busy, little enough for logits over a large vocabulary.
const TOKENS_AT_ONCE: usize = 4096;

/// The whole validation split, as one sequence; with a `document_token` no token sees a document before its own. Of examples, what is
/// learned of each. `progress` hears of windows done and windows in all.
pub fn validate(model: &Gpt, data: &Prepared, document_token: Option<u32>, progress: &mut dyn FnMut(u64, u64)) -> Score {
    let split = &data.validation;
    if data.manifest.examples {
        let context_len = model.config().context_len;
        let rows = PackedRows::new(split, 0..split.n_tokens(), context_len);
        return score_batches(model, &data.tokenizer, rows.n_rows(), rows.batches(split, rows_at_once(context_len)), progress);
    }
    score_tokens(model, &data.tokenizer, split.n_tokens(), document_token, |start, end| split.read(start, end), progress)
}

/// A text as one document: where the vocabulary has an end-of-text token, the first token is predicted from it.
///
/// # Errors
/// A text that the vocabulary cannot express, or that is too short.
pub fn score_text(model: &Gpt, tokenizer: &Tokenizer, text: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Score, EvalError> {
    let ids = encode_document(tokenizer, text, true)?;
    if ids.len() < 2 {
        return Err(EvalError::TooShort { found: ids.len() });
    }
    let read = |start: u64, end: u64| ids[start as usize..end as usize].to_vec();
    // There is one document, so nothing to tell apart.
    Ok(score_tokens(model, tokenizer, ids.len() as u64, None, read, progress))
}

/// `n_tokens` tokens in windows of the model's context. Sums are taken on the host in f64, so that they do not depend
/// on how many windows are computed at once. With a `document_token`, a document begins at each such token, and its tokens see
/// none before it.
///
/// Bytes are those of the predicted tokens that stand for text, which for a lossless tokenizer are the text's own.
pub fn score_tokens(
    model: &Gpt,
    tokenizer: &Tokenizer,
    n_tokens: u64,
    document_token: Option<u32>,
    read: impl Fn(u64, u64) -> Vec<u32>,
    progress: &mut dyn FnMut(u64, u64),
) -> Score {
    let context_len = model.config().context_len;
    let batches = windows(n_tokens, context_len, rows_at_once(context_len), document_token, read);
    score_batches(model, tokenizer, n_windows(n_tokens, context_len), batches, progress)
}

/// What counts of batches that have `total` rows.
pub fn score_batches(
    model: &Gpt,
    tokenizer: &Tokenizer,
    total: u64,
    batches: impl Iterator<Item = Batch>,
    progress: &mut dyn FnMut(u64, u64),
) -> Score {
    let (device, mut done) = (model.device(), 0);
    // Nats and tokens of each.
    let mut windows_of: Vec<(f64, f64)> = Vec::new();
    // A class stands for no bytes.
    let has_bytes = tokenizer.is_lossless() && model.config().n_classes == 0;
    let mut sum = Nll { bytes: has_bytes.then_some(0), characters: has_bytes.then_some(0), ..Nll::default() };
    for batch in batches {
        let pass = Pass {
            document_starts: batch.document_starts.as_deref().map(Into::into),
            restart_positions: batch.restart_positions,
            ..Pass::default()
        };
        let places: Vec<usize> = (0..batch.targets.len()).filter(|place| batch.weights[*place] > 0.0).collect();
        let targets: Vec<u32> = places.iter().map(|place| batch.targets[*place]).collect();
        let (nats, ranks) = model.score(to_tensor(&batch, &batch.ids, &device), &places, &targets, &pass);
        let nats: Vec<f32> = nats.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        let ranks: Vec<i64> = ranks.into_data().convert::<i64>().try_into_vec().expect("converted to i64");
        let mut rows = vec![(0.0, 0.0); batch.n_rows];
        for (place, nats) in places.iter().zip(&nats) {
            let (sum, n) = &mut rows[place / batch.row_len];
            *sum += f64::from(*nats);
            *n += 1.0;
        }
        windows_of.extend(rows);
        for (i, target) in targets.iter().enumerate() {
            let is_text = !tokenizer.is_special(*target);
            let bytes = if is_text { tokenizer.token_bytes(*target).unwrap_or_default() } else { &[] };
            // Each character begins with one byte that continues none.
            let characters = bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count();
            sum += Nll {
                nats: f64::from(nats[i]),
                tokens: 1,
                text_nats: if is_text { f64::from(nats[i]) } else { 0.0 },
                bytes: Some(bytes.len() as u64),
                characters: Some(characters as u64),
                correct: u64::from(ranks[i] == 0),
                in_top_k: u64::from(ranks[i] < TOP_K as i64),
            };
        }
        done += batch.n_rows as u64;
        progress(done, total);
    }
    let n = windows_of.len() as f64;
    let squares: f64 = windows_of.iter().map(|(nats, tokens)| (nats - sum.loss() * tokens).powi(2)).sum();
    Score { nll: sum, standard_error: (n > 1.0).then(|| (squares * n / (n - 1.0)).sqrt() / sum.tokens as f64) }
}

fn rows_at_once(context_len: usize) -> usize {
    (TOKENS_AT_ONCE / context_len).max(1)
}

fn to_tensor(batch: &Batch, values: &[u32], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = values.iter().map(|id| i64::from(*id)).collect();
    Tensor::from_data(TensorData::new(values, [batch.n_rows, batch.row_len]), device)
}
