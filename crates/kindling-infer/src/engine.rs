//! Many texts at once over one model: requests come and go, and each step computes what all of them need. Speaks no protocol.
//!
//! In a step each text that is being written gets its next token, and prompts are read, together at most so many tokens at a time that texts
//! do not wait long (chunked prefill; Agrawal et al. 2023). A prompt that begins as one that has been read is not read again. On flex what a
//! request gets has the same bits whatever else is computed.

use std::collections::VecDeque;

use kindling_model::{Gpt, KvCache, Sequence};
use kindling_tokenizer::{StreamDecoder, Tokenizer};
use rayon::prelude::*;

use crate::draft::{Draft, Proposed};
use crate::stop::StopText;
use crate::{Constraint, Distribution, InferError, Sampler, Sampling};

/// What is asked of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The ids that the text begins with.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What the draws follow from.
    pub seed: u64,
    /// New tokens at most.
    pub max_new_tokens: usize,
    /// Texts at which it ends; what is told of it ends before them.
    pub stop: Vec<String>,
    /// Tokens at which it ends, beside the end-of-text token.
    pub stop_tokens: Vec<u32>,
    /// It goes on behind the end-of-text token, which is a token like others.
    pub ignore_end: bool,
    /// How many of the likeliest tokens are told with each; none tells of no likelihood.
    pub n_likeliest: Option<usize>,
    /// The likelihoods of the prompt's tokens are told too.
    pub score_prompt: bool,
    /// What happens at the border of the context.
    pub border: Border,
    /// What the text may be; it ends where nothing can follow.
    pub constraint: Option<Constraint>,
}

impl Request {
    /// Whether a model with this context and vocabulary can take it.
    ///
    /// # Errors
    /// An empty prompt; one that with a token more does not fit a context that is not to slide; tokens that there are not.
    pub fn check(&self, context_len: usize, vocab_size: usize) -> Result<(), InferError> {
        let n = self.prompt.len();
        // A text that is only looked at may fill the context.
        let n_needed = n + usize::from(self.max_new_tokens > 0);
        match self.prompt.iter().find(|id| **id as usize >= vocab_size) {
            _ if n == 0 => Err(InferError::EmptyPrompt),
            Some(id) => Err(InferError::NoToken { id: *id, vocab_size }),
            None if self.border == Border::Stop && n_needed > context_len => Err(InferError::LongPrompt { found: n, context_len }),
            None => Ok(()),
        }
    }
}

/// What happens when the context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Border {
    /// The text ends.
    #[default]
    Stop,
    /// The last half of a context is kept and computed anew, so that a text can be of any length. Of a prompt that is longer than a context
    /// the end is seen.
    Slide,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model drew the end-of-text token, or a token at which it was to end.
    EndOfText,
    /// A text at which it was to end has come.
    StopText,
    /// It has as many tokens as it was allowed.
    MaxNewTokens,
    /// The context is full.
    Context,
}

/// Which request; counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// How likely a token is by the model's own distribution, before anything that a request asks of the drawing.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScore {
    /// The token.
    pub id: u32,
    /// ln of its probability; none of the first token of a prompt, which nothing foretells.
    pub log_probability: Option<f64>,
    /// The likeliest tokens in its place with theirs, the likeliest first.
    pub likeliest: Vec<(u32, f64)>,
}

/// What has happened to a request.
#[derive(Debug)]
pub enum Event {
    /// Tokens of the prompt have been read, with their likelihoods; only where these are asked for.
    Prompt(Vec<TokenScore>),
    /// A token was drawn. Its text may come later, as far as it is half a character or could be part of a stop text.
    Token {
        /// Text that has become certain.
        text: String,
        /// The token; with its likelihood where that is asked for.
        score: TokenScore,
    },
    /// The text has ended, with what was held back of it.
    Ended {
        /// The last of the text.
        text: String,
        /// Why.
        reason: StopReason,
    },
    /// It cannot go on.
    Failed(InferError),
}

/// How much is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Requests that are worked on; others wait.
    pub n_running: usize,
    /// Tokens that one step computes at most; of each text that is being written one in any case, and what a smaller model proposes.
    pub n_tokens_a_step: usize,
    /// Tokens of prompts that have been read that are kept for other requests.
    pub n_tokens_kept: usize,
}

impl Default for EngineLimits {
    fn default() -> Self {
        Self { n_running: 16, n_tokens_a_step: 512, n_tokens_kept: 4096 }
    }
}

impl EngineLimits {
    /// For one text at a time, after which nothing is kept.
    pub fn alone() -> Self {
        Self { n_running: 1, n_tokens_a_step: usize::MAX, n_tokens_kept: 0 }
    }
}

