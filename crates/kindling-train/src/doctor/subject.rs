//! What a run trains, made small enough to be checked in a minute. Judges nothing.

use std::cell::RefCell;
use std::ops::Range;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use kindling_config::{Dropout, Precision, RunConfig, TrainConfig};
use kindling_data::{Batch, BatchOptions, BatchSampler, MarkedToken, PackedRows, Part, Prepared, Shards};
use kindling_eval::{score_batches, score_tokens};
use kindling_kernels::LossTerms;
use kindling_model::weights::{named_parameters, to_host};
use kindling_model::{Adapter, Gpt, Pass};

use super::{Parameters, ROWS, Subject, Validation};
use crate::{Optimizer, TrainError, document_token, gradients, to_tensors};

const N_LAYERS: usize = 2;
const CONTEXT_LEN: usize = 128;
const D_MODEL: usize = 256;
/// Of each source; every row is looked for in them.
const TRAINING_TOKENS: u64 = 1 << 20;
/// No multiple of a context, so that the last window is padded.
const VALIDATION_TOKENS: u64 = 20_000;

/// The model, the arithmetic of `gradients` and of the optimizer, and the batches of a run's data.
#[derive(Debug)]
pub struct GptSubject<'a> {
    config: RunConfig,
    data: &'a Prepared,
    document_token: Option<u32>,
    parts: Vec<Part>,
    sampler: BatchSampler,
    device: Device,
    model: Gpt,
    optimizer: Optimizer,
    steps: u64,
    changed: Vec<String>,
}

impl<'a> GptSubject<'a> {
    /// The subject of a run: `config` with its vocabulary, on `device`, without autodiff.
    ///
    /// # Errors
    /// Data that the run itself could not train on.
    pub fn new(config: &RunConfig, data: &'a Prepared, device: &Device) -> Result<Self, TrainError> {
        let document_token = document_token(config, &data.tokenizer)?;
        let sampler = |config: &RunConfig, parts: &[Part]| {
            let (context_len, batch_size, order) = (config.model.context_len, config.train.batch_size, config.data.order);
            let options = BatchOptions { context_len, batch_size, order, document_token };
            data.sampler(parts, options, config.seed)
        };
        let mut parts = data.manifest.training.parts();
        // What is too short for the run is refused, although it may be long enough for the checks.
        sampler(config, &parts)?;
        let (config, mut changed) = made_small(config);
        let mut first = |what: &str, found: u64, most: u64| {
            if found > most {
                changed.push(format!("{what} {found} -> {most}"));
            }
        };
        first("training tokens of a source", parts.iter().map(|part| part.end - part.start).max().unwrap_or(0), TRAINING_TOKENS);
        first("validation tokens", data.validation.n_tokens(), VALIDATION_TOKENS);
        for part in &mut parts {
            part.end = end_within(&data.training, data.manifest.examples, part.start..part.end, TRAINING_TOKENS);
        }
        let device = device.clone().autodiff();
        Ok(Self {
            sampler: sampler(&config, &parts)?,
            model: fresh(&config, &device),
            optimizer: Optimizer::new(&config.train),
            steps: 0,
            config,
            data,
            document_token,
            parts,
            device,
            changed,
        })
    }

    /// What is another than in the run, as `model.n_layers 12 -> 2`.
    pub fn changed(&self) -> &[String] {
        &self.changed
    }

    /// The mean loss and the gradients of a batch, as training computes them.
    fn computed(&self, batch: &Batch, micro_batch_size: usize) -> Result<(f64, GradientsParams), TrainError> {
        let mut config = self.config.clone();
        config.train.micro_batch_size = micro_batch_size;
        gradients(&self.model, batch, &config, self.steps)
    }
}

