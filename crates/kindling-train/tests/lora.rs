//! Training adapters: what moves and what does not, and steps in parts.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use kindling_config::{Optimizer as Kind, RunConfig, Seed, TrainConfig};
use kindling_data::Batch;
use kindling_kernels::Precision;
use kindling_model::weights::{HostTensor, named_parameters, to_host};
use kindling_model::{Adapter, Gpt};
use kindling_train::{Ema, Optimizer, gradients};

fn config(overrides: &[&str]) -> RunConfig {
    let small = [
        "model.n_layers=2",
        "model.d_model=32",
        "model.d_ff=64",
        "model.n_heads=2",
        "model.context_len=8",
        "model.vocab_size=50",
        "model.dropout={embedding=0.1,attention=0.2,residual=0.3}",
        "train.batch_size=6",
        "train.weight_decay=0",
        "base.run=old",
        "base.weights_hash=00",
        "base.lora={rank=4,alpha=8,targets=[\"qkv\",\"proj\",\"up\",\"down\"]}",
    ];
    let overrides: Vec<_> = small.iter().chain(overrides).map(|text| (*text).to_owned()).collect();
    RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides).unwrap()
}

fn batch() -> Batch {
    let n = 6 * 8;
    Batch {
        n_rows: 6,
        row_len: 8,
        ids: (0..n).map(|i| (i * 31 + 7) % 50).collect(),
        targets: (0..n).map(|i| (i * 17 + 3) % 50).collect(),
        weights: (0..n).map(|i| if i % 8 <= i / 8 { 1.0 } else { 0.0 }).collect(),
        document_starts: None,
        restart_positions: false,
    }
}

fn model(config: &RunConfig) -> Gpt {
    let device = Device::flex().autodiff();
    let adapter = Adapter::new(config.lora().unwrap(), &config.model, Seed(1), &device);
    Gpt::new(&config.model, Seed(3), &device).with_adapter(adapter)
}

/// After so many steps.
fn stepped(config: &RunConfig, optimizer: &mut Optimizer, mut model: Gpt, steps: u64) -> Gpt {
    for step in 0..steps {
        let (_, grads) = gradients(&model, &batch(), config, step).unwrap();
        let (next, norm) = optimizer.step(0.01, model, grads);
        assert!(norm.unwrap() > 0.0);
        model = next;
    }
    model
}

fn parameters(model: &Gpt) -> BTreeMap<String, HostTensor> {
    named_parameters(model).into_iter().collect()
}

#[test]
fn the_adapter_moves_and_no_bit_of_the_base() {
    for kind in ["adamw", "muon", "lion", "sgd"] {
        let config = config(&[&format!("train.optimizer={kind}")]);
        let (first, mut optimizer) = (model(&config), Optimizer::new(&config.train));
        let before = parameters(&first);
        let ema = Ema::new(0.5, &first);
        let after = stepped(&config, &mut optimizer, first, 2);
        for (name, tensor) in parameters(&after) {
            assert_eq!(tensor != before[&name], name.starts_with("lora."), "{kind}: {name}");
        }
        // The average is of the adapter too, and beside the same weights.
        assert_eq!(parameters(&ema.model(&after)), before, "{kind}");

        // What is remembered is of the adapter alone, and goes on.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("optimizer.safetensors");
        optimizer.save(&path).unwrap();
        let saved = kindling_model::weights::read_tensors(&path).unwrap();
        assert!(!saved.is_empty() && saved.keys().all(|name| name.starts_with("lora.blocks.")), "{kind}: {:?}", saved.keys());
        let mut loaded = Optimizer::load(&config.train, &after, &path, &Device::flex()).unwrap();
        let on = |optimizer: &mut Optimizer| parameters(&stepped(&config, optimizer, after.clone(), 1));
        assert_eq!(on(&mut loaded), on(&mut optimizer), "{kind}");
    }
}

#[test]
fn muon_leaves_the_factors_to_adamw() {
    let config = config(&[]);
    let after = |optimizer| {
        let train = TrainConfig { optimizer, ..config.train.clone() };
        parameters(&stepped(&config, &mut Optimizer::new(&train), model(&config), 2))
    };
    assert_eq!(after(Kind::Muon), after(Kind::AdamW));
    assert_ne!(after(Kind::Lion), after(Kind::AdamW));
}

fn flat(model: &Gpt, grads: &GradientsParams) -> Vec<f32> {
    struct Collect<'a>(&'a GradientsParams, Vec<f32>);
    impl ModuleVisitor for Collect<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.extend(self.0.get::<D>(param.id).map(|grad| to_host(grad).values).unwrap_or_default());
        }
    }
    let mut collect = Collect(grads, Vec::new());
    model.visit(&mut collect);
    collect.1
}

#[test]
fn steps_in_parts_are_steps() {
    for precision in [Precision::F32, Precision::Bf16] {
        let computed = |overrides: &[&str]| {
            let config = config(overrides);
            // Steps at first, or B would be zero.
            let model = stepped(&config, &mut Optimizer::new(&config.train), model(&config).with_precision(precision), 1);
            let (loss, grads) = gradients(&model, &batch(), &config, 5).unwrap();
            (loss, flat(&model, &grads))
        };
        let whole = computed(&[]);
        assert_eq!(whole.1.len(), config(&[]).n_trained());
        assert!(computed(&["train.gradient_checkpointing=true"]) == whole, "{precision:?}");
        let (loss, parts) = computed(&["train.micro_batch_size=4"]);
        let largest = whole.1.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let worst = whole.1.iter().zip(&parts).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max);
        // Measured 3e-7 in f32.
        let bound = if precision == Precision::F32 { 5e-6 } else { 2e-2 };
        assert!((loss - whole.0).abs() < f64::from(bound) && worst < bound, "{precision:?}: {loss} and {}, {worst:.1e}", whole.0);
    }
}
