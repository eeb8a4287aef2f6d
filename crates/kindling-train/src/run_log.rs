//! The listener that keeps a run's log: `metrics.jsonl` and `samples.md`.

use kindling_runs::Run;
use serde_json::json;

use crate::{Listener, TrainError, TrainEvent};

/// Writes every `log_every`-th step, every evaluation and every sample into the run folder.
#[derive(Debug)]
pub struct RunLog<'a> {
    run: &'a Run,
    log_every: u64,
    tokens: u64,
    seconds: f64,
    last_tokens: Option<u64>,
}

impl<'a> RunLog<'a> {
    /// A log of `run`.
    pub fn new(run: &'a Run, log_every: u64) -> Self {
        Self { run, log_every, tokens: 0, seconds: 0.0, last_tokens: None }
    }
}

impl Listener for RunLog<'_> {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<(), TrainError> {
        match event {
            TrainEvent::Step { step, loss, lr, grad_norm, tokens, step_s } => {
                self.tokens += self.last_tokens.map_or(0, |last| tokens - last);
                self.seconds += if self.last_tokens.is_some() { *step_s } else { 0.0 };
                self.last_tokens = Some(*tokens);
                if step % self.log_every == 0 {
                    let tokens_per_s = (self.seconds > 0.0).then(|| self.tokens as f64 / self.seconds);
                    let row = json!({
                        "kind": "train", "step": step, "tokens": tokens, "loss": loss, "lr": lr, "grad_norm": grad_norm, "tokens_per_s": tokens_per_s
                    });
                    self.run.log(&row)?;
                    (self.tokens, self.seconds) = (0, 0.0);
                }
            }
            TrainEvent::Skipped { step, loss, tokens, step_s } => {
                self.tokens += self.last_tokens.map_or(0, |last| tokens - last);
                self.seconds += if self.last_tokens.is_some() { *step_s } else { 0.0 };
                self.last_tokens = Some(*tokens);
                self.run.log(&json!({ "kind": "skipped", "step": step, "tokens": tokens, "loss": finite(*loss) }))?;
            }
            TrainEvent::RolledBack { from, to, loss } => {
                self.last_tokens = None;
                self.run.log(&json!({ "kind": "rollback", "step": to, "from": from, "loss": finite(*loss) }))?;
            }
            TrainEvent::Validated { step, nll, .. } => {
                let row = json!({
                    "kind": "validation", "step": step, "loss": nll.loss(), "perplexity": nll.perplexity(),
                    "bits_per_byte": nll.bits_per_byte(), "accuracy": nll.accuracy(), "n_targets": nll.tokens
                });
                self.run.log(&row)?;
            }
            TrainEvent::Sample { step, prompt, text } => self.run.log_sample(*step, &format!("{prompt}{text}"))?,
            _ => {}
        }
        Ok(())
    }
}

/// JSON has no other numbers.
fn finite(loss: f64) -> Option<f64> {
    Some(loss).filter(|loss| loss.is_finite())
}
