//! The shape of a model. Says nothing of how it is trained.

use serde::{Deserialize, Serialize};

use crate::ConfigError;

/// A GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, tanh-GELU, tied head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Transformer blocks.
    pub n_layers: usize,
    /// Attention heads a block; must divide `d_model`.
    pub n_heads: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of the hidden layer of each MLP; GPT-2 has `4 * d_model`.
    pub d_ff: usize,
    /// Longest sequence in tokens: the number of learned positions.
    pub context_len: usize,
    /// Rows of the token embedding. 0 in a file means: as many as the tokenizer has.
    #[serde(default)]
    pub vocab_size: usize,
    /// Whether linear layers and layer norms have biases.
    pub bias: bool,
    /// Added to the variance in each layer norm.
    pub norm_eps: f64,
    /// Dropout probabilities while training.
    pub dropout: Dropout,
    /// Outputs of a classification head in place of the head over the vocabulary; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_classes: usize,
    /// What a classification head reads.
    #[serde(default, skip_serializing_if = "Pooling::is_last")]
    pub pooling: Pooling,
}

/// What a classification head reads of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The place of the last token, which has seen all others.
    #[default]
    Last,
    /// The mean over the places of all tokens.
    Mean,
}

impl Pooling {
    fn is_last(&self) -> bool {
        *self == Self::Last
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Probabilities with which activations are set to zero while training (Srivastava et al. 2014).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// After the sum of token and position embedding.
    pub embedding: f64,
    /// On the attention probabilities.
    pub attention: f64,
    /// On what each attention and MLP adds to the residual stream.
    pub residual: f64,
    /// One mask for all places of a sequence, of embeddings and of what is added to the residual stream (Gal and Ghahramani,
    /// arXiv:1512.05287). Attention probabilities are dropped one by one in any case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub variational: bool,
    /// Of whole tokens: where one is dropped its position is all that is seen of it (word dropout, Iyyer et al. 2015, P15-1162).
    #[serde(default, skip_serializing_if = "is_off")]
    pub word: f64,
}

fn is_off(p: &f64) -> bool {
    *p == 0.0
}

impl Dropout {
    /// No dropout anywhere.
    pub const NONE: Self = Self { embedding: 0.0, attention: 0.0, residual: 0.0, variational: false, word: 0.0 };
}

/// Larger sizes than any model has.
const MAX_SIZE: usize = 1 << 24;
/// More parameters than any one machine trains; below it no product of sizes overflows.
const MAX_PARAMS: f64 = (1u64 << 40) as f64;

impl ModelConfig {
    /// Trainable parameters, with the head tied to the token embedding.
    pub fn n_params(&self) -> usize {
        let (c, f, b) = (self.d_model, self.d_ff, usize::from(self.bias));
        let norm = c + b * c;
        let attention = 4 * c * c + b * 4 * c;
        let mlp = 2 * c * f + b * (f + c);
        (self.vocab_size + self.n_classes + self.context_len) * c + self.n_layers * (2 * norm + attention + mlp) + norm
    }

    /// Floating point operations of training on one token: 6 for each parameter that multiplies, forward and backward, and
    /// those of attention, 12·L·C·T (PaLM, arXiv:2204.02311, appendix B). The position table multiplies nothing, and the token
    /// embedding does as the head, unless there is a classification head in its place.
    pub fn flops_per_token(&self) -> f64 {
        6.0 * self.n_multiplying() as f64 + 12.0 * (self.n_layers * self.d_model * self.context_len) as f64
    }

    /// Parameters that multiply: all but the position table, and the token embedding where it is no head.
    pub(crate) fn n_multiplying(&self) -> usize {
        let tables = self.context_len + if self.n_classes > 0 { self.vocab_size } else { 0 };
        self.n_params() - tables * self.d_model
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first key that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (key, value) in [
            ("model.n_layers", self.n_layers),
            ("model.n_heads", self.n_heads),
            ("model.d_model", self.d_model),
            ("model.d_ff", self.d_ff),
            ("model.context_len", self.context_len),
        ] {
            check_size(key, value, MAX_SIZE)?;
        }
        if self.vocab_size > MAX_SIZE {
            check_size("model.vocab_size", self.vocab_size, MAX_SIZE)?;
        }
        if !self.d_model.is_multiple_of(self.n_heads) {
            let divisors: Vec<_> = (1..=self.d_model.min(64)).filter(|n| self.d_model.is_multiple_of(*n)).collect();
            return Err(ConfigError::Invalid {
                key: "model.n_heads",
                found: self.n_heads.to_string(),
                expected: format!("a divisor of `model.d_model`, {}", self.d_model),
                hint: Some(format!("d_model {} can be split into {divisors:?} heads", self.d_model)),
            });
        }
        // As the model computes with it.
        if !(self.norm_eps as f32 > 0.0 && self.norm_eps.is_finite()) {
            return Err(ConfigError::Invalid {
                key: "model.norm_eps",
                found: self.norm_eps.to_string(),
                expected: "a number above 0".into(),
                hint: Some("GPT-2 has 1e-5".into()),
            });
        }
        // In floating point, which cannot overflow where the exact count could.
        let (c, f) = (self.d_model as f64, self.d_ff as f64);
        let n_params = (self.vocab_size + self.context_len) as f64 * c + self.n_layers as f64 * (4.0 * c * c + 2.0 * c * f);
        if n_params > MAX_PARAMS {
            return Err(ConfigError::Invalid {
                key: "model.d_model",
                found: format!("{}, which makes {n_params:.1e} parameters with the other sizes", self.d_model),
                expected: format!("sizes that make at most {MAX_PARAMS:.1e}"),
                hint: Some("lower `model.d_model`, `model.n_layers` or `model.vocab_size`".into()),
            });
        }
        for (key, p) in [
            ("model.dropout.embedding", self.dropout.embedding),
            ("model.dropout.attention", self.dropout.attention),
            ("model.dropout.residual", self.dropout.residual),
            ("model.dropout.word", self.dropout.word),
        ] {
            if !(0.0..1.0).contains(&p) {
                return Err(ConfigError::Invalid {
                    key,
                    found: p.to_string(),
                    expected: "a probability, at least 0 and below 1".into(),
                    hint: None,
                });
            }
        }
        Ok(())
    }
}

/// `1 <= value <= max`.
pub(crate) fn check_size(key: &'static str, value: usize, max: usize) -> Result<(), ConfigError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::Invalid { key, found: value.to_string(), expected: format!("a whole number from 1 to {max}"), hint: None })
}
