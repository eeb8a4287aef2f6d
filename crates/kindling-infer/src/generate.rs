//! Streaming generation of one text with a KV cache. Does not batch requests.

use kindling_config::SamplingConfig;
use kindling_model::{Gpt, KvCache, Sequence};
use kindling_tokenizer::{StreamDecoder, Tokenizer};

use crate::{InferError, Sampler};

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model drew the end-of-text token.
    EndOfText,
    /// It drew as many tokens as it was allowed.
    MaxNewTokens,
}

/// A text being generated: an iterator over pieces of valid UTF-8, in order. Its prompt is not repeated.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a Gpt,
    tokenizer: &'a Tokenizer,
    sampler: Sampler,
    decoder: StreamDecoder<'a>,
    cache: KvCache,
    sequence: Sequence,
    /// Every token so far, the prompt's included.
    ids: Vec<u32>,
    /// Tokens that the cache has not seen yet: the last of `ids`.
    n_pending: usize,
    n_left: usize,
    n_new: usize,
    stop: Option<StopReason>,
}

/// Continues `prompt`, which is taken as the beginning of a document.
///
/// Of a prompt longer than the context the end is seen. Past the context border the last half of a context is kept and
/// computed anew, so that a text can be of any length.
///
/// # Errors
/// A prompt that the vocabulary cannot express, or an empty one where no token begins a text.
pub fn generate<'a>(model: &'a Gpt, tokenizer: &'a Tokenizer, config: &SamplingConfig, seed: u64) -> Result<Generation<'a>, InferError> {
    let ids = prompt_ids(tokenizer, &config.prompt)?;
    // Behind the prompt, so that what a token looks like after another one is right for the first new one too.
    let mut decoder = tokenizer.stream_decoder();
    for id in ids.iter().filter(|id| Some(**id) != tokenizer.end_of_text()) {
        decoder.push(*id)?;
    }
    Ok(Generation {
        model,
        tokenizer,
        sampler: Sampler::new(config, seed),
        decoder,
        cache: model.cache(),
        sequence: Sequence::default(),
        n_pending: ids.len(),
        ids,
        n_left: config.max_new_tokens,
        n_new: 0,
        stop: None,
    })
}

/// The ids that a prompt begins a text with: the end-of-text token first, where the vocabulary has one.
///
/// # Errors
/// A prompt that the vocabulary cannot express, or an empty one where no token begins a text.
pub fn prompt_ids(tokenizer: &Tokenizer, prompt: &str) -> Result<Vec<u32>, InferError> {
    let mut ids: Vec<u32> = tokenizer.end_of_text().into_iter().collect();
    ids.extend(tokenizer.encode(prompt).map_err(InferError::Prompt)?);
    if ids.is_empty() { Err(InferError::EmptyPrompt) } else { Ok(ids) }
}

impl Generation<'_> {
    /// Why it ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop
    }

    /// Tokens drawn so far.
    pub fn n_new(&self) -> usize {
        self.n_new
    }

    /// Draws the next token and feeds it to the decoder.
    fn step(&mut self) -> Result<String, InferError> {
        let context_len = self.model.config().context_len;
        if self.sequence.len() + self.n_pending > context_len {
            // Of a long prompt as much as fits; later half, so that not every token starts anew.
            let most = if self.n_new == 0 { context_len } else { (context_len / 2).max(1) };
            self.n_pending = self.ids.len().min(most);
            self.sequence = Sequence::default();
        }
        let pending = &self.ids[self.ids.len() - self.n_pending..];
        let logits = self.model.forward_cached(&mut [(&mut self.sequence, pending)], &mut self.cache);
        let logits: Vec<f32> = logits.into_data().convert::<f32>().try_into_vec().expect("converted to f32");
        // A vocabulary padded beyond the tokenizer's has ids without text.
        let logits = &logits[..self.tokenizer.vocab_size().min(logits.len())];
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(InferError::NotFinite(self.ids.len()));
        }
        let id = self.sampler.sample(logits);
        self.n_new += 1;
        self.n_left -= 1;
        if self.tokenizer.end_of_text() == Some(id) {
            self.stop = Some(StopReason::EndOfText);
            return Ok(self.decoder.finish());
        }
        self.ids.push(id);
        self.n_pending = 1;
        let mut text = self.decoder.push(id)?;
        if self.n_left == 0 {
            self.stop = Some(StopReason::MaxNewTokens);
            text += &self.decoder.finish();
        }
        Ok(text)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String, InferError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stop.is_some() || self.n_left == 0 {
            return None;
        }
        let result = self.step();
        if result.is_err() {
            self.n_left = 0;
        }
        Some(result)
    }
}
