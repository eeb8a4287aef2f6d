//! A tiny model that is sure of what it says, for tests that need texts to differ.

use std::path::Path;

use burn::tensor::Device;
use kindling_config::{Dropout, ModelConfig, Pooling, Seed};
use kindling_model::Gpt;
use kindling_model::weights::{named_parameters, with_parameters};

/// Two layers of `d_model` on flex, with GPT-2's initial weights of this seed, matrices `factor` times as large.
pub(crate) fn far_from_uniform(vocab_size: usize, context_len: usize, d_model: usize, seed: u64, factor: f32) -> Gpt {
    let config = ModelConfig {
        n_layers: 2,
        n_heads: 2,
        d_model,
        d_ff: 2 * d_model,
        context_len,
        vocab_size,
        bias: true,
        norm_eps: 1e-5,
        dropout: Dropout::NONE,
        n_classes: 0,
        pooling: Pooling::Last,
    };
    let model = Gpt::new(&config, Seed(seed), &Device::flex());
    let scaled = named_parameters(&model).into_iter().map(|(name, mut tensor)| {
        tensor.values.iter_mut().for_each(|value| *value *= if tensor.shape.len() == 2 { factor } else { 1.0 });
        (name, tensor)
    });
    with_parameters(model, scaled.collect(), Path::new("scaled")).expect("the names are the model's own")
}
