//! The matrices of a model as kernels read them, for a model that only writes.

use burn::tensor::Tensor;
use kindling_config::LoraTarget;
use kindling_kernels::{PackedWeight, WeightFormat};

/// All matrices that a token goes through.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The token embedding, which is also the head, as `[C, V]`.
    pub(crate) table: PackedWeight,
    /// Those of each block, in the order of [`LoraTarget::ALL`].
    blocks: Vec<[PackedWeight; 4]>,
}

impl Packed {
    /// Of an embedding `[V, C]`, and the weights `[d_in, d_out]` of each block.
    pub(crate) fn new(table: Tensor<2>, blocks: Vec<[Tensor<2>; 4]>, format: WeightFormat) -> Self {
        let blocks = blocks.into_iter().map(|weights| weights.map(|weight| PackedWeight::new(weight, format))).collect();
        Self { table: PackedWeight::of_table(table, format), blocks }
    }

    pub(crate) fn of(&self, layer: usize, target: LoraTarget) -> &PackedWeight {
        &self.blocks[layer][target as usize]
    }

    /// Bytes that all of them take.
    pub(crate) fn n_bytes(&self) -> usize {
        self.table.n_bytes() + self.blocks.iter().flatten().map(PackedWeight::n_bytes).sum::<usize>()
    }
}
