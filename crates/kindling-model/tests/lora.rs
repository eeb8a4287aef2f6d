//! Adapters: what they add, their gradients, several beside one model, and their files.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed unwrap fails the test, and a test prints what it measured")]

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use kindling_config::{Dropout, LoraConfig, LoraTarget, ModelConfig, Seed};
use kindling_kernels::{Form, Isa, with_form};
use kindling_model::weights::{self, HostTensor, named_parameters, to_host, trained_parameters, with_parameters};
use kindling_model::{Adapter, Gpt, ModelError, Pass, Sequence};

const VOCAB: usize = 29;

fn config() -> ModelConfig {
    let dropout = Dropout::NONE;
    ModelConfig {
        n_layers: 2,
        n_heads: 4,
        d_model: 32,
        d_ff: 48,
        context_len: 12,
        vocab_size: VOCAB,
        bias: true,
        norm_eps: 1e-5,
        dropout,
        n_classes: 0,
        pooling: kindling_config::Pooling::Last,
    }
}

fn lora(targets: &[LoraTarget]) -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, targets: targets.to_vec() }
}

/// Weights ten times as large as initial ones, so that attention is far from uniform.
fn model(device: &Device) -> Gpt {
    let model = Gpt::new(&config(), Seed(4), device);
    let scaled = named_parameters(&model).into_iter().map(|(name, mut tensor)| {
        let factor = if tensor.shape.len() == 2 { 10.0 } else { 1.0 };
        tensor.values.iter_mut().for_each(|value| *value *= factor);
        (name, tensor)
    });
    with_parameters(model, scaled.collect(), Path::new("scaled")).unwrap()
}

/// An adapter whose B is not zero any more.
fn trained(lora: &LoraConfig, seed: u64, device: &Device) -> Adapter {
    let adapter = Adapter::new(lora, &config(), Seed(seed), device);
    let other: BTreeMap<_, _> = named_parameters(&Adapter::new(lora, &config(), Seed(seed + 100), device)).into_iter().collect();
    let values = named_parameters(&adapter).into_iter().map(|(name, mut tensor)| {
        if name.ends_with(".b") {
            let drawn = other[&format!("{}.a", name.trim_end_matches(".b"))].values.iter().cycle();
            tensor.values.iter_mut().zip(drawn).for_each(|(value, drawn)| *value = *drawn);
        }
        (name, tensor)
    });
    with_parameters(adapter.clone(), values.collect(), Path::new("trained")).unwrap()
}

fn ids(n_rows: usize, t: usize, device: &Device) -> Tensor<2, Int> {
    let ids = (0..n_rows * t).map(|i| ((i * 7 + i * i + 3) % VOCAB) as i64).collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(ids, [n_rows, t]), device)
}

fn logits(model: &Gpt) -> Vec<f32> {
    to_host(model.forward(ids(2, 12, &model.device()), &Pass::default())).values
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The loss of a batch, its gradients, and which parameters have them.
fn gradients(model: &Gpt) -> BTreeMap<String, HostTensor> {
    struct Collect<'a>(&'a Gradients, Vec<String>, BTreeMap<String, HostTensor>);
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.1.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.1.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.2.extend(param.val().grad(self.0).map(|grad| (self.1.join("."), to_host(grad))));
        }
    }
    let ids = ids(2, 12, &model.device());
    let loss = model.loss(ids.clone(), ids, Tensor::ones([2, 12], &model.device()), &Pass::default());
    let mut collect = Collect(&loss.nats.backward(), Vec::new(), BTreeMap::new());
    model.visit(&mut collect);
    collect.2
}

fn matrix(tensor: &HostTensor) -> Tensor<2> {
    Tensor::from_data(TensorData::new(tensor.values.clone(), tensor.shape.clone()), &Device::flex())
}

