//! Is training honest arithmetic? Checks of a model, its gradients, its optimizer and its batches, each with a figure and a bound.
//! One body for the tests and for `kindling doctor`. Trains nothing that is kept, and writes nothing.
//!
//! The checks see a [`Subject`]: [`GptSubject`] is what a run trains, made small, and the tests wrap it by subjects that are
//! broken on purpose, each of which must be found out.

mod checks;
mod subject;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use kindling_config::RunConfig;
use kindling_data::Batch;
use kindling_model::weights::HostTensor;
use serde::Serialize;

pub use subject::GptSubject;

use crate::TrainError;

/// Values by parameter path: weights, or their gradients.
pub type Parameters = BTreeMap<String, HostTensor>;

/// A model, its training arithmetic and its data, as the checks see them. Nothing is dropped out.
pub trait Subject {
    /// The configuration, with the vocabulary's size.
    fn config(&self) -> &RunConfig;
    /// Begins anew: initial weights, and an optimizer without moments.
    fn reset(&mut self);
    /// The weights.
    fn parameters(&self) -> Parameters;
    /// Whether one of them is trained; one that is frozen has no gradient.
    fn is_trained(&self, _name: &str) -> bool {
        true
    }
    /// Gives the parameters that are named other weights.
    fn set_parameters(&mut self, values: &Parameters);
    /// The mean loss over the targets that count, in nats a token.
    ///
    /// # Errors
    /// A loss that is not finite.
    fn loss(&self, batch: &Batch) -> Result<f64, TrainError>;
    /// The gradients of [`Subject::loss`], computed in micro-batches of so many rows, 0 for all at once.
    ///
    /// # Errors
    /// A loss that is not finite.
    fn gradients(&self, batch: &Batch, micro_batch_size: usize) -> Result<Parameters, TrainError>;
    /// Takes an optimizer step at a learning rate, and gives the loss before it.
    ///
    /// # Errors
    /// A loss or a gradient that is not finite.
    fn step(&mut self, lr: f64, batch: &Batch) -> Result<f64, TrainError>;
    /// Logits `[B, T, V]`.
    fn logits(&self, batch: &Batch) -> Vec<f32>;
    /// The training batch of a step, of [`ROWS`] rows.
    fn batch_at(&self, step: u64) -> Batch;
    /// The tokens that training batches are taken from; no row crosses from one stretch to the next.
    fn training(&self) -> Vec<Vec<u32>>;
    /// Scores the validation split.
    fn validate(&self) -> Validation;
}

/// Rows of a batch of a [`Subject`]: enough to cut it into unequal micro-batches.
pub const ROWS: usize = 6;

/// What validation looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// Places in the split, or in its beginning, of the tokens that are to be predicted.
    pub targets: Vec<u64>,
    /// The windows in which they were read, first token and the one behind the last: all but the first of each are predicted.
    pub windows: Vec<(u64, u64)>,
    /// Predictions that went into the loss.
    pub counted: u64,
}

/// One check and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What it is called.
    pub name: &'static str,
    /// What holds if it passes.
    pub claim: &'static str,
    /// Whether `measured` is at most `bound`; a figure that is not a number is not.
    pub passed: bool,
    /// How far what was found is from what it should be.
    pub measured: f64,
    /// How far it may be.
    pub bound: f64,
    /// The figure in words.
    pub figure: String,
}

/// What a check measures: a figure with its bound, and in words.
struct Finding {
    measured: f64,
    bound: f64,
    figure: String,
}

type Examination<S> = fn(&mut S) -> Result<Finding, TrainError>;

/// Every check: its name, what it claims, and how it is made.
fn examinations<S: Subject>() -> [(&'static str, &'static str, Examination<S>); 12] {
    [
        ("fresh-loss", "a fresh model's loss is near ln(vocabulary)", checks::fresh_loss),
        ("next-tokens", "targets are the tokens that follow in the data", checks::next_tokens),
        ("past", "a token sees all before it", checks::past),
        ("future", "no token sees a later one", checks::future),
        ("rows", "what a row teaches does not depend on its batch", checks::rows),
        ("masked-targets", "a target of weight 0 does not count", checks::masked_targets),
        ("accumulation", "micro-batches add up to the full batch", checks::accumulation),
        ("finite-differences", "gradients are the slopes of the loss", checks::finite_differences),
        ("gradients", "every trained parameter gets a gradient within two steps", checks::every_gradient),
        ("updates", "the optimizer moves every trained parameter against its gradient", checks::every_update),
        ("overfitting", "the model learns one batch by heart", checks::overfitting),
        ("validation", "validation predicts every token once", checks::validation),
    ]
}

/// Makes every check, or those before `stop` is set; `tell` hears the name of each before it is made. What cannot be computed,
/// such as a loss that is not finite, is a check that failed.
pub fn examine<S: Subject>(subject: &mut S, stop: &AtomicBool, tell: &mut dyn FnMut(&str)) -> Vec<Check> {
    let mut made = Vec::new();
    for (name, claim, examination) in examinations() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tell(name);
        subject.reset();
        let failed = |error: TrainError| Finding { measured: f64::NAN, bound: 0.0, figure: error.to_string() };
        let Finding { measured, bound, figure } = examination(subject).unwrap_or_else(failed);
        made.push(Check { name, claim, passed: measured <= bound, measured, bound, figure });
    }
    made
}