impl Subject for GptSubject<'_> {
    fn config(&self) -> &RunConfig {
        &self.config
    }

    fn reset(&mut self) {
        self.model = fresh(&self.config, &self.device);
        self.optimizer = Optimizer::new(&self.config.train);
        self.steps = 0;
    }

    fn parameters(&self) -> Parameters {
        named_parameters(&self.model).into_iter().collect()
    }

    fn is_trained(&self, name: &str) -> bool {
        self.config.lora().is_none() || name.starts_with("lora.")
    }

    fn set_parameters(&mut self, values: &Parameters) {
        self.model = self.model.clone().map(&mut Replace { path: Vec::new(), values });
    }

    fn loss(&self, batch: &Batch) -> Result<f64, TrainError> {
        // Without autodiff, which would compute gradients at once: finite differences take hundreds of losses. Against them the
        // gradients of what is computed with it are checked.
        let model = self.model.valid();
        let (ids, targets, weights) = to_tensors(batch, &model.device());
        let nats = f64::from(model.loss(ids, targets, weights, &pass(batch, &self.config.train)).nats.into_scalar::<f32>());
        let bad = || TrainError::NotFinite { what: "the loss".into(), step: self.steps, micro_batch: None };
        if nats.is_finite() { Ok(nats / batch.weight()) } else { Err(bad()) }
    }

    fn gradients(&self, batch: &Batch, micro_batch_size: usize) -> Result<Parameters, TrainError> {
        let mut collect = Collect { path: Vec::new(), grads: &self.computed(batch, micro_batch_size)?.1, out: Parameters::new() };
        self.model.visit(&mut collect);
        Ok(collect.out)
    }

    fn step(&mut self, lr: f64, batch: &Batch) -> Result<f64, TrainError> {
        let (loss, grads) = self.computed(batch, self.config.train.micro_batch_size)?;
        let (model, norm) = self.optimizer.step(lr, self.model.clone(), grads);
        norm.map_err(|bad| TrainError::NotFinite {
            what: format!("the gradient of `{}`", bad.parameter),
            step: self.steps,
            micro_batch: None,
        })?;
        (self.model, self.steps) = (model, self.steps + 1);
        Ok(loss)
    }

    fn logits(&self, batch: &Batch) -> Vec<f32> {
        // On the autodiff device, so that what is computed is what training computes.
        to_host(self.model.forward(to_tensors(batch, &self.device).0, &pass(batch, &self.config.train))).values
    }

    fn batch_at(&self, step: u64) -> Batch {
        self.sampler.batch_at(&self.data.training, step)
    }

    fn training(&self) -> Vec<Vec<u32>> {
        self.parts.iter().map(|part| self.data.training.read(part.start, part.end)).collect()
    }

    fn validate(&self) -> Validation {
        let split = &self.data.validation;
        let n_tokens = end_within(split, self.data.manifest.examples, 0..split.n_tokens(), VALIDATION_TOKENS);
        let model = self.model.valid();
        if self.data.manifest.examples {
            let rows = PackedRows::new(split, 0..n_tokens, self.config.model.context_len);
            let score = score_batches(&model, &self.data.tokenizer, rows.n_rows(), rows.batches(split, ROWS), &mut |_, _| {});
            let windows = rows.examples().map(|example| (example.start, example.end)).collect();
            let targets = learned(&split.read_marked(0..n_tokens), self.config.model.context_len);
            return Validation { targets, windows, counted: score.nll.tokens };
        }
        let windows = RefCell::new(Vec::new());
        let read = |start, end| {
            windows.borrow_mut().push((start, end));
            split.read(start, end)
        };
        let nll = score_tokens(&model, &self.data.tokenizer, n_tokens, self.document_token, read, &mut |_, _| {}).nll;
        Validation { targets: (1..n_tokens).collect(), windows: windows.take(), counted: nll.tokens }
    }
}

/// The end of what is looked at of some tokens: about so many, and of examples none in part.
fn end_within(shards: &Shards, has_examples: bool, tokens: Range<u64>, most: u64) -> u64 {
    let limit = tokens.end.min(tokens.start + most);
    if !has_examples || limit == tokens.end {
        return limit;
    }
    let begins = |place: &u64| shards.read_marked(*place..place + 1)[0].begins();
    let before = (tokens.start + 1..=limit).rev().find(begins);
    before.or_else(|| (limit..tokens.end).find(begins)).unwrap_or(tokens.end)
}

