//! Flex's tensors as slices, and the choice between fused and composed forms. Computes nothing.

use std::cell::Cell;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, Dispatch, DispatchDevice, Flex, Shape, TensorMetadata};
use burn::tensor::{Bytes, Device, Tensor};

use crate::cpu::buffer::copied;
use crate::cpu::isa::Isa;
use crate::cpu::matmul::Matrix;

/// A tensor that an operation may do without, as extension traits take it: they know no `Option`, so none is an empty one.
pub(crate) fn or_empty<const D: usize>(tensor: Option<Tensor<1>>, beside: &Tensor<D>) -> FloatTensor<Dispatch> {
    tensor.unwrap_or_else(|| Tensor::zeros([0], &beside.device())).into_dispatch()
}

/// What [`or_empty`] made, as an option again.
pub(crate) fn not_empty(tensor: &FlexTensor) -> Option<&[f32]> {
    Some(values(tensor)).filter(|values| !values.is_empty())
}

/// Adds to the gradient of a parent, if it is tracked.
pub(crate) fn register(grads: &mut Gradients, parent: Option<NodeId>, gradient: impl FnOnce() -> FlexTensor) {
    if let Some(parent) = parent {
        grads.register::<Flex>(parent, gradient());
    }
}

/// Whether the fused form computes this tensor: f32 on Flex, tracked or not.
pub(crate) fn is_fused<const D: usize>(tensor: &Tensor<D>) -> bool {
    is_flex(&tensor.device()) && tensor.dtype() == DType::F32 && FORM.get() != Some(Form::Composed)
}

pub(crate) fn is_flex(device: &Device) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::Flex(_)),
        _ => false,
    }
}

/// How operations on Flex are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Of stock operations.
    Composed,
    /// By fused kernels with this instruction set.
    Fused(Isa),
}

thread_local! {
    static FORM: Cell<Option<Form>> = const { Cell::new(None) };
}

/// Computes with another form than the best one: what this thread calls within `compute`, backward passes included.
/// Tests and benchmarks compare forms this way.
///
/// # Panics
/// If this processor lacks the instruction set.
pub fn with_form<T>(form: Form, compute: impl FnOnce() -> T) -> T {
    struct Restore(Option<Form>);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORM.set(self.0);
        }
    }
    if let Form::Fused(isa) = form {
        assert!(isa.is_available(), "this processor has no {isa}");
    }
    let _restore = Restore(FORM.replace(Some(form)));
    compute()
}

/// The instruction set that fused forms are computed with on this thread.
pub(crate) fn isa() -> Isa {
    match FORM.get() {
        Some(Form::Fused(isa)) => isa,
        _ => Isa::chosen(),
    }
}

/// A matrix on Flex, without autodiff, with its values one behind the other.
pub(crate) fn primitive(tensor: Tensor<2>) -> FlexTensor {
    contiguous(tensor.try_into_primitive::<Flex>().expect("a tensor on Flex"))
}

/// A tensor whose values lie one behind the other.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

/// Its values.
///
/// # Panics
/// If it is not [`contiguous`].
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous f32 tensor")
}

/// A tensor of its own values that nobody else sees.
pub(crate) fn owned(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_unique() && tensor.as_slice::<f32>().is_some_and(|values| values.len() == tensor.bytes().len() / size_of::<f32>()) {
        return tensor;
    }
    let from = contiguous(tensor);
    make(copied(values(&from)), from.shape())
}

/// The values of an [`owned`] tensor.
pub(crate) fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    tensor.try_storage_mut().expect("an owned tensor")
}

/// A tensor of these values.
pub(crate) fn make(values: Vec<f32>, shape: Shape) -> FlexTensor {
    debug_assert_eq!(values.len(), shape.num_elements());
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// A tensor `[.., C]` as a matrix of rows of C.
pub(crate) fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
    let values = values(tensor);
    let cols = *tensor.shape().last().expect("a tensor of at least one dimension");
    Matrix::new(values, values.len().checked_div(cols).unwrap_or(0), cols)
}

/// Ids as the kernels take them. What is negative or beyond 32 bits becomes an id that no vocabulary has.
pub(crate) fn ids(tensor: FlexTensor) -> Vec<u32> {
    tensor.into_data().iter::<i64>().map(|id| u32::try_from(id).unwrap_or(u32::MAX)).collect()
}

/// The values times a factor, in place.
pub(crate) fn scale(mut tensor: FlexTensor, factor: f32) -> FlexTensor {
    if factor != 1.0 {
        crate::cpu::linear::scale(isa(), values_mut(&mut tensor), factor);
    }
    tensor
}
