//! The doctor passes what a run trains, and finds out subjects that are broken on purpose, each by the check that is for it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed unwrap fails the test, and a test prints what it measured")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use kindling_config::RunConfig;
use kindling_data::{Batch, Preparation, Prepared, prepare};
use kindling_train::doctor::{Check, GptSubject, Parameters, Subject, Validation, examine};
use kindling_train::{TrainError, fit_vocabulary};

fn data() -> Prepared {
    Prepared::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/data-v3")).unwrap()
}

fn subject<'a>(data: &'a Prepared, overrides: &[&str]) -> GptSubject<'a> {
    let small = ["model.n_layers=1", "model.n_heads=2", "model.d_model=16", "model.d_ff=32", "model.context_len=16", "train.lr=0.01"];
    let overrides: Vec<_> = small.iter().chain(overrides).map(|text| (*text).to_owned()).collect();
    let mut config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).unwrap();
    fit_vocabulary(&mut config, data.tokenizer.vocab_size()).unwrap();
    GptSubject::new(&config, data, &Device::flex()).unwrap()
}

fn examined(subject: &mut impl Subject) -> Vec<Check> {
    let checks = examine(subject, &AtomicBool::new(false), &mut |_| {});
    for check in &checks {
        println!("{} {} {:.1e} of {:.1e}: {}", check.passed, check.name, check.measured, check.bound, check.figure);
    }
    checks
}

fn failed(subject: &mut impl Subject) -> Vec<&'static str> {
    examined(subject).into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[test]
fn what_a_run_trains_passes() {
    let data = data();
    for overrides in [
        &[][..],
        &["model.bias=false", "data.order=epoch", "train.micro_batch_size=2"],
        &["data.document_mask=true", "train.gradient_checkpointing=true", "model.n_layers=2"],
        &["model.dropout.residual=0.5", "train.precision=bf16-emulated"],
        &["base.run=old", "base.weights_hash=00", "base.lora={rank=4,alpha=8,targets=[\"qkv\",\"proj\",\"up\",\"down\"]}"],
    ] {
        assert_eq!(failed(&mut subject(&data, overrides)), [""; 0], "{overrides:?}");
    }
}

#[test]
fn what_learns_from_examples_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    let row = |i: usize| format!("{{\"prompt\":\"{} and {}? \",\"completion\":\"{}\"}}\n", i % 7, i % 5, (i % 7) * (i % 5));
    std::fs::write(&path, (0..200).map(row).collect::<String>()).unwrap();
    let overrides = [
        format!("data.paths=[{:?}]", path.display().to_string()),
        "data.examples={}".into(),
        "data.order=epoch".into(),
        "tokenizer.vocab_size=280".into(),
    ];
    let config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).unwrap();
    let stop = AtomicBool::new(false);
    let preparation = Preparation { config: &config, data_dir: dir.path(), workspace: dir.path(), stop: &stop };
    let data = prepare(&preparation, &mut |_| {}).unwrap();
    let overrides: Vec<_> = overrides.iter().map(String::as_str).collect();
    assert_eq!(failed(&mut subject(&data, &overrides)), [""; 0]);
    // Rows that are shorter than the longest example.
    let short = [&overrides[..], &["model.context_len=6", "train.gradient_checkpointing=true"]].concat();
    assert_eq!(failed(&mut subject(&data, &short)), [""; 0]);
}

#[test]
fn what_is_large_is_made_small_and_that_is_said() {
    let data = data();
    let large = ["model.n_layers=12", "model.n_heads=12", "model.d_model=768", "model.d_ff=3072", "model.dropout.attention=0.1"];
    let subject = subject(&data, &large);
    let model = &subject.config().model;
    assert_eq!((model.n_layers, model.n_heads, model.d_model, model.d_ff, model.context_len), (2, 4, 256, 1024, 16));
    assert_eq!(
        subject.changed(),
        [
            "model.n_layers 12 -> 2",
            "model.n_heads 12 -> 4",
            "model.d_model 768 -> 256",
            "model.d_ff 3072 -> 1024",
            "train.batch_size 8 -> 6",
            "model.dropout -> none"
        ]
    );
}

#[test]
fn a_stop_is_heard_before_the_next_check() {
    let (data, stop) = (data(), AtomicBool::new(false));
    let made = examine(&mut subject(&data, &[]), &stop, &mut |_| stop.store(true, std::sync::atomic::Ordering::Relaxed));
    assert_eq!(made.len(), 1);
}

