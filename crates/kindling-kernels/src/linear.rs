//! Linear layers, with GELU before them or not.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use crate::Precision;

/// `x·weight + bias`: `x` `[N, I]`, `weight` `[I, O]`, `bias` `[O]`, out `[N, O]`. The fused form rounds the factors of this
/// product, and of those for its gradients, as `precision` says.
///
/// # Panics
/// If the sizes do not fit.
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, precision: Precision) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&x) {
        return fused::linear(x, weight, bias, false, precision);
    }
    composed(x, weight, bias)
}

/// `gelu(x)·weight + bias`, with GPT-2's GELU, the tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415); sizes as
/// [`linear`]. The fused form keeps `x` alone for the backward pass, and never stores `gelu(x)`.
///
/// # Panics
/// If the sizes do not fit.
pub fn gelu_linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, precision: Precision) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&x) {
        return fused::linear(x, weight, bias, true, precision);
    }
    composed_gelu(x, weight, bias)
}

/// [`linear`] of stock operations.
pub fn composed(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let y = x.matmul(weight);
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

/// [`gelu_linear`] of stock operations.
///
/// 0.5·x·(1 + tanh(z)) with z = sqrt(2/π)·(x + 0.044715·x³) is written as x·sigmoid(2z), which is the same number: Burn's
/// own `gelu_approximate` calls `powf` and `tanh`, which together cost a quarter of a training step on a CPU.
pub fn composed_gelu(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    let scale = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
    let two_z = x.clone() * (x.clone().square() * (0.044715 * scale) + scale);
    composed(x * sigmoid(two_z), weight, bias)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::flex::FlexTensor;
    use burn::backend::tensor::FloatTensor;
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, Shape, TensorMetadata, backend_extension};
    use burn::tensor::Tensor;

    use crate::Precision;
    use crate::cpu::linear as cpu;
    use crate::flex::{contiguous, isa, make, matrix, not_empty, or_empty, register, values};

    #[backend_extension(Flex, Autodiff)]
    trait Linear: Backend {
        /// `bias` is empty if there is none.
        fn linear(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            gelu: bool,
            precision: Precision,
        ) -> FloatTensor<Self>;
    }

    pub(super) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, gelu: bool, precision: Precision) -> Tensor<2> {
        let bias = or_empty(bias, &x);
        Tensor::from_dispatch(Dispatch::linear(x.into_dispatch(), weight.into_dispatch(), bias, gelu, precision))
    }

    fn forward(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor, gelu: bool, precision: Precision) -> FlexTensor {
        let (x, weight) = (matrix(x), matrix(weight));
        make(cpu::forward(isa(), precision, x, weight, not_empty(bias), gelu), Shape::new([x.rows(), weight.cols()]))
    }

    impl Linear for Flex {
        fn linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, gelu: bool, precision: Precision) -> FlexTensor {
            forward(&contiguous(x), &contiguous(weight), &contiguous(bias), gelu, precision)
        }
    }

    #[derive(Debug)]
    struct Step;

    impl Backward<Flex, 3> for Step {
        /// x, the weight, whether GELU comes before it, and what factors are rounded to.
        type State = (FlexTensor, FlexTensor, bool, Precision);

        fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
            let (x, weight, gelu, precision) = ops.state;
            let dy = contiguous(grads.consume::<Flex>(&ops.node));
            let [x_id, weight_id, bias_id] = ops.parents.map(|parent| parent.map(|parent| parent.id));
            register(grads, bias_id, || make(cpu::sum_rows(isa(), values(&dy), matrix(&dy).cols()), Shape::new([matrix(&dy).cols()])));
            register(grads, weight_id, || make(cpu::backward_w(isa(), precision, matrix(&x), matrix(&dy), gelu), weight.shape()));
            register(grads, x_id, || {
                let at = gelu.then(|| values(&x));
                make(cpu::backward_x(isa(), precision, matrix(&dy), matrix(&weight), at), x.shape())
            });
        }
    }

    impl<C: CheckpointStrategy> Linear for Autodiff<Flex, C> {
        fn linear(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            gelu: bool,
            precision: Precision,
        ) -> FloatTensor<Self> {
            let ((x, x_node), (weight, weight_node), (bias, bias_node)) = (x.into_parts(), weight.into_parts(), bias.into_parts());
            let (x, weight) = (contiguous(x), contiguous(weight));
            let y = forward(&x, &weight, &contiguous(bias), gelu, precision);
            match Step.prepare::<C>([x_node, weight_node, bias_node]).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish((x, weight, gelu, precision), y),
                OpsKind::UnTracked(step) => step.finish(y),
            }
        }
    }
}
