//! The optimizers: groups, formulas, state on disk, and gradients that are not finite.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed unwrap fails the test, and a test prints what it measured")]

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{Optimizer as Kind, RunConfig, Seed, TrainConfig};
use kindling_model::weights::named_parameters;
use kindling_model::{Gpt, ModelError, Pass};
use kindling_train::Optimizer;

fn setup() -> (Gpt, TrainConfig) {
    let overrides =
        ["model.n_layers=1", "model.d_model=16", "model.d_ff=16", "model.context_len=4", "model.vocab_size=11", "train.lr=0.01"];
    let config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &overrides.map(str::to_owned)).unwrap();
    (Gpt::new(&config.model, Seed(1), &Device::flex().autodiff()), config.train)
}

/// Gradients of the loss on a fixed batch, times `scale`.
fn grads(model: &Gpt, scale: f32) -> GradientsParams {
    let device = model.device();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(vec![1i64, 2, 3, 4], [1, 4]), &device);
    let loss = model.loss(ids.clone(), ids, Tensor::ones([1, 4], &device), &Pass::default());
    GradientsParams::from_grads((loss.nats * scale).backward(), model)
}

#[test]
fn matrices_decay_and_norms_and_biases_do_not() {
    let (model, config) = setup();
    let after = |weight_decay| {
        let mut optimizer = Optimizer::new(&TrainConfig { weight_decay, ..config.clone() });
        named_parameters(&optimizer.step(0.01, model.clone(), grads(&model, 1.0)).0)
    };
    for ((name, with), (_, without)) in after(0.5).into_iter().zip(after(0.0)) {
        let decays = with.shape.len() >= 2;
        assert_eq!(with.values != without.values, decays, "{name}");
        assert_eq!(decays, name.ends_with("weight"), "{name}: every matrix is called weight, and nothing else is");
    }
}