/// What is wrong with a subject.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// No token sees the one before it, but all before that.
    NeighbourUnseen,
    /// From the middle of a row on, nothing before it is seen.
    FirstHalfUnseen,
    /// A token sees what comes after it, in one place.
    FutureSeen,
    /// The gradients of one parameter are lost.
    GradientLost,
    /// A third of the gradients of one parameter are lost.
    GradientPartlyLost,
    /// The mean of the micro-batches' means.
    MeanOfMeans,
    /// Every micro-batch is counted twice, where there are several.
    CountedTwice,
    /// Targets are one token too far.
    TargetsShifted,
    /// The optimizer leaves one parameter as it is.
    Frozen,
    /// The optimizer goes up.
    Uphill,
    /// What does not count, counts.
    WeightsIgnored,
    /// A row sees a token of the one before it.
    RowsMixed,
    /// Initial matrices are a hundred times as large.
    LargeWeights,
    /// The loss is a sum.
    SumLoss,
    /// The last window of validation is left out.
    LastWindowLost,
    /// The loss is not a number.
    NotANumber,
}

/// A subject with a fault; in all else it is what it wraps.
struct Broken<'a> {
    inner: GptSubject<'a>,
    fault: Fault,
}

const PARAMETER: &str = "blocks.0.attn.qkv.weight";

impl Broken<'_> {
    /// What the model gets to see of a batch.
    fn seen(&self, batch: &Batch) -> Batch {
        let mut batch = batch.clone();
        let row_len = batch.row_len;
        match self.fault {
            Fault::FutureSeen => {
                let n = self.config().model.vocab_size as u32;
                batch.ids.chunks_mut(row_len).for_each(|row| row[3] = (row[3] + row[9]) % n);
            }
            Fault::WeightsIgnored => batch.weights.fill(1.0),
            Fault::FirstHalfUnseen => {
                let half = row_len as u32 / 2;
                batch.document_starts = Some((0..batch.ids.len()).map(|i| if (i % row_len) as u32 >= half { half } else { 0 }).collect());
            }
            Fault::RowsMixed => {
                (row_len..batch.ids.len()).rev().step_by(row_len).for_each(|i| batch.ids[i + 1 - row_len] = batch.ids[i - row_len])
            }
            _ => {}
        }
        batch
    }
}

