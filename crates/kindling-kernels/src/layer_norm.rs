//! Layer normalisation with a gain and an optional bias.

use burn::tensor::Tensor;

/// `(x - mean) / sqrt(variance + eps) * gamma + beta` of each row (Ba, Kiros and Hinton, arXiv:1607.06450): `x` `[N, C]`,
/// `gamma` and `beta` `[C]`, out `[N, C]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Option<Tensor<1>>, eps: f64) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&x) {
        return fused::layer_norm(x, gamma, beta, eps);
    }
    composed(x, gamma, beta, eps)
}

/// The same of stock operations.
pub fn composed(x: Tensor<2>, gamma: Tensor<1>, beta: Option<Tensor<1>>, eps: f64) -> Tensor<2> {
    let centered = x.clone() - x.mean_dim(1);
    let rstd = (centered.clone().square().mean_dim(1) + eps).sqrt().recip(); // [N, 1]
    let y = centered * rstd * gamma.unsqueeze();
    match beta {
        Some(beta) => y + beta.unsqueeze(),
        None => y,
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
    use burn::tensor::Tensor;

    use crate::cpu::layer_norm as cpu;
    use crate::flex::{contiguous, isa, make, not_empty, or_empty, owned, register, values, values_mut};

    #[backend_extension(Flex, Autodiff)]
    trait LayerNorm: Backend {
        /// `beta` is empty if there is none.
        fn layer_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>, eps: f64) -> FloatTensor<Self>;
    }

    pub(super) fn layer_norm(x: Tensor<2>, gamma: Tensor<1>, beta: Option<Tensor<1>>, eps: f64) -> Tensor<2> {
        let beta = or_empty(beta, &x);
        Tensor::from_dispatch(Dispatch::layer_norm(x.into_dispatch(), gamma.into_dispatch(), beta, eps))
    }

    /// The output, and what the backward pass needs of the rows: `[N, 2]`.
    fn forward(x: &FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, eps: f64) -> (FlexTensor, Vec<f32>) {
        let (y, stats) = cpu::forward(isa(), values(x), values(gamma), not_empty(beta), eps as f32);
        (make(y, x.shape()), stats)
    }

    impl LayerNorm for Flex {
        fn layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, eps: f64) -> FlexTensor {
            forward(&contiguous(x), &contiguous(gamma), &contiguous(beta), eps).0
        }
    }

    #[derive(Debug)]
    struct Step;

    impl Backward<Flex, 3> for Step {
        /// x, gamma, and the rows' statistics.
        type State = (FlexTensor, FlexTensor, Vec<f32>);

        fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (x, gamma, stats) = ops.state;
            let mut d = owned(grads.consume::<Flex>(&ops.node));
            let (d_gamma, d_beta) = cpu::backward(isa(), values(&x), values(&gamma), &stats, values_mut(&mut d));
            let [x_id, gamma_id, beta_id] = ops.parents.map(|parent| parent.map(|parent| parent.id));
            register(grads, x_id, || d);
            register(grads, gamma_id, || make(d_gamma, gamma.shape()));
            register(grads, beta_id, || make(d_beta, gamma.shape()));
        }
    }

    impl<C: CheckpointStrategy> LayerNorm for Autodiff<Flex, C> {
        fn layer_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
            let ((x, x_node), (gamma, gamma_node), (beta, beta_node)) = (x.into_parts(), gamma.into_parts(), beta.into_parts());
            let (x, gamma) = (contiguous(x), contiguous(gamma));
            let (y, stats) = forward(&x, &gamma, &contiguous(beta), eps);
            match Step.prepare::<C>([x_node, gamma_node, beta_node]).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish((x, gamma, stats), y),
                OpsKind::UnTracked(step) => step.finish(y),
            }
        }
    }
}
