//! AdamW's groups, its state on disk, and gradients that are not finite.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed unwrap fails the test, and a test prints what it measured")]

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_config::{RunConfig, Seed, TrainConfig};
use kindling_model::weights::named_parameters;
use kindling_model::{Gpt, ModelError, Pass};
use kindling_train::AdamW;

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
        let mut optimizer = AdamW::new(&TrainConfig { weight_decay, ..config.clone() });
        named_parameters(&optimizer.step(0.01, model.clone(), grads(&model, 1.0)).unwrap().0)
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
        AdamW::new(&TrainConfig { grad_clip, ..config.clone() }).step(0.01, model.clone(), grads(&model, scale)).unwrap()
    };
    let norm = step(0.0, 1.0).1;
    assert!((step(0.0, 3.0).1 / norm - 3.0).abs() < 1e-4, "the norm is that of before clipping");
    // Clipped to a third of its norm, a gradient is that of a third of the loss: Adam's first step shows it in epsilon alone,
    // so a large epsilon makes the factor visible.
    let config = TrainConfig { epsilon: 1.0, weight_decay: 0.0, ..config.clone() };
    let weights = |grad_clip, scale| {
        let mut optimizer = AdamW::new(&TrainConfig { grad_clip, ..config.clone() });
        named_parameters(&optimizer.step(0.01, model.clone(), grads(&model, scale)).unwrap().0)
    };
    for ((name, clipped), (_, scaled)) in weights(norm / 3.0, 1.0).into_iter().zip(weights(0.0, 1.0 / 3.0)) {
        let worst = clipped.values.iter().zip(&scaled.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Measured 3.7e-9.
        assert!(worst < 1e-7, "{name}: {worst:.1e}");
    }
}

#[test]
fn saved_moments_go_on_as_if_never_saved() {
    let (model, config) = setup();
    let mut optimizer = AdamW::new(&config);
    let mut model = model;
    for _ in 0..2 {
        let grads = grads(&model, 1.0);
        model = optimizer.step(0.01, model, grads).unwrap().0;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("optimizer.safetensors");
    optimizer.save(&path).unwrap();
    let mut loaded = AdamW::load(&config, &model, &path, &Device::flex()).unwrap();
    let on = |optimizer: &mut AdamW| named_parameters(&optimizer.step(0.01, model.clone(), grads(&model, 1.0)).unwrap().0);
    assert_eq!(on(&mut loaded), on(&mut optimizer));

    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
    assert!(matches!(AdamW::load(&config, &model, &path, &Device::flex()), Err(ModelError::Format { .. })));
    AdamW::new(&config).save(&path).unwrap();
    assert!(matches!(AdamW::load(&config, &model, &path, &Device::flex()), Err(ModelError::Tensor { .. })), "moments that are missing");
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_changes_nothing() {
    let (model, config) = setup();
    let error = AdamW::new(&config).step(0.01, model.clone(), grads(&model, f32::NAN)).unwrap_err();
    assert_eq!(error.parameter, "tok_embedding.weight");
}
