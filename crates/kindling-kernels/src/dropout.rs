//! Dropout by keys and places (`cpu/dropout.rs`) of activations in rows.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use crate::{Dropout, Isa};

/// Drops activations of `x` `[N, C]`, whose rows are those of the dropout's sequences, one sequence behind the other
/// (Srivastava et al. 2014).
///
/// # Panics
/// If N is no multiple of the number of sequences.
pub fn dropout(x: Tensor<2>, dropout: &Arc<Dropout>) -> Tensor<2> {
    let [n, _] = x.dims();
    assert!(!dropout.streams.is_empty() && n.is_multiple_of(dropout.streams.len()), "{n} rows are of {} sequences", dropout.streams.len());
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&x) {
        return fused::dropout(x, Arc::clone(dropout));
    }
    composed(x, dropout)
}

/// The same of stock operations.
pub fn composed(x: Tensor<2>, dropout: &Dropout) -> Tensor<2> {
    let [n, c] = x.dims();
    let data = TensorData::new(factors(dropout, n / dropout.streams.len(), c), [n, c]);
    let factors = Tensor::from_data(data, &x.device().without_autodiff());
    let factors = if x.is_autodiff() { Tensor::from_inner(factors) } else { factors };
    x * factors
}

/// The factors of `rows` rows of `n` activations of each sequence, one behind the other.
pub(crate) fn factors(dropout: &Dropout, rows: usize, n: usize) -> Vec<f32> {
    let isa = Isa::detect();
    let sequences = 0..dropout.streams.len();
    sequences.flat_map(|sequence| (0..rows).flat_map(move |row| dropout.row(isa, sequence, row as u64, n))).collect()
}

#[cfg(feature = "flex")]
mod fused {
    use std::sync::Arc;

    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
    use burn::tensor::Tensor;

    use crate::Dropout;
    use crate::flex::{isa, owned, register, values_mut};

    #[backend_extension(Flex, Autodiff)]
    trait DropoutKernel: Backend {
        fn dropout(x: FloatTensor<Self>, dropout: Arc<Dropout>) -> FloatTensor<Self>;
    }

    pub(super) fn dropout(x: Tensor<2>, dropout: Arc<Dropout>) -> Tensor<2> {
        Tensor::from_dispatch(Dispatch::dropout(x.into_dispatch(), dropout))
    }

    impl DropoutKernel for Flex {
        fn dropout(x: FlexTensor, dropout: Arc<Dropout>) -> FlexTensor {
            let mut x = owned(x);
            let cols = x.shape()[1];
            dropout.apply(isa(), values_mut(&mut x), cols);
            x
        }
    }

    #[derive(Debug)]
    struct Step;

    impl Backward<Flex, 1> for Step {
        type State = Arc<Dropout>;

        fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let d = grads.consume::<Flex>(&ops.node);
            let [id] = ops.parents.map(|parent| parent.map(|parent| parent.id));
            // The same activations are dropped: their gradients are what was multiplied by zero.
            register(grads, id, || Flex::dropout(d, ops.state));
        }
    }

    impl<C: CheckpointStrategy> DropoutKernel for Autodiff<Flex, C> {
        fn dropout(x: FloatTensor<Self>, dropout: Arc<Dropout>) -> FloatTensor<Self> {
            let (x, node) = x.into_parts();
            let y = Flex::dropout(x, Arc::clone(&dropout));
            match Step.prepare::<C>([node]).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish(dropout, y),
                OpsKind::UnTracked(step) => step.finish(y),
            }
        }
    }
}