impl Subject for Broken<'_> {
    fn config(&self) -> &RunConfig {
        self.inner.config()
    }

    fn reset(&mut self) {
        self.inner.reset();
        if self.fault == Fault::LargeWeights {
            let mut weights = self.inner.parameters();
            weights
                .values_mut()
                .filter(|tensor| tensor.shape.len() == 2)
                .flat_map(|tensor| &mut tensor.values)
                .for_each(|value| *value *= 100.0);
            self.inner.set_parameters(&weights);
        }
    }

    fn parameters(&self) -> Parameters {
        self.inner.parameters()
    }

    fn is_trained(&self, name: &str) -> bool {
        self.inner.is_trained(name)
    }

    fn set_parameters(&mut self, values: &Parameters) {
        self.inner.set_parameters(values);
    }

    fn loss(&self, batch: &Batch) -> Result<f64, TrainError> {
        let loss = self.inner.loss(&self.seen(batch))?;
        match self.fault {
            Fault::SumLoss => Ok(loss * batch.weight()),
            Fault::NotANumber => Ok(f64::NAN),
            _ => Ok(loss),
        }
    }

    fn gradients(&self, batch: &Batch, micro_batch_size: usize) -> Result<Parameters, TrainError> {
        let batch = self.seen(batch);
        let scaled = |mut grads: Parameters, factor: f32| {
            grads.values_mut().flat_map(|grad| &mut grad.values).for_each(|value| *value *= factor);
            grads
        };
        if self.fault == Fault::MeanOfMeans && micro_batch_size > 0 {
            let parts: Vec<_> =
                (0..batch.n_rows).step_by(micro_batch_size).map(|row| (row, (row + micro_batch_size).min(batch.n_rows))).collect();
            let mut mean = Parameters::new();
            for (first, last) in &parts {
                let grads = scaled(self.inner.gradients(&batch.rows(*first, *last), 0)?, 1.0 / parts.len() as f32);
                for (name, grad) in grads {
                    match mean.get_mut(&name) {
                        Some(sum) => sum.values.iter_mut().zip(&grad.values).for_each(|(sum, value)| *sum += value),
                        None => drop(mean.insert(name, grad)),
                    }
                }
            }
            return Ok(mean);
        }
        let mut grads = self.inner.gradients(&batch, micro_batch_size)?;
        match self.fault {
            Fault::GradientLost => drop(grads.remove(PARAMETER)),
            Fault::GradientPartlyLost => {
                let grad = grads.get_mut(PARAMETER).unwrap();
                let n = grad.shape[1];
                grad.values.iter_mut().enumerate().filter(|(i, _)| i % n < n / 3).for_each(|(_, value)| *value = 0.0);
            }
            Fault::CountedTwice if micro_batch_size > 0 => grads = scaled(grads, 2.0),
            _ => {}
        }
        Ok(grads)
    }

    fn step(&mut self, lr: f64, batch: &Batch) -> Result<f64, TrainError> {
        let before = self.inner.parameters();
        let loss = self.inner.step(lr, &self.seen(batch))?;
        match self.fault {
            Fault::Frozen => self.inner.set_parameters(&before.into_iter().filter(|(name, _)| name == PARAMETER).collect()),
            Fault::Uphill => {
                let mut up = self.inner.parameters();
                for (name, tensor) in &mut up {
                    tensor.values.iter_mut().zip(&before[name].values).for_each(|(value, before)| *value = 2.0 * before - *value);
                }
                self.inner.set_parameters(&up);
            }
            _ => {}
        }
        Ok(loss)
    }

    fn logits(&self, batch: &Batch) -> Vec<f32> {
        if self.fault != Fault::NeighbourUnseen {
            return self.inner.logits(&self.seen(batch));
        }
        // Each token's logits come from a row of their own, in which the token before it is always the same.
        let n_logits = self.config().model.vocab_size;
        let mut logits = Vec::new();
        for row in 0..batch.n_rows {
            for place in 0..batch.row_len {
                let mut row = batch.rows(row, row + 1);
                if place > 0 {
                    row.ids[place - 1] = 0;
                }
                logits.extend_from_slice(&self.inner.logits(&row)[place * n_logits..(place + 1) * n_logits]);
            }
        }
        logits
    }

    fn batch_at(&self, step: u64) -> Batch {
        let mut batch = self.inner.batch_at(step);
        if self.fault == Fault::TargetsShifted {
            for row in batch.targets.chunks_mut(batch.row_len) {
                row.rotate_left(1);
            }
        }
        batch
    }

    fn training(&self) -> Vec<Vec<u32>> {
        self.inner.training()
    }

    fn validate(&self) -> Validation {
        let mut validation = self.inner.validate();
        if self.fault == Fault::LastWindowLost {
            let (start, end) = validation.windows.pop().unwrap();
            validation.counted -= end - start - 1;
        }
        validation
    }
}

#[test]
fn what_is_broken_is_found_out() {
    let (data, mut wrong) = (data(), Vec::new());
    for (fault, expected) in [
        (Fault::NeighbourUnseen, &["past"][..]),
        (Fault::FirstHalfUnseen, &["past"]),
        (Fault::FutureSeen, &["future"]),
        (Fault::GradientLost, &["finite-differences", "gradients"]),
        (Fault::GradientPartlyLost, &["finite-differences"]),
        (Fault::MeanOfMeans, &["accumulation"]),
        (Fault::CountedTwice, &["accumulation"]),
        (Fault::TargetsShifted, &["next-tokens"]),
        (Fault::Frozen, &["updates"]),
        (Fault::Uphill, &["updates", "overfitting"]),
        (Fault::WeightsIgnored, &["rows", "masked-targets"]),
        (Fault::RowsMixed, &["future", "rows"]),
        (Fault::LargeWeights, &["fresh-loss"]),
        (Fault::SumLoss, &["fresh-loss", "finite-differences"]),
        (Fault::LastWindowLost, &["validation"]),
        (Fault::NotANumber, &["fresh-loss", "rows", "masked-targets", "finite-differences", "overfitting"]),
    ] {
        println!("{fault:?}");
        let found = failed(&mut Broken { inner: subject(&data, &[]), fault });
        if found != expected {
            wrong.push(format!("{fault:?} fails {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
