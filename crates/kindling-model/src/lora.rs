//! Low-rank adapters beside the linear layers of a model: fresh, in the forward pass, and as what they add to a weight. Where
//! they are on disk is in `weights.rs`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use kindling_config::{LoraConfig, LoraTarget, ModelConfig, Seed};
use kindling_kernels::{Precision, gelu_linear, linear};

use crate::init::Init;

/// The adapters of a whole model: all that LoRA trains (Hu et al., arXiv:2106.09685). Cloning it is cheap: tensors are shared.
#[derive(Module, Debug)]
pub struct Adapter {
    pub(crate) blocks: Vec<BlockAdapter>,
    #[module(skip)]
    config: LoraConfig,
}

/// Those of one block; none where a layer is no target.
#[derive(Module, Debug)]
pub(crate) struct BlockAdapter {
    qkv: Option<Lora>,
    proj: Option<Lora>,
    up: Option<Lora>,
    down: Option<Lora>,
}

/// What is added to x·W + b: scale·(x·A)·B.
#[derive(Module, Debug)]
pub(crate) struct Lora {
    a: Param<Tensor<2>>, // [d_in, rank]
    b: Param<Tensor<2>>, // [rank, d_out]
    #[module(skip)]
    scale: f64,
}

impl Adapter {
    /// Adapters that add nothing yet. A is uniform between ±1/sqrt(d_in), as in the authors' own code and in PEFT (both call it
    /// Kaiming's with a = sqrt(5)); B is zero. Values follow from `seed` alone, on any device.
    ///
    /// # Panics
    /// If `config` was not validated for `model`.
    pub fn new(config: &LoraConfig, model: &ModelConfig, seed: Seed, device: &Device) -> Self {
        assert!(config.validate(model).is_ok(), "adapters are made from a validated config");
        let init = Init { seed, device };
        let block = |i: usize| {
            let lora = |target: LoraTarget| {
                let [d_in, d_out] = target.shape(model);
                config.targets.contains(&target).then(|| Lora {
                    a: init.uniform(&format!("lora.blocks.{i}.{}.a", target.name()), [d_in, config.rank], (d_in as f64).powf(-0.5)),
                    b: init.zeros([config.rank, d_out]),
                    scale: config.scale(),
                })
            };
            BlockAdapter {
                qkv: lora(LoraTarget::Qkv),
                proj: lora(LoraTarget::Proj),
                up: lora(LoraTarget::Up),
                down: lora(LoraTarget::Down),
            }
        };
        Self { blocks: (0..model.n_layers).map(block).collect(), config: config.clone() }
    }

    /// What the adapters were made with.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }
}

impl BlockAdapter {
    /// The adapter beside a layer.
    pub(crate) fn of(&self, target: LoraTarget) -> Option<&Lora> {
        match target {
            LoraTarget::Qkv => self.qkv.as_ref(),
            LoraTarget::Proj => self.proj.as_ref(),
            LoraTarget::Up => self.up.as_ref(),
            LoraTarget::Down => self.down.as_ref(),
        }
    }
}

impl Lora {
    /// `x` `[N, d_in]` to what is added, `[N, d_out]`.
    pub(crate) fn forward(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        self.up(linear(x, self.a.val(), None, precision), precision)
    }

    /// The same of gelu(x).
    pub(crate) fn forward_gelu(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        self.up(gelu_linear(x, self.a.val(), None, precision), precision)
    }

    /// `[N, rank]` to `[N, d_out]`. Scaled where it is narrow.
    fn up(&self, x: Tensor<2>, precision: Precision) -> Tensor<2> {
        linear(x * self.scale, self.b.val(), None, precision)
    }

    /// What it adds to the weight, `[d_in, d_out]`.
    pub(crate) fn product(&self) -> Tensor<2> {
        linear(self.a.val() * self.scale, self.b.val(), None, Precision::F32)
    }
}