#[test]
fn the_whole_gradient_is_clipped_by_one_factor() {
    let (model, config) = setup();
    let step = |grad_clip, scale| {
        Optimizer::new(&TrainConfig { grad_clip, ..config.clone() }).step(0.01, model.clone(), grads(&model, scale)).1.unwrap()
    };
    let norm = step(0.0, 1.0);
    assert!((step(0.0, 3.0) / norm - 3.0).abs() < 1e-4, "the norm is that of before clipping");
    // Clipped to a third of its norm, a gradient is that of a third of the loss: Adam's first step shows it in epsilon alone,
    // so a large epsilon makes the factor visible.
    let config = TrainConfig { epsilon: 1.0, weight_decay: 0.0, ..config.clone() };
    let weights = |grad_clip, scale| {
        let mut optimizer = Optimizer::new(&TrainConfig { grad_clip, ..config.clone() });
        named_parameters(&optimizer.step(0.01, model.clone(), grads(&model, scale)).0)
    };
    for ((name, clipped), (_, scaled)) in weights(norm / 3.0, 1.0).into_iter().zip(weights(0.0, 1.0 / 3.0)) {
        let worst = clipped.values.iter().zip(&scaled.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Measured 3.7e-9.
        assert!(worst < 1e-7, "{name}: {worst:.1e}");
    }
}

const KINDS: [Kind; 4] = [Kind::AdamW, Kind::Muon, Kind::Lion, Kind::Sgd];

#[test]
fn what_is_remembered_goes_on_as_if_never_saved() {
    let (first, config) = setup();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    for (optimizer, momentum) in KINDS.map(|kind| (kind, 0.95)).into_iter().chain([(Kind::Sgd, 0.0)]) {
        let config = TrainConfig { optimizer, momentum, ..config.clone() };
        let (mut optimizer, mut model) = (Optimizer::new(&config), first.clone());
        for _ in 0..2 {
            let grads = grads(&model, 1.0);
            model = optimizer.step(0.01, model, grads).0;
        }
        optimizer.save(&path).unwrap();
        let mut loaded = Optimizer::load(&config, &model, &path, &Device::flex()).unwrap();
        let on = |optimizer: &mut Optimizer| named_parameters(&optimizer.step(0.01, model.clone(), grads(&model, 1.0)).0);
        let (with, fresh) = (on(&mut loaded), on(&mut Optimizer::new(&config)));
        assert_eq!(with, on(&mut optimizer), "{config:?}");
        assert_eq!(with != fresh, momentum > 0.0 || config.optimizer != Kind::Sgd, "what is remembered matters: {config:?}");
    }

    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
    assert!(matches!(Optimizer::load(&config, &first, &path, &Device::flex()), Err(ModelError::Format { .. })));
    Optimizer::new(&config).save(&path).unwrap();
    assert!(matches!(Optimizer::load(&config, &first, &path, &Device::flex()), Err(ModelError::Tensor { .. })), "moments that are missing");
}

#[test]
fn every_optimizer_follows_its_formula() {
    let (model, config) = setup();
    let (lr, beta_1, beta_2, momentum, weight_decay) = (0.01f32, 0.9f32, 0.95f32, 0.8f32, 0.5f32);
    let grads_of = |model: &Gpt| {
        // Read from a step of plain descent with rate 1.
        let plain = TrainConfig { optimizer: Kind::Sgd, momentum: 0.0, weight_decay: 0.0, grad_clip: 0.0, ..config.clone() };
        let after = named_parameters(&Optimizer::new(&plain).step(1.0, model.clone(), grads(model, 1.0)).0);
        let before = named_parameters(model);
        before
            .into_iter()
            .zip(after)
            .map(|((_, b), (_, a))| b.values.iter().zip(&a.values).map(|(b, a)| b - a).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    for kind in [Kind::Lion, Kind::Sgd] {
        let config = TrainConfig {
            optimizer: kind,
            beta_1: beta_1.into(),
            beta_2: beta_2.into(),
            momentum: momentum.into(),
            weight_decay: weight_decay.into(),
            grad_clip: 0.0,
            ..config.clone()
        };
        let mut optimizer = Optimizer::new(&config);
        let (mut model, mut memory) = (model.clone(), Vec::<Vec<f32>>::new());
        for step in 0..3 {
            let (before, g) = (named_parameters(&model), grads_of(&model));
            let grads = grads(&model, 1.0);
            model = optimizer.step(lr.into(), model, grads).0;
            if step == 0 {
                memory = g.iter().map(|g| vec![0.0; g.len()]).collect();
            }
            for (((name, old), (_, new)), (g, m)) in before.iter().zip(named_parameters(&model)).zip(g.iter().zip(&mut memory)) {
                let decay = if old.shape.len() >= 2 { 1.0 - lr * weight_decay } else { 1.0 };
                for (i, g) in g.iter().enumerate() {
                    let update = match kind {
                        Kind::Lion => {
                            let c = beta_1 * m[i] + (1.0 - beta_1) * g;
                            m[i] = beta_2 * m[i] + (1.0 - beta_2) * g;
                            // The sign of what rounds to nothing is anything.
                            if c.abs() < 1e-7 {
                                continue;
                            }
                            c.signum()
                        }
                        _ => {
                            m[i] = momentum * m[i] + g;
                            m[i]
                        }
                    };
                    let expected = old.values[i] * decay - lr * update;
                    // Measured at most 5e-8: gradients are read with the rounding of weights of up to 1.
                    assert!((new.values[i] - expected).abs() < 1e-6, "{kind:?}, step {step}, {name}[{i}]: {} {expected}", new.values[i]);
                }
            }
        }
    }
}

#[test]
fn muon_turns_hidden_matrices_and_leaves_the_rest_to_adamw() {
    let (model, config) = setup();
    let (lr, before) = (0.01, named_parameters(&model));
    let after = |optimizer| {
        let config = TrainConfig { optimizer, weight_decay: 0.0, ..config.clone() };
        named_parameters(&Optimizer::new(&config).step(lr, model.clone(), grads(&model, 1.0)).0)
    };
    for (((name, before), (_, muon)), (_, adamw)) in before.into_iter().zip(after(Kind::Muon)).zip(after(Kind::AdamW)) {
        let is_hidden = name.starts_with("blocks.") && before.shape.len() == 2;
        assert_eq!(muon != adamw, is_hidden, "{name}");
        if !is_hidden {
            continue;
        }
        let (rows, cols) = (before.shape[0], before.shape[1]);
        // An orthogonal step has all singular values at 1, which five iterations reach roughly: 0.68 to 1.13 (Jordan 2024). Their
        // squares add up to the squared norm. Directions that the gradient hardly has stay short.
        let scale = lr * 0.2 * (rows.max(cols) as f64).sqrt();
        let squares: f64 = before.values.iter().zip(&muon.values).map(|(b, a)| (f64::from(b - a) / scale).powi(2)).sum();
        let mean = squares / rows.min(cols) as f64;
        println!("{name}: mean squared singular value {mean:.3}");
        assert!((0.05..1.3).contains(&mean), "{name}: {mean}");
        // AdamW's first step moves every value by lr; this one by as much, in the mean of squares, if all directions take part.
        let rms = (squares * scale * scale / (rows * cols) as f64).sqrt();
        assert!(rms < 0.25 * lr, "{name}: {rms}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_changes_nothing() {
    let (model, config) = setup();
    let (after, norm) = Optimizer::new(&config).step(0.01, model.clone(), grads(&model, f32::NAN));
    let error = norm.unwrap_err();
    assert_eq!(named_parameters(&after), named_parameters(&model));
    assert_eq!(error.parameter, "tok_embedding.weight");
}