/// A model at work.
#[derive(Debug)]
pub struct Engine<'a> {
    model: &'a Gpt,
    tokenizer: &'a Tokenizer,
    limits: EngineLimits,
    cache: KvCache,
    draft: Option<Draft<'a>>,
    running: Vec<Running<'a>>,
    waiting: VecDeque<Running<'a>>,
    /// Texts that have been read, the last first.
    kept: VecDeque<(Vec<u32>, Sequence)>,
    n_requests: u64,
}

/// A request as far as it has come.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    id: RequestId,
    pub(crate) request: Request,
    /// Every token, those of the prompt first.
    pub(crate) ids: Vec<u32>,
    /// The first token that the model sees.
    pub(crate) from: usize,
    /// What it has seen from there on.
    sequence: Sequence,
    /// What the smaller model has seen from there on.
    pub(crate) drafted: Sequence,
    /// Whether the last token was drawn from what the model has seen, so that the next step may try more: not before the first, which may come
    /// sooner or later by what others do.
    pub(crate) is_writing: bool,
    pub(crate) sampler: Sampler,
    decoder: StreamDecoder<'a>,
    stop: StopText,
}

impl Running<'_> {
    /// New tokens so far.
    pub(crate) fn n_new(&self) -> usize {
        self.ids.len() - self.request.prompt.len()
    }

    /// Tokens that the model has not seen.
    pub(crate) fn pending(&self) -> &[u32] {
        &self.ids[self.from + self.sequence.len()..]
    }
}

impl<'a> Engine<'a> {
    /// An engine without requests.
    pub fn new(model: &'a Gpt, tokenizer: &'a Tokenizer, limits: EngineLimits) -> Self {
        let (running, waiting, kept) = (Vec::new(), VecDeque::new(), VecDeque::new());
        Self { model, tokenizer, limits, cache: model.cache(), draft: None, running, waiting, kept, n_requests: 0 }
    }

    /// The same with a smaller model of the same tokens that proposes `n_tokens` at a time. Texts are distributed as without it, and those of
    /// temperature 0 are the same.
    ///
    /// # Errors
    /// A model that does not know all tokens.
    pub fn with_draft(self, model: &'a Gpt, n_tokens: usize) -> Result<Self, InferError> {
        let (found, expected) = (model.config().vocab_size, self.tokenizer.vocab_size());
        if found < expected {
            return Err(InferError::Vocabulary { tokenizer: expected, model: found });
        }
        Ok(Self { draft: Some(Draft::new(model, n_tokens)), ..self })
    }

    /// Tokens that the smaller model has proposed, and those of them that were kept.
    pub fn n_proposed(&self) -> (u64, u64) {
        self.draft.as_ref().map_or((0, 0), |draft| (draft.n_proposed, draft.n_kept))
    }

    /// Takes a request. It begins when there is room.
    ///
    /// # Errors
    /// As [`Request::check`].
    pub fn add(&mut self, request: Request) -> Result<RequestId, InferError> {
        request.check(self.model.config().context_len, self.tokenizer.vocab_size())?;
        // Behind the prompt, so that what a token looks like after another one is right for the first new one too.
        let mut decoder = self.tokenizer.stream_decoder();
        let said: Vec<u32> = request.prompt.iter().copied().filter(|id| Some(*id) != self.tokenizer.end_of_text()).collect();
        for id in &said {
            decoder.push(*id)?;
        }
        let id = RequestId(self.n_requests);
        self.n_requests += 1;
        self.waiting.push_back(Running {
            id,
            ids: request.prompt.clone(),
            from: 0,
            sequence: Sequence::default(),
            drafted: Sequence::default(),
            is_writing: false,
            // The token that begins a text is also the one that ends it, and is not the rarer for that.
            sampler: Sampler::new(request.sampling.clone(), &said, request.seed),
            decoder,
            stop: StopText::new(request.stop.iter().cloned()),
            request,
        });
        Ok(id)
    }

    /// Forgets a request. Nothing is told of it any more.
    pub fn cancel(&mut self, id: RequestId) {
        self.waiting.retain(|waiting| waiting.id != id);
        self.running.retain(|running| running.id != id);
    }

