//! Rows of a table by id.

use burn::tensor::{Int, Tensor};

/// `table[ids]`: `table` `[V, C]`, `ids` `[N]`, out `[N, C]`.
///
/// # Panics
/// If an id is not below V.
pub fn embedding(table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&table) {
        return fused::embedding(table, ids);
    }
    composed(table, ids)
}

/// The same of stock operations.
pub fn composed(table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
    let ([_, c], [n]) = (table.dims(), ids.dims());
    burn::tensor::module::embedding(table, ids.reshape([1, n])).reshape([n, c])
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, Shape, TensorMetadata, backend_extension};
    use burn::tensor::{Int, Tensor};

    use crate::cpu::embedding as cpu;
    use crate::flex::{contiguous, ids, isa, make, matrix, register, values};

    #[backend_extension(Flex, Autodiff)]
    trait Embedding: Backend {
        fn embedding(table: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self>;
    }

    pub(super) fn embedding(table: Tensor<2>, ids: Tensor<1, Int>) -> Tensor<2> {
        Tensor::from_dispatch(Dispatch::embedding(table.into_dispatch(), ids.into_dispatch()))
    }

    fn forward(table: &FlexTensor, ids: &[u32]) -> FlexTensor {
        let c = matrix(table).cols();
        make(cpu::forward(values(table), ids, c), Shape::new([ids.len(), c]))
    }

    impl Embedding for Flex {
        fn embedding(table: FlexTensor, tensor: FlexTensor) -> FlexTensor {
            forward(&contiguous(table), &ids(tensor))
        }
    }

    #[derive(Debug)]
    struct Step;

    impl Backward<Flex, 1> for Step {
        /// The ids, and the table's shape.
        type State = (Vec<u32>, Shape);

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (ids, shape) = ops.state;
            let d = contiguous(grads.consume::<Flex>(&ops.node));
            let [id] = ops.parents.map(|parent| parent.map(|parent| parent.id));
            register(grads, id, || make(cpu::backward(isa(), &ids, values(&d), shape[0], shape[1]), shape));
        }
    }

    impl<C: CheckpointStrategy> Embedding for Autodiff<Flex, C> {
        fn embedding(table: FloatTensor<Self>, tensor: IntTensor<Self>) -> FloatTensor<Self> {
            let (table, node) = table.into_parts();
            let (table, ids) = (contiguous(table), ids(tensor));
            let rows = forward(&table, &ids);
            match Step.prepare::<C>([node]).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish((ids, table.shape()), rows),
                OpsKind::UnTracked(step) => step.finish(rows),
            }
        }
    }
}
