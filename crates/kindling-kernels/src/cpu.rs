//! The computations themselves, over slices, for every instruction set. Knows nothing of Burn.

pub mod adamw;
pub mod arithmetic;
pub mod attention;
pub(crate) mod buffer;
pub mod cached;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod isa;
pub mod layer_norm;
pub mod linear;
pub(crate) mod math;
pub mod matmul;
pub mod packed;
pub(crate) mod pairs;
pub(crate) mod rows;
pub(crate) mod tile;