#[test]
fn a_fresh_adapter_changes_no_bit() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let model = model(&device);
        for targets in [&LoraTarget::ALL[..], &[LoraTarget::Qkv], &[LoraTarget::Down]] {
            let adapted = model.with_adapter(Adapter::new(&lora(targets), &config(), Seed(1), &device));
            assert_eq!(bits(&logits(&adapted)), bits(&logits(&model)), "{targets:?}");
            assert_eq!(trained_parameters(&adapted).len(), if device.is_autodiff() { 4 * targets.len() } else { 0 });
        }
    }
    // A is uniform, with the variance of its limits.
    let wide = ModelConfig { d_model: 256, ..config() };
    let fresh = named_parameters(&Adapter::new(&LoraConfig { rank: 16, ..lora(&LoraTarget::ALL) }, &wide, Seed(1), &Device::flex()));
    for (name, tensor) in fresh {
        let largest = tensor.values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        if name.ends_with(".b") {
            assert_eq!(largest, 0.0, "{name}");
            continue;
        }
        let limit = (tensor.shape[0] as f32).powf(-0.5);
        let mean_square = tensor.values.iter().map(|value| value * value).sum::<f32>() / tensor.values.len() as f32;
        assert!(largest <= limit && largest > 0.98 * limit, "{name}: {largest} of {limit}");
        assert!((3.0 * mean_square / (limit * limit) - 1.0).abs() < 0.15, "{name}: {mean_square}");
    }
}

#[test]
fn gradients_are_those_of_the_product_and_nothing_else_has_any() {
    let device = Device::flex().autodiff();
    for form in [Form::Composed, Form::Fused(Isa::detect())] {
        for targets in [&LoraTarget::ALL[..], &[LoraTarget::Proj, LoraTarget::Down]] {
            let (lora, model) = (lora(targets), model(&device));
            let adapter = trained(&lora, 1, &device);
            let values: BTreeMap<_, _> = named_parameters(&adapter).into_iter().collect();
            let adapted = model.with_adapter(adapter);
            // The same weights as one model, all of it trained.
            let merged = named_parameters(&adapted.merged()).into_iter().collect();
            let merged = with_parameters(Gpt::new(&config(), Seed(0), &device), merged, Path::new("merged")).unwrap();
            let (found, dense) = with_form(form, || (gradients(&adapted), gradients(&merged)));
            assert_eq!(found.keys().cloned().collect::<Vec<_>>(), values.keys().map(|name| format!("lora.{name}")).collect::<Vec<_>>());
            for i in 0..2 {
                for target in targets {
                    let name = format!("blocks.{i}.{}", target.name());
                    let layer = if matches!(target, LoraTarget::Qkv | LoraTarget::Proj) { "attn" } else { "mlp" };
                    let d_w = matrix(&dense[&format!("blocks.{i}.{layer}.{}.weight", target.name())]);
                    let (a, b) = (matrix(&values[&format!("{name}.a")]), matrix(&values[&format!("{name}.b")]));
                    let expected = [("a", d_w.clone().matmul(b.transpose()) * 2.0), ("b", a.transpose().matmul(d_w) * 2.0)];
                    for (factor, expected) in expected {
                        let (found, expected) = (&found[&format!("lora.{name}.{factor}")], to_host(expected));
                        assert_eq!(found.shape, expected.shape);
                        let largest = expected.values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                        let difference = worst(&found.values, &expected.values) / largest;
                        println!("{form:?} {name}.{factor}: {difference:.1e}");
                        // Measured at most 9.4e-7.
                        assert!(largest > 1e-3 && difference < 1e-5, "{form:?} {name}.{factor}: {difference:.1e} of {largest:.1e}");
                    }
                }
            }
        }
    }
}