    /// Requests that are worked on, and that wait.
    pub fn n_requests(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Tokens whose keys and values are held, of requests and of what has been read.
    pub fn n_tokens_held(&self) -> usize {
        self.cache.n_used()
    }

    /// Computes what all requests need next, and tells what has come of it, in the order in which they came. Without requests nothing happens.
    pub fn step(&mut self) -> Vec<(RequestId, Event)> {
        let mut events = Vec::new();
        self.admit();
        self.slide(&mut events);
        let chunks = self.chunks();
        if chunks.is_empty() {
            return events;
        }
        let proposed = self.propose();
        let proposed_for = |row: usize| proposed.get(row).map_or(&[][..], Vec::as_slice);
        // Places of what is computed whose likelihoods are wanted: of each row the last, if it has come to its end, or all.
        let (mut places, mut of_rows, mut n) = (Vec::new(), Vec::new(), 0);
        for (row, chunk) in &chunks {
            let running = &self.running[*row];
            let is_whole = *chunk == running.pending().len();
            let (first, n_proposed) = (places.len(), proposed_for(*row).len());
            if running.request.score_prompt && running.n_new() == 0 {
                places.extend(n..n + chunk);
            } else if is_whole {
                places.extend(n + chunk - 1..n + chunk + n_proposed);
            }
            of_rows.push((*row, *chunk, is_whole, first..places.len()));
            n += chunk + n_proposed;
        }
        let logits = self.compute(&chunks, &proposed, &places);
        let v = self.model.config().vocab_size;
        // A vocabulary padded beyond the tokenizer's has ids without text.
        let n_ids = self.tokenizer.vocab_size().min(v);
        let logits: Vec<&[f32]> = logits.chunks(v).map(|logits| &logits[..n_ids]).collect();
        let (mut ended, mut failed) = (Vec::new(), Vec::new());
        for (row, chunk, is_whole, places) in of_rows {
            let running = &mut self.running[row];
            let id = running.id;
            // What follows proposals is looked at as far as they are kept.
            let certain = places.start..places.end - proposed_for(row).len();
            if logits[certain].iter().any(|logits| !is_finite(logits)) {
                events.push((id, Event::Failed(InferError::NotFinite(running.ids.len()))));
                failed.push(row);
                continue;
            }
            if running.request.score_prompt && running.n_new() == 0 {
                events.push((id, Event::Prompt(prompt_scores(running, chunk, &logits[places.clone()]))));
            }
            if !is_whole {
                continue;
            }
            let proposals = proposed_for(row);
            let places = places.end - 1 - proposals.len()..places.end;
            let drawn = running.draw(&logits[places], proposals, self.tokenizer);
            match drawn {
                Ok((found, n_kept)) => {
                    if let Some(draft) = &mut self.draft {
                        draft.n_kept += n_kept;
                    }
                    let has_ended = found.iter().any(|event| matches!(event, Event::Ended { .. }));
                    events.extend(found.into_iter().map(|event| (id, event)));
                    ended.extend(has_ended.then_some(row));
                }
                Err(error) => {
                    events.push((id, Event::Failed(error)));
                    failed.push(row);
                }
            }
        }
        for row in (0..self.running.len()).rev() {
            if ended.contains(&row) {
                let ended = self.running.remove(row);
                self.keep(ended);
            } else if failed.contains(&row) {
                self.running.remove(row);
            }
        }
        events
    }

    /// Lets requests begin where there is room. One that begins as another that is still being read waits for that.
    fn admit(&mut self) {
        let context_len = self.model.config().context_len;
        while self.running.len() < self.limits.n_running {
            let Some(next) = self.waiting.front() else { break };
            let is_read_now = |other: &Running<'_>| {
                let seen = other.sequence.len();
                other.from == 0
                    && other.n_new() == 0
                    && seen < other.ids.len()
                    && shared_len(&other.ids, &next.ids) > seen + context_len / 16
            };
            if !next.request.score_prompt && self.running.iter().any(is_read_now) {
                break;
            }
            let Some(mut next) = self.waiting.pop_front() else { break };
            // The last token is computed in any case: what comes behind it is asked for.
            let most = if next.request.score_prompt || next.ids.len() > context_len { 0 } else { next.ids.len() - 1 };
            let running = self.running.iter().filter(|other| other.from == 0).map(|other| (&other.ids, &other.sequence));
            let known = running.chain(self.kept.iter().map(|(ids, sequence)| (ids, sequence)));
            let best =
                known.map(|(ids, sequence)| (shared_len(ids, &next.ids).min(sequence.len()).min(most), sequence)).max_by_key(|(n, _)| *n);
            if let Some((n, sequence)) = best.filter(|(n, _)| *n > 0) {
                next.sequence = sequence.clone();
                next.sequence.truncate(n);
            }
            self.running.push(next);
        }
    }

