//! The model and the optimizer against `transformers`' GPT2LMHeadModel and torch's AdamW, from golden files that
//! `tests/golden/gpt2_parity.py` makes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed unwrap fails the test, and a test prints what it measured")]

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{Dropout, ModelConfig, Precision, Schedule, Seed, TrainConfig};
use kindling_model::weights::{HostTensor, named_parameters, to_host, with_parameters};
use kindling_model::{Gpt, Pass};
use kindling_train::Optimizer;
use safetensors::{Dtype, SafeTensors};

/// Bounds relative to each tensor's largest entry.
/// Measured on flex, with biases and without: logits 5.6e-7 and 5.5e-7, gradients 1.1e-6 and 1.0e-6, losses 2.5e-7 and 1.5e-6.
const LOGITS: f64 = 1e-5;
const GRADIENTS: f64 = 1e-4;
const LOSSES: f64 = 1e-4;

/// The mistakes that the golden files hold outputs of: another GELU, attention scale, norm epsilon, or mask.
const MUTANTS: [&str; 5] = ["gelu_exact", "attention_scale", "norm_epsilon", "mask", "mask_shifted"];

struct Golden {
    floats: BTreeMap<String, HostTensor>,
    ints: BTreeMap<String, Vec<i64>>,
    metadata: std::collections::HashMap<String, String>,
}

impl Golden {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name);
        let bytes = std::fs::read(&path).unwrap();
        let metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
        let (mut floats, mut ints) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            let words = view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
            if view.dtype() == Dtype::I32 {
                ints.insert(name.to_owned(), words.map(|b| i64::from(i32::from_le_bytes(b))).collect());
            } else {
                let tensor = HostTensor { shape: view.shape().to_vec(), values: words.map(f32::from_le_bytes).collect() };
                floats.insert(name.to_owned(), tensor);
            }
        }
        Self { floats, ints, metadata }
    }

    fn number(&self, key: &str) -> f64 {
        self.metadata[key].parse().unwrap()
    }

    fn model(&self, bias: bool, device: &Device) -> Gpt {
        let size = |key| self.number(key) as usize;
        let config = ModelConfig {
            n_layers: size("n_layers"),
            n_heads: size("n_heads"),
            d_model: size("d_model"),
            d_ff: 4 * size("d_model"),
            context_len: size("context_len"),
            vocab_size: size("vocab_size"),
            bias,
            norm_eps: self.number("norm_eps"),
            dropout: Dropout::NONE,
            n_classes: 0,
            pooling: kindling_config::Pooling::Last,
        };
        let model = Gpt::new(&config, Seed(1), device);
        let values = named_parameters(&model).into_iter().map(|(name, _)| {
            let golden = self.floats[&format!("param.{}", hugging_face_name(&name))].clone();
            (name, golden)
        });
        let values = values.collect();
        with_parameters(model, values, Path::new("golden")).unwrap()
    }

    fn batch(&self, device: &Device) -> (Tensor<2, Int>, Tensor<2, Int>, Tensor<2>) {
        let weights = &self.floats["weights"];
        let shape: [usize; 2] = weights.shape.clone().try_into().unwrap();
        let ints = |key: &str| Tensor::from_data(TensorData::new(self.ints[key].clone(), shape), device);
        (ints("ids"), ints("targets"), Tensor::from_data(TensorData::new(weights.values.clone(), shape), device))
    }

    fn train_config(&self) -> TrainConfig {
        TrainConfig {
            steps: 10,
            batch_size: 3,
            micro_batch_size: 0,
            optimizer: kindling_config::Optimizer::AdamW,
            schedule: Schedule::Cosine,
            lr: self.number("lr"),
            min_lr: self.number("lr"),
            warmup_steps: 0,
            decay_fraction: 0.2,
            beta_1: self.number("beta_1"),
            beta_2: self.number("beta_2"),
            momentum: 0.95,
            epsilon: self.number("epsilon"),
            weight_decay: self.number("weight_decay"),
            grad_clip: self.number("grad_clip"),
            precision: Precision::F32,
            gradient_checkpointing: false,
            max_tokens: None,
            max_flops: None,
            max_hours: None,
            patience: 0,
            log_every: 1,
            eval_every: 1,
            sample_every: 0,
            checkpoint_every: 1,
            keep_checkpoints: 1,
            keep_every: 0,
            spike_guard: None,
            ema: 0.0,
            label_smoothing: 0.0,
            z_loss: 0.0,
        }
    }
}

