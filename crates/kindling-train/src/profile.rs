//! The listener that writes where the time of a training goes, for Perfetto and chrome://tracing. Measures nothing itself.

use std::time::Instant;

use kindling_runs::{Run, TraceWriter};
use serde_json::json;

use crate::{Listener, TrainError, TrainEvent};

/// Writes every step and its parts into `trace.json` of the run folder.
#[derive(Debug)]
pub struct Profile {
    trace: TraceWriter,
    began: Instant,
}

impl Profile {
    /// A trace that begins now.
    ///
    /// # Errors
    /// I/O.
    pub fn new(run: &Run) -> Result<Self, TrainError> {
        Ok(Self { trace: run.trace()?, began: Instant::now() })
    }

    /// Writes what is left, and the end.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(self) -> Result<(), TrainError> {
        Ok(self.trace.finish()?)
    }
}

impl Listener for Profile {
    fn on(&mut self, event: &TrainEvent<'_>) -> Result<(), TrainError> {
        if let TrainEvent::Span { name, started, took, step } = event {
            let category = if matches!(*name, "evaluation" | "checkpoint" | "sample") { "between" } else { "step" };
            self.trace.span(name, category, started.duration_since(self.began), *took, &json!({ "step": step }))?;
        }
        Ok(())
    }
}