/// Places of the learned tokens of examples; of one that is longer than a row, of those that fit one from its end.
fn learned(tokens: &[MarkedToken], context_len: usize) -> Vec<u64> {
    let begins = |place: &usize| *place == tokens.len() || tokens[*place].begins();
    let is_target = |place: &usize| {
        let end = (place + 1..=tokens.len()).find(begins).unwrap_or(tokens.len());
        tokens[*place].is_learned() && end - place <= context_len
    };
    (0..tokens.len()).filter(is_target).map(|place| place as u64).collect()
}

/// The model that a run begins with, beside an adapter where it trains one; a base is taken to have initial weights.
fn fresh(config: &RunConfig, device: &Device) -> Gpt {
    let model = Gpt::new(&config.model, config.seed, device);
    match config.lora() {
        Some(lora) => model.with_adapter(Adapter::new(lora, &config.model, config.seed, device)),
        None => model,
    }
}

/// A forward pass without dropout, with the loss of training.
fn pass(batch: &Batch, config: &TrainConfig) -> Pass {
    Pass {
        document_starts: batch.document_starts.as_deref().map(Into::into),
        restart_positions: batch.restart_positions,
        terms: LossTerms { label_smoothing: config.label_smoothing, z_loss: config.z_loss },
        ..Pass::default()
    }
}

/// The configuration that is checked, and what is another in it.
fn made_small(config: &RunConfig) -> (RunConfig, Vec<String>) {
    let mut small = config.clone();
    let (model, train) = (&mut small.model, &mut small.train);
    model.n_layers = model.n_layers.min(N_LAYERS);
    model.context_len = model.context_len.min(CONTEXT_LEN);
    if model.d_model > D_MODEL {
        // Heads keep their width, and MLPs theirs beside the residual stream.
        let (head_dim, before) = (model.d_model / model.n_heads, model.d_model);
        model.n_heads = (D_MODEL / head_dim).max(1);
        model.d_model = model.n_heads * head_dim;
        model.d_ff = (model.d_ff * model.d_model / before).max(1);
    }
    if let Some(lora) = small.base.as_mut().and_then(|base| base.lora.as_mut()) {
        lora.rank = lora.rank.min(model.d_model).min(model.d_ff);
    }
    // What is dropped differs from pass to pass, and what is rounded to bf16 has no slope.
    model.dropout = Dropout::NONE;
    train.precision = Precision::F32;
    train.batch_size = ROWS;
    train.micro_batch_size = train.micro_batch_size.min(ROWS);
    let sizes = |config: &RunConfig| {
        let (model, train) = (&config.model, &config.train);
        [
            ("model.n_layers", model.n_layers),
            ("model.n_heads", model.n_heads),
            ("model.d_model", model.d_model),
            ("model.d_ff", model.d_ff),
            ("model.context_len", model.context_len),
            ("train.batch_size", train.batch_size),
            ("train.micro_batch_size", train.micro_batch_size),
            ("base.lora.rank", config.lora().map_or(0, |lora| lora.rank)),
        ]
    };
    let pairs = sizes(config).into_iter().zip(sizes(&small));
    let mut changed: Vec<_> =
        pairs.filter(|(old, new)| old.1 != new.1).map(|((key, old), (_, new))| format!("{key} {old} -> {new}")).collect();
    if config.model.dropout != small.model.dropout {
        changed.push("model.dropout -> none".into());
    }
    if config.train.precision != small.train.precision {
        changed.push("train.precision -> f32".into());
    }
    (small, changed)
}

struct Collect<'a> {
    path: Vec<String>,
    grads: &'a GradientsParams,
    out: Parameters,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.out.insert(self.path.join("."), to_host(grad));
        }
    }
}

struct Replace<'a> {
    path: Vec<String>,
    values: &'a Parameters,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(new) = self.values.get(&self.path.join(".")) else { return param };
        let (id, old, mapper) = param.consume();
        let new = Tensor::<D>::from_data(TensorData::new(new.values.clone(), new.shape.clone()), &old.device().inner());
        Param::from_mapped_value(id, Tensor::from_inner(new).set_require_grad(old.is_require_grad()), mapper)
    }
}