    /// What happens to those whose context is full.
    fn slide(&mut self, events: &mut Vec<(RequestId, Event)>) {
        let context_len = self.model.config().context_len;
        let mut ended = Vec::new();
        for (row, running) in self.running.iter_mut().enumerate() {
            if running.ids.len() - running.from <= context_len {
                continue;
            }
            match running.request.border {
                Border::Stop => {
                    let text = running.finish();
                    events.push((running.id, Event::Ended { text, reason: StopReason::Context }));
                    ended.push(row);
                }
                Border::Slide => {
                    // Of a long prompt as much as fits; later half, so that not every token starts anew.
                    let most = if running.n_new() == 0 { context_len } else { (context_len / 2).max(1) };
                    running.from = running.ids.len() - most.min(running.ids.len());
                    running.sequence = Sequence::default();
                    running.drafted = Sequence::default();
                    running.is_writing = false;
                }
            }
        }
        for row in ended.into_iter().rev() {
            self.running.remove(row);
        }
    }

    /// The rows that are computed, each with how many of its tokens: those that write first, then prompts as far as there is room.
    fn chunks(&self) -> Vec<(usize, usize)> {
        let pending: Vec<usize> = self.running.iter().map(|running| running.pending().len()).collect();
        // A prompt comes on in any case.
        let mut left = self.limits.n_tokens_a_step.saturating_sub(pending.iter().filter(|n| **n == 1).count()).max(1);
        let mut chunks = Vec::new();
        for (row, n) in pending.into_iter().enumerate() {
            let chunk = if n == 1 { 1 } else { n.min(left) };
            if n > 1 {
                left -= chunk;
            }
            if chunk > 0 {
                chunks.push((row, chunk));
            }
        }
        chunks
    }

    /// What the smaller model proposes for each row.
    fn propose(&mut self) -> Vec<Vec<Proposed>> {
        let (context_len, n_ids) = (self.model.config().context_len, self.tokenizer.vocab_size());
        match &mut self.draft {
            None => Vec::new(),
            Some(draft) => draft.propose(&mut self.running.iter_mut().collect::<Vec<_>>(), context_len, n_ids),
        }
    }

    /// Lets the model see chunks, and behind each what is proposed; gives the logits at some places, `[P, V]`.
    fn compute(&mut self, chunks: &[(usize, usize)], proposed: &[Vec<Proposed>], places: &[usize]) -> Vec<f32> {
        let of = |(row, n): &(usize, usize)| {
            let proposals = proposed.get(*row).into_iter().flatten().map(|one| one.id);
            self.running[*row].pending()[..*n].iter().copied().chain(proposals).collect()
        };
        let wanted: Vec<Vec<u32>> = chunks.iter().map(of).collect();
        let mut rows = self.running.iter_mut().enumerate();
        let mut steps: Vec<(&mut Sequence, &[u32])> = Vec::with_capacity(chunks.len());
        for ((wanted_row, _), new) in chunks.iter().zip(&wanted) {
            let (_, running) = rows.find(|(row, _)| row == wanted_row).expect("chunks are in the order of rows");
            steps.push((&mut running.sequence, new));
        }
        let hidden = self.model.hidden_cached(&mut steps, &mut self.cache);
        if places.is_empty() {
            return Vec::new();
        }
        self.model.logits_of(hidden, places).into_data().convert::<f32>().try_into_vec().expect("converted to f32")
    }

    /// Keeps what has been read, and forgets what has not been asked for the longest.
    fn keep(&mut self, ended: Running<'_>) {
        if ended.from > 0 || self.limits.n_tokens_kept == 0 {
            return;
        }
        let seen = ended.ids[..ended.sequence.len()].to_vec();
        // What another one goes on from says all that it says.
        self.kept.retain(|(ids, _)| !seen.starts_with(ids));
        self.kept.push_front((seen, ended.sequence));
        let mut n = 0;
        let n_kept = self.limits.n_tokens_kept;
        self.kept.retain(|(ids, _)| (n += ids.len(), n <= n_kept).1);
    }
}

