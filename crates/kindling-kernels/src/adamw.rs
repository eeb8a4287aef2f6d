//! AdamW (Loshchilov and Hutter, arXiv:1711.05101), and the sum of squares that a global norm is made of.

use burn::optim::{AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::Tensor;

pub use crate::cpu::adamw::Step;

/// Running means of a parameter's gradient and of its square.
#[derive(Clone, Debug)]
pub struct Moments<const D: usize> {
    /// Of the gradient.
    pub first: Tensor<D>,
    /// Of its square.
    pub second: Tensor<D>,
}

/// One step of AdamW: the parameter and its moments, new. Without moments it begins with zeros. Nothing is tracked. The
/// fused form writes into the tensors that it is given if nobody else holds them.
///
/// # Panics
/// If the shapes differ.
pub fn adamw_step<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Option<Moments<D>>,
    step: &Step,
) -> (Tensor<D>, Moments<D>) {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&parameter) && !parameter.is_autodiff() {
        return fused::adamw_step(parameter, gradient, moments, *step);
    }
    composed(parameter, gradient, moments, step)
}

/// The same, as Burn computes it.
pub fn composed<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: Option<Moments<D>>,
    step: &Step,
) -> (Tensor<D>, Moments<D>) {
    let adamw = AdamWConfig::new()
        .with_beta_1(step.beta_1 as f32)
        .with_beta_2(step.beta_2 as f32)
        .with_epsilon(step.epsilon as f32)
        .with_weight_decay(step.weight_decay as f32)
        .build();
    let gradient = if step.grad_scale == 1.0 { gradient } else { gradient * step.grad_scale };
    let state = moments.map(|Moments { first, second }| {
        AdamWState::new(AdaptiveMomentumState { time: step.time - 1, moment_1: first, moment_2: second, max_moment_2: None })
    });
    let (parameter, state) = adamw.step(step.lr, parameter, gradient, state);
    let momentum = state.expect("AdamW keeps moments").momentum;
    (parameter, Moments { first: momentum.moment_1, second: momentum.moment_2 })
}

/// The sum of the squares of all values.
pub fn sum_of_squares<const D: usize>(values: Tensor<D>) -> f64 {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&values) && !values.is_autodiff() {
        return fused::sum_of_squares(values);
    }
    f64::from(values.square().sum().into_scalar::<f32>())
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use super::{Moments, Step};
    use crate::cpu::adamw as cpu;
    use crate::flex::{contiguous, isa, owned, values, values_mut};

    fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
        tensor.try_into_primitive::<Flex>().expect("a tensor on Flex")
    }

    pub(super) fn adamw_step<const D: usize>(
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        moments: Option<Moments<D>>,
        step: Step,
    ) -> (Tensor<D>, Moments<D>) {
        let moments = moments.unwrap_or_else(|| Moments { first: parameter.zeros_like(), second: parameter.zeros_like() });
        let [mut parameter, mut first, mut second] = [parameter, moments.first, moments.second].map(|tensor| owned(primitive(tensor)));
        let gradient = contiguous(primitive(gradient));
        cpu::step(isa(), values_mut(&mut parameter), values(&gradient), values_mut(&mut first), values_mut(&mut second), step);
        let [parameter, first, second] = [parameter, first, second].map(Tensor::from_primitive::<Flex>);
        (parameter, Moments { first, second })
    }

    pub(super) fn sum_of_squares<const D: usize>(tensor: Tensor<D>) -> f64 {
        cpu::sum_of_squares(isa(), values(&contiguous(primitive(tensor))))
    }
}
