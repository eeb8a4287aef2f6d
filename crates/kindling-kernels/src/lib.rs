//! Fused operations for training transformers.
//!
//! Each operation is a function on tensors with two forms: `composed`, of stock operations, which runs on every backend,
//! is differentiated by Burn, and is the oracle of the tests; and a fused one on Flex, Burn's portable CPU backend, with
//! a backward pass of its own. The function takes the fused form where the tensors are on Flex and the composed one
//! everywhere else, so the code of a model does not change with the device.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//!
//! let device = Device::flex();
//! let x = Tensor::<2>::from_floats([[1.0, 2.0, 4.0]], &device);
//! let y = kindling_kernels::layer_norm(x, Tensor::ones([3], &device), None, 1e-5);
//! assert!(y.sum().into_scalar::<f32>().abs() < 1e-5);
//! ```

pub mod adamw;
pub mod attention;
pub mod cached;
pub mod cpu;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
#[cfg(feature = "flex")]
mod flex;
pub mod layer_norm;
pub mod linear;
pub mod packed;

pub use adamw::{adamw_step, sum_of_squares};
pub use attention::{Mask, causal_attention};
pub use cached::KvTables;
pub use cpu::arithmetic::Precision;
pub use cpu::cached::CachedRow;
pub use cpu::cross_entropy::{LOGITS_AT_ONCE, LossTerms};
pub use cpu::dropout::{Dropout, stream};
pub use cpu::isa::Isa;
pub use cpu::packed::WeightFormat;
pub use cross_entropy::{linear_cross_entropy, linear_logits, linear_nats, nats_of_logits};
pub use dropout::dropout;
pub use embedding::embedding;
#[cfg(feature = "flex")]
pub use flex::{Form, with_form};
pub use layer_norm::layer_norm;
pub use linear::{gelu_linear, linear};
pub use packed::PackedWeight;

/// Whether operations on f32 tensors of this device are computed by fused kernels.
pub fn is_fused_on(device: &burn::tensor::Device) -> bool {
    #[cfg(feature = "flex")]
    return flex::is_flex(device);
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}