#[test]
fn merged_is_as_kept_apart_and_so_is_the_cache() {
    let device = Device::flex();
    let (model, lora) = (model(&device), lora(&LoraTarget::ALL));
    let adapted = model.with_adapter(trained(&lora, 1, &device));
    let (apart, merged) = (logits(&adapted), logits(&adapted.merged()));
    let (difference, moved) = (worst(&apart, &merged), worst(&apart, &logits(&model)));
    println!("merged differs by {difference:.1e}, the base by {moved:.1e}");
    // Measured 1.6e-6; the adapter moves logits by 1.9.
    assert!(difference < 2e-5 && moved > 1.0, "merged differs by {difference:.1e}, the base by {moved:.1e}");
    assert!(adapted.merged().adapter().is_none());
    assert_eq!(logits(&model.merged()), logits(&model), "without an adapter there is nothing to fold");

    let ids = ids(2, 12, &device);
    let rows: Vec<u32> = ids.clone().into_data().iter::<i64>().map(|id| id as u32).collect();
    let (mut cache, mut sequences) = (adapted.cache(), [Sequence::default(), Sequence::default()]);
    for (start, n) in [(0, 5), (5, 1), (6, 4), (10, 2)] {
        let mut steps: Vec<_> = sequences.iter_mut().zip(rows.chunks(12).map(|row| &row[start..start + n])).collect();
        let cached = to_host(adapted.forward_cached(&mut steps, &mut cache));
        let at_once = adapted.forward(ids.clone().slice([0..2, 0..start + n]), &Pass::default());
        let last = to_host(at_once.slice([0..2, start + n - 1..start + n, 0..VOCAB]));
        // Measured at most 1.4e-6.
        assert!(worst(&cached.values, &last.values) < 1e-5, "after {} tokens", start + n);
    }
}

#[test]
fn adapters_side_by_side_disturb_neither_each_other_nor_the_base() {
    let device = Device::flex();
    let (base, lora) = (model(&device), lora(&LoraTarget::ALL));
    let alone = |seed| logits(&model(&device).with_adapter(trained(&lora, seed, &device)));
    let (one, two) = (base.with_adapter(trained(&lora, 1, &device)), base.with_adapter(trained(&lora, 2, &device)));
    let before = logits(&base);
    for _ in 0..2 {
        assert_eq!((logits(&one), logits(&two)), (alone(1), alone(2)));
        drop(one.merged());
        assert_eq!(logits(&base), before);
    }
    assert_ne!(alone(1), alone(2));
    assert_eq!(logits(&two.with_adapter(trained(&lora, 1, &device))), alone(1), "an adapter takes the place of another");
    assert_eq!(logits(&two.without_adapter()), before);
}

#[test]
fn a_saved_adapter_is_loaded_beside_its_own_base_alone() {
    let dir = std::env::temp_dir().join(format!("kindling-adapters-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (path, device) = (dir.join("adapter.safetensors"), Device::flex());
    let adapter = trained(&lora(&[LoraTarget::Qkv, LoraTarget::Up]), 1, &device);
    weights::save_adapter(&adapter, "abc", &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    weights::save_adapter(&adapter, "abc", &path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same bytes each time");

    let load = |base: &str, model: &ModelConfig| weights::load_adapter(&path, base, model, &device);
    let loaded = load("abc", &config()).unwrap();
    assert_eq!((named_parameters(&loaded), loaded.config()), (named_parameters(&adapter), adapter.config()));
    let error = load("abd", &config()).unwrap_err();
    let ModelError::Base { found, expected, .. } = &error else { panic!("{error}") };
    assert_eq!((found.as_str(), expected.as_str()), ("abc", "abd"));
    assert!(error.hint().is_some());
    for other in [ModelConfig { n_layers: 1, ..config() }, ModelConfig { d_ff: 40, ..config() }] {
        assert!(matches!(load("abc", &other), Err(ModelError::Tensor { .. })), "{other:?}");
    }
    // Neither kind of file is taken for the other.
    assert!(matches!(weights::load(&path, &config(), &device), Err(ModelError::Version { key: "kindling", found: None, .. })));
    weights::save(&model(&device).with_adapter(adapter), &path).unwrap();
    assert!(matches!(load("abc", &config()), Err(ModelError::Version { key: "kindling-adapter", found: None, .. })));
    assert_eq!(named_parameters(&weights::load(&path, &config(), &device).unwrap()), named_parameters(&model(&device)));
    // Another version, and what is cut short.
    for (from, to, is_version) in [("\\\"version\\\":1", "\\\"version\\\":2", true), ("\\\"rank\\\":3", "\\\"rank\\\":0", false)] {
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut other = bytes.clone();
        other[at..at + from.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, other).unwrap();
        assert_eq!(matches!(load("abc", &config()).unwrap_err(), ModelError::Version { .. }), is_version, "{to}");
    }
    std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(load("abc", &config()), Err(ModelError::Format { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
}