fn shared_len(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Running<'_> {
    /// Draws the next tokens: of those that are proposed as many as are kept, and one more; tells of them and whether the text has ended, and
    /// of how many were kept. `logits` are those behind what was seen, and behind each that is proposed.
    fn draw(&mut self, logits: &[&[f32]], proposed: &[Proposed], tokenizer: &Tokenizer) -> Result<(Vec<Event>, u64), InferError> {
        if self.request.max_new_tokens == 0 {
            return Ok((vec![Event::Ended { text: String::new(), reason: StopReason::MaxNewTokens }], 0));
        }
        let (mut events, mut n_kept, n_seen) = (Vec::new(), 0, self.ids.len() - self.from);
        let proposals = proposed.iter().map(Some).chain([None]);
        for (logits, proposal) in logits.iter().zip(proposals) {
            if !is_finite(logits) {
                return Err(InferError::NotFinite(self.ids.len()));
            }
            let distribution = self.distribution(logits)?;
            let (id, is_kept) = match proposal {
                Some(Proposed { id, from }) => self.sampler.draw_or_keep(&distribution, *id, from),
                None => (self.sampler.draw(&distribution), false),
            };
            events.extend(self.take(id, logits, tokenizer)?);
            n_kept += u64::from(is_kept);
            if !is_kept || matches!(events.last(), Some(Event::Ended { .. })) {
                break;
            }
        }
        // What was seen of proposals that were not kept is forgotten.
        let n_seen = (n_seen + n_kept as usize).min(self.ids.len() - self.from);
        self.sequence.truncate(n_seen);
        self.drafted.truncate(n_seen);
        self.is_writing = true;
        Ok((events, n_kept))
    }

    /// What may be drawn next.
    fn distribution(&mut self, logits: &[f32]) -> Result<Distribution, InferError> {
        let allowed = self.request.constraint.as_mut().map(Constraint::allowed).transpose()?;
        let is_allowed = |id| allowed.as_ref().is_none_or(|allowed| allowed.has(id));
        self.sampler.distribution(logits, is_allowed).ok_or(InferError::NothingAllowed)
    }

    /// Takes a token that was drawn.
    fn take(&mut self, id: u32, logits: &[f32], tokenizer: &Tokenizer) -> Result<Vec<Event>, InferError> {
        let score = score(logits, id, self.request.n_likeliest);
        // What a grammar lets end has ended, whatever is ignored.
        let is_end = tokenizer.end_of_text() == Some(id) && (!self.request.ignore_end || self.request.constraint.is_some());
        if is_end || self.request.stop_tokens.contains(&id) {
            return Ok(vec![Event::Ended { text: self.finish(), reason: StopReason::EndOfText }]);
        }
        self.ids.push(id);
        if let Some(constraint) = &mut self.request.constraint {
            constraint.push(id)?;
        }
        let text = self.decoder.push(id)?;
        let text = self.stop.push(&text);
        let reason = match () {
            () if self.stop.has_stopped() => Some(StopReason::StopText),
            () if self.request.constraint.as_ref().is_some_and(Constraint::is_over) => Some(StopReason::EndOfText),
            () if self.n_new() == self.request.max_new_tokens => Some(StopReason::MaxNewTokens),
            () => None,
        };
        let mut events = vec![Event::Token { text, score }];
        events.extend(reason.map(|reason| Event::Ended { text: self.finish(), reason }));
        Ok(events)
    }

    /// What is held back of a text that ends.
    fn finish(&mut self) -> String {
        let last = self.decoder.finish();
        self.stop.push(&last) + &self.stop.finish()
    }
}

/// The likelihoods of the tokens of a prompt that stand behind those which have been read in a chunk; of the first chunk also its first.
fn prompt_scores(running: &Running<'_>, chunk: usize, logits: &[&[f32]]) -> Vec<TokenScore> {
    let read = running.from + running.sequence.len();
    let begin = read - chunk;
    let first = (begin == 0).then(|| TokenScore { id: running.ids[0], log_probability: None, likeliest: Vec::new() });
    let behind = running.ids[begin + 1..].iter().zip(logits).take(chunk);
    let behind: Vec<(u32, &[f32])> = behind.map(|(id, logits)| (*id, *logits)).collect();
    let n = Some(running.request.n_likeliest.unwrap_or(0));
    first.into_iter().chain(behind.into_par_iter().map(|(id, logits)| score(logits, id, n)).collect::<Vec<_>>()).collect()
}

fn is_finite(logits: &[f32]) -> bool {
    logits.iter().all(|logit| logit.is_finite())
}

/// How likely a token is, and which are the likeliest.
fn score(logits: &[f32], id: u32, n_likeliest: Option<usize>) -> TokenScore {
    let Some(n) = n_likeliest else { return TokenScore { id, log_probability: None, likeliest: Vec::new() } };
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_z = f64::from(largest) + logits.iter().map(|logit| f64::from(logit - largest).exp()).sum::<f64>().ln();
    let log_probability = |id: u32| f64::from(logits[id as usize]) - log_z;
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = if n > 0 { (0..logits.len() as u32).collect() } else { Vec::new() };
    if n > 0 && n < ids.len() {
        ids.select_nth_unstable_by(n - 1, by_logit);
        ids.truncate(n);
    }
    ids.sort_unstable_by(by_logit);
    let likeliest = ids.into_iter().map(|id| (id, log_probability(id))).collect();
    TokenScore { id, log_probability: Some(log_probability(id)), likeliest }
}
