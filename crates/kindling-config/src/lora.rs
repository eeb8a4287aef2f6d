//! Which low-rank adapters are trained beside frozen weights. Knows no tensors.

use serde::{Deserialize, Serialize};

use crate::{ConfigError, ModelConfig};

/// Low-rank adapters, LoRA (Hu et al., arXiv:2106.09685): a linear layer computes x·W + b + (alpha / rank)·(x·A)·B with W and b
/// frozen, A `[d_in, rank]` and B `[rank, d_out]` trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Columns of A and rows of B.
    pub rank: usize,
    /// What the product of A and B counts, times `rank`. With Adam's steps the product then begins to move at a speed that does not
    /// depend on the rank, so that one learning rate fits all ranks.
    pub alpha: f64,
    /// Which linear layers of each block have an adapter.
    pub targets: Vec<LoraTarget>,
}

/// A linear layer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoraTarget {
    /// Queries, keys and values of attention: `[C, 3C]`, C being `d_model`.
    Qkv,
    /// From the heads into the residual stream: `[C, C]`.
    Proj,
    /// Into the MLP's hidden layer: `[C, d_ff]`.
    Up,
    /// From the hidden layer into the residual stream: `[d_ff, C]`.
    Down,
}

impl LoraTarget {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 4] = [Self::Qkv, Self::Proj, Self::Up, Self::Down];

    /// As files and options spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "qkv",
            Self::Proj => "proj",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// The layer's weight, `[d_in, d_out]`.
    pub fn shape(self, model: &ModelConfig) -> [usize; 2] {
        let (c, f) = (model.d_model, model.d_ff);
        match self {
            Self::Qkv => [c, 3 * c],
            Self::Proj => [c, c],
            Self::Up => [c, f],
            Self::Down => [f, c],
        }
    }
}

impl LoraConfig {
    /// What the product of A and B is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }

    /// Values of A and B in all layers of a model.
    pub fn n_params(&self, model: &ModelConfig) -> usize {
        let sides = self.targets.iter().map(|target| target.shape(model).iter().sum::<usize>());
        model.n_layers * self.rank * sides.sum::<usize>()
    }

    /// Checks that the adapters fit a model.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first key that does not.
    pub fn validate(&self, model: &ModelConfig) -> Result<(), ConfigError> {
        // Beyond the shorter side of a matrix there are no more ranks.
        let most = model.d_model.min(model.d_ff);
        let invalid = |key, found: String, expected: String, hint: &str| {
            Err(ConfigError::Invalid { key, found, expected, hint: Some(hint.to_owned()) })
        };
        if !(1..=most).contains(&self.rank) {
            let expected = format!("a whole number from 1 to {most}, the shorter side of the model's matrices");
            return invalid(
                "base.lora.rank",
                self.rank.to_string(),
                expected,
                "8 or 16 is usual; to train all weights, leave adapters out",
            );
        }
        // As the model computes with it.
        if !(self.scale() as f32 > 0.0 && (self.scale() as f32).is_finite()) {
            return invalid("base.lora.alpha", self.alpha.to_string(), "a number above 0".into(), "32 is usual, whatever the rank is");
        }
        let names = LoraTarget::ALL.map(|target| format!("`{}`", target.name())).join(", ");
        let again = self.targets.iter().enumerate().find(|(i, target)| self.targets[..*i].contains(target));
        match again {
            _ if self.targets.is_empty() => {
                invalid("base.lora.targets", "empty".into(), format!("some of {names}"), "all four learn most for their size")
            }
            Some((_, target)) => {
                let found = format!("`{}` twice", target.name());
                invalid("base.lora.targets", found, format!("each of {names} once at most"), "leave one of the two out")
            }
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for LoraTarget {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let unknown = || format!("expected one of {}", Self::ALL.map(|target| format!("`{}`", target.name())).join(", "));
        Self::ALL.into_iter().find(|target| target.name() == name).ok_or_else(unknown)
    }
}
