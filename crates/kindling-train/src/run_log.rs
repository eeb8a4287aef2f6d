//! The listener that keeps a run's log: `metrics.jsonl`, `samples.md`, and event files for TensorBoard.

use kindling_config::RunConfig;
use kindling_runs::{EventWriter, Run};
use serde_json::json;

use crate::{Listener, Speed, TrainError, TrainEvent, mfu, resident_memory_bytes};

/// Writes every `log_every`-th step, every evaluation and every sample into the run folder.
#[derive(Debug)]
pub struct RunLog<'a> {
    run: &'a Run,
    events: Option<EventWriter>,
    log_every: u64,
    /// Of the steps since the last row.
    speed: Speed,
    /// What is trained, and the speed of matrix products where that is done, in FLOP/s.
    trained: Option<(RunConfig, f64)>,
}

impl<'a> RunLog<'a> {
    /// A log of `run`.
    pub fn new(run: &'a Run, log_every: u64) -> Self {
        Self { run, events: None, log_every, speed: Speed::default(), trained: None }
    }

    /// Points of curves at a step; those that are unknown are left out.
    fn scalars(&mut self, step: u64, points: &[(&str, Option<f64>)]) -> Result<(), TrainError> {
        for (tag, value) in points {
            if let (Some(events), Some(value)) = (&mut self.events, value) {
                events.scalar(tag, step, *value as f32)?;
            }
        }
        Ok(())
    }

    /// Event files in which nothing behind `step` stands any more.
    fn begin_events(&mut self, step: u64) -> Result<(), TrainError> {
        self.events = Some(self.run.tensorboard(step + 1)?);
        Ok(())
    }
}

impl Listener for RunLog<'_> {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<(), TrainError> {
        match event {
            TrainEvent::Started { step, config, matmul_peak, .. } => {
                self.trained = Some(((*config).clone(), *matmul_peak));
                self.begin_events(*step)?;
                if let Some(events) = &mut self.events {
                    events.text("config", *step, &config.to_toml())?;
                }
            }
            TrainEvent::Step { step, loss, lr, grad_norm, tokens, step_s } => {
                self.speed.count(*tokens, *step_s);
                if step % self.log_every == 0 {
                    let tokens_per_s = self.speed.take();
                    let mfu = tokens_per_s.zip(self.trained.as_ref()).map(|(speed, (config, peak))| mfu(config, speed, *peak));
                    let memory = resident_memory_bytes();
                    let row = json!({
                        "kind": "train", "step": step, "tokens": tokens, "loss": loss, "lr": lr, "grad_norm": grad_norm,
                        "tokens_per_s": tokens_per_s, "mfu": mfu, "memory_bytes": memory
                    });
                    self.run.log(&row)?;
                    self.scalars(
                        *step,
                        &[
                            ("train/loss", Some(*loss)),
                            ("train/lr", Some(*lr)),
                            ("train/grad_norm", Some(*grad_norm)),
                            ("train/tokens_per_s", tokens_per_s),
                            ("train/mfu", mfu),
                            ("train/memory_mib", memory.map(|bytes| bytes as f64 / f64::from(1 << 20))),
                        ],
                    )?;
                }
            }
            TrainEvent::Skipped { step, loss, tokens, step_s } => {
                self.speed.count(*tokens, *step_s);
                self.run.log(&json!({ "kind": "skipped", "step": step, "tokens": tokens, "loss": finite(*loss) }))?;
            }
            TrainEvent::RolledBack { from, to, loss } => {
                self.speed.go_back();
                self.run.log(&json!({ "kind": "rollback", "step": to, "from": from, "loss": finite(*loss) }))?;
                self.begin_events(*to)?;
            }
            TrainEvent::Validated { step, nll, standard_error, .. } => {
                let row = json!({
                    "kind": "validation", "step": step, "loss": nll.loss(), "standard_error": standard_error, "perplexity": nll.perplexity(),
                    "bits_per_byte": nll.bits_per_byte(), "accuracy": nll.accuracy(), "n_targets": nll.tokens
                });
                self.run.log(&row)?;
                let (loss, accuracy) = (Some(nll.loss()), Some(nll.accuracy()));
                self.scalars(
                    *step,
                    &[("validation/loss", loss), ("validation/bits_per_byte", nll.bits_per_byte()), ("validation/accuracy", accuracy)],
                )?;
            }
            TrainEvent::Sample { step, prompt, text } => {
                self.run.log_sample(*step, &format!("{prompt}{text}"))?;
                if let Some(events) = &mut self.events {
                    events.text("sample", *step, &format!("{prompt}{text}"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// JSON has no other numbers.
fn finite(loss: f64) -> Option<f64> {
    Some(loss).filter(|loss| loss.is_finite())
}
