//! Initial weights, drawn on the host: the device's generator is global and cannot be read back.

use burn::module::Param;
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor, TensorData};
use kindling_config::Seed;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};

/// Draws each parameter from a stream of its own, so that a new parameter never shifts another's values.
pub(crate) struct Init<'a> {
    pub(crate) seed: Seed,
    pub(crate) device: &'a Device,
}

impl Init<'_> {
    fn draw(&self, name: &str, shape: [usize; 2], from: impl Distribution<f64>) -> Param<Tensor<2>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed.stream(&format!("init/{name}")));
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| from.sample(&mut rng) as f32).collect();
        Param::from_data(TensorData::new(values, shape), self.device)
    }

    fn normal(&self, name: &str, shape: [usize; 2], std: f64) -> Param<Tensor<2>> {
        self.draw(name, shape, Normal::new(0.0, std).expect("a standard deviation is positive"))
    }

    /// Values between `-limit` and `limit`.
    pub(crate) fn uniform(&self, name: &str, shape: [usize; 2], limit: f64) -> Param<Tensor<2>> {
        self.draw(name, shape, Uniform::new(-limit, limit).expect("a limit is positive"))
    }

    pub(crate) fn zeros<const D: usize>(&self, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_data(TensorData::new(vec![0f32; shape.iter().product()], shape), self.device)
    }

    pub(crate) fn embedding(&self, name: &str, n: usize, d: usize, std: f64) -> Embedding {
        Embedding { weight: self.normal(name, [n, d], std) }
    }

    pub(crate) fn linear(&self, name: &str, d_in: usize, d_out: usize, bias: bool, std: f64) -> Linear {
        Linear { weight: self.normal(name, [d_in, d_out], std), bias: bias.then(|| self.zeros([d_out])) }
    }

    pub(crate) fn norm(&self, d: usize, bias: bool, eps: f64) -> LayerNorm {
        LayerNormConfig::new(d).with_bias(bias).with_epsilon(eps).init(self.device)
    }
}