/// `blocks.0.attn.qkv.weight` as transformers has it: `h.0.attn.c_attn.weight`.
fn hugging_face_name(name: &str) -> String {
    [
        ("tok_embedding", "wte"),
        ("pos_embedding", "wpe"),
        ("final_norm", "ln_f"),
        ("blocks", "h"),
        ("attn_norm", "ln_1"),
        ("mlp_norm", "ln_2"),
        ("attn.qkv", "attn.c_attn"),
        ("attn.proj", "attn.c_proj"),
        ("mlp.up", "mlp.c_fc"),
        ("mlp.down", "mlp.c_proj"),
        ("gamma", "weight"),
        ("beta", "bias"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}

fn difference(found: &HostTensor, expected: &HostTensor) -> f64 {
    assert_eq!(found.values.len(), expected.values.len());
    let largest = expected.values.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
    found.values.iter().zip(&expected.values).map(|(a, b)| f64::from((a - b).abs()) / largest).fold(0.0, f64::max)
}

fn named_gradients(model: &Gpt, grads: &GradientsParams) -> BTreeMap<String, HostTensor> {
    struct Collect<'a>(&'a GradientsParams, Vec<String>, BTreeMap<String, HostTensor>);
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.1.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.1.join(".");
            let grad = self.0.get::<D>(param.id).unwrap_or_else(|| panic!("`{name}` has a gradient"));
            self.2.insert(hugging_face_name(&name), to_host(grad));
        }
    }
    let mut collect = Collect(grads, Vec::new(), BTreeMap::new());
    model.visit(&mut collect);
    collect.2
}

fn check(file: &str, bias: bool) {
    let golden = Golden::read(file);
    let device = Device::flex().autodiff();
    let mut model = golden.model(bias, &device);
    let (ids, targets, weights) = golden.batch(&device);

    let logits = to_host(model.forward(ids.clone(), &Pass::default()));
    let found = difference(&logits, &golden.floats["logits"]);
    println!("{file}: logits differ by {found:.1e}");
    assert!(found < LOGITS, "logits differ by {found:.1e}");

    let loss = model.loss(ids.clone(), targets.clone(), weights.clone(), &Pass::default());
    let mean = loss.nats / loss.weight;
    let expected_loss = f64::from(golden.floats["loss"].values[0]);
    assert!((f64::from(mean.clone().into_scalar::<f32>()) - expected_loss).abs() < LOSSES * expected_loss);

    let gradients = named_gradients(&model, &GradientsParams::from_grads(mean.backward(), &model));
    let expected: Vec<_> = golden.floats.iter().filter_map(|(name, grad)| Some((name.strip_prefix("grad.")?, grad))).collect();
    assert_eq!(gradients.len(), expected.len(), "every parameter has its gradient");
    let mut worst = 0f64;
    for (name, expected) in expected {
        let found = difference(&gradients[name], expected);
        worst = worst.max(found);
        assert!(found < GRADIENTS, "gradient of {name} differs by {found:.1e}");
    }
    println!("{file}: gradients differ by {worst:.1e}");

    // What a wrong model would give must not pass: each mutant is far outside of the bounds that ours is inside of.
    for mutant in MUTANTS {
        let by_logits = difference(&logits, &golden.floats[&format!("mutant.{mutant}.logits")]);
        assert!(by_logits > 10.0 * LOGITS, "{mutant} would pass by logits: {by_logits:.1e}");
        for name in ["h.0.attn.c_attn.weight", "h.1.mlp.c_fc.weight", "wte.weight"] {
            let by_gradient = difference(&gradients[name], &golden.floats[&format!("mutant.{mutant}.grad.{name}")]);
            assert!(by_gradient > 2.0 * GRADIENTS, "{mutant} would pass by the gradient of {name}: {by_gradient:.1e}");
        }
    }

    let train = golden.train_config();
    let mut optimizer = Optimizer::new(&train);
    let mut losses = Vec::new();
    for step in 0..=10 {
        let loss = model.loss(ids.clone(), targets.clone(), weights.clone(), &Pass::default());
        let mean = loss.nats / loss.weight;
        losses.push(mean.clone().into_scalar::<f32>());
        if step < 10 {
            let (next, norm) = optimizer.step(train.lr, model.clone(), GradientsParams::from_grads(mean.backward(), &model));
            let norm = norm.unwrap();
            let expected = f64::from(golden.floats["adamw.grad_norms"].values[step]);
            assert!((norm - expected).abs() < 1e-4 * expected, "norm of step {step}: {norm}, expected {expected}");
            model = next;
        }
    }
    let mut expected = golden.floats["adamw.losses"].values.clone();
    expected.extend(&golden.floats["adamw.final_loss"].values);
    let worst = losses.iter().zip(&expected).map(|(a, b)| f64::from((a - b).abs() / b)).fold(0.0, f64::max);
    println!("{file}: losses of ten AdamW steps differ by {worst:.1e}");
    assert!(worst < LOSSES, "losses {losses:?}, expected {expected:?}");
    assert!(losses[0] - losses[10] >= 0.5, "the loss falls by {}", losses[0] - losses[10]);
}

#[test]
fn gpt2_with_biases_equals_transformers() {
    check("gpt2_bias.safetensors", true);
}

#[test]
fn gpt2_without_biases_equals_transformers() {
    check("gpt2_nobias.safetensors", false);
}
