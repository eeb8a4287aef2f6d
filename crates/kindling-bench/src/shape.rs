//! The shapes that training is timed at. The Python peer has the same.

use anyhow::Context;
use kindling_config::RunConfig;

/// A GPT-2 and a batch for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// The small recipe of character-level Shakespeare for a CPU
    Small,
    /// The full recipe of character-level Shakespeare
    Medium,
    /// GPT-2 124M with one sequence
    Gpt2,
}

impl Shape {
    pub(crate) const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Gpt2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Gpt2 => "gpt2",
        }
    }

    /// Layers, heads, d_model, context, batch, vocabulary.
    pub(crate) fn sizes(self) -> [usize; 6] {
        match self {
            Self::Small => [4, 4, 128, 64, 12, 65],
            Self::Medium => [6, 6, 384, 256, 64, 65],
            Self::Gpt2 => [12, 12, 768, 1024, 1, 50_304],
        }
    }

    /// Timed steps of one measurement.
    pub(crate) fn steps(self) -> usize {
        match self {
            Self::Small => 100,
            Self::Medium | Self::Gpt2 => 3,
        }
    }

    /// Parameters, without biases.
    pub(crate) fn parameters(self) -> usize {
        let [layers, _, c, t, _, v] = self.sizes();
        layers * (12 * c * c + 2 * c) + (v + t + 1) * c
    }

    /// FLOPs a step: 6 for each parameter and token, less the position embeddings, which are looked up, and 6·L·C·T a token
    /// for causal attention: half of the 12·L·C·T that PaLM (arXiv:2204.02311, appendix B) counts for the full one.
    pub(crate) fn flops(self) -> f64 {
        let [layers, _, c, t, b, _] = self.sizes();
        (6 * (self.parameters() - t * c) + 6 * layers * c * t) as f64 * (b * t) as f64
    }

    /// A run of this shape.
    pub(crate) fn config(self) -> anyhow::Result<RunConfig> {
        let [layers, heads, c, t, b, v] = self.sizes();
        let changes = [
            format!("model.n_layers={layers}"),
            format!("model.n_heads={heads}"),
            format!("model.d_model={c}"),
            format!("model.d_ff={}", 4 * c),
            format!("model.context_len={t}"),
            format!("model.vocab_size={v}"),
            format!("train.batch_size={b}"),
            // No text is read, but a config without any is refused.
            "data.paths=[\"unused\"]".to_owned(),
        ];
        let text = include_str!("../../../configs/shakespeare-char.toml");
        RunConfig::from_toml(text, "shakespeare-char.toml", &changes).context("the shape makes a valid run")
    }
}
