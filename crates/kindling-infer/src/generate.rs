//! One text as an iterator, without an engine of one's own.

use std::collections::VecDeque;

use kindling_config::SamplingConfig;
use kindling_model::Gpt;
use kindling_tokenizer::Tokenizer;

use crate::engine::{Border, Engine, EngineLimits, Event, Request, StopReason};
use crate::{InferError, Sampling};

/// A text being generated: an iterator over pieces of valid UTF-8, in order. Its prompt is not repeated.
#[derive(Debug)]
pub struct Generation<'a> {
    engine: Engine<'a>,
    pieces: VecDeque<Result<String, InferError>>,
    n_new: usize,
    stop: Option<StopReason>,
    is_over: bool,
}

/// Continues `prompt`, which is taken as the beginning of a document.
///
/// Of a prompt longer than the context the end is seen. Past the context border the last half of a context is kept and
/// computed anew, so that a text can be of any length.
///
/// # Errors
/// A prompt that the vocabulary cannot express, or an empty one where no token begins a text.
pub fn generate<'a>(model: &'a Gpt, tokenizer: &'a Tokenizer, config: &SamplingConfig, seed: u64) -> Result<Generation<'a>, InferError> {
    let request = Request {
        prompt: prompt_ids(tokenizer, &config.prompt)?,
        sampling: Sampling::from(config),
        seed,
        max_new_tokens: config.max_new_tokens,
        border: Border::Slide,
        ..Request::default()
    };
    write(model, tokenizer, request)
}

/// Writes the text that a request asks for.
///
/// # Errors
/// As [`Request::check`].
pub fn write<'a>(model: &'a Gpt, tokenizer: &'a Tokenizer, request: Request) -> Result<Generation<'a>, InferError> {
    Generation::new(Engine::new(model, tokenizer, EngineLimits::alone()), request)
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

impl<'a> Generation<'a> {
    /// The text that a request asks for, by an engine that has no other.
    ///
    /// # Errors
    /// As [`Request::check`].
    pub fn new(mut engine: Engine<'a>, request: Request) -> Result<Self, InferError> {
        let is_over = request.max_new_tokens == 0;
        engine.add(request)?;
        Ok(Self { engine, pieces: VecDeque::new(), n_new: 0, stop: None, is_over })
    }

    /// Why it ended; `None` while it goes on. It may have ended with pieces that are still to come.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop
    }

    /// Tokens that were drawn so far.
    pub fn n_new(&self) -> usize {
        self.n_new
    }

    fn step(&mut self) {
        for (_, event) in self.engine.step() {
            match event {
                Event::Prompt(_) => {}
                Event::Token { text, .. } => {
                    self.n_new += 1;
                    self.pieces.push_back(Ok(text));
                }
                Event::Ended { text, reason } => {
                    (self.stop, self.is_over) = (Some(reason), true);
                    self.pieces.push_back(Ok(text));
                }
                Event::Failed(error) => {
                    self.is_over = true;
                    self.pieces.push_back(Err(error));
                }
            }
        }
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String, InferError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.pieces.is_empty() && !self.is_over {
            self.step();
        }
        self.pieces.pop_front()
    }
}
