//! The head and the loss of a language model in one, in chunks of rows, so that `[N, V]` logits need not all exist.

use burn::tensor::{Int, Tensor};

use crate::{LossTerms, Precision};

/// The sum over rows of weight × cross-entropy of `softmax(x·tableᵀ)` with the target, in nats, `[1]`: `x` `[N, C]`, `table`
/// `[V, C]`, `targets` and `weights` `[N]`. A weight of 0 ignores its row. `terms` says
/// what the loss has beside it. The fused form rounds the factors of matrix products
/// as `precision` says.
///
/// # Panics
/// If the sizes do not fit, or a target that counts is not below V.
pub fn linear_cross_entropy(
    x: Tensor<2>,
    table: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    terms: LossTerms,
    precision: Precision,
) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&x) {
        return fused::linear_cross_entropy(x, table, targets, weights, terms, precision);
    }
    composed(x, table, targets, weights, terms)
}

/// The same of stock operations.
pub fn composed(x: Tensor<2>, table: Tensor<2>, targets: Tensor<1, Int>, weights: Tensor<1>, terms: LossTerms) -> Tensor<1> {
    let logits = x.matmul(table.transpose()); // [N, V]
    let n = logits.dims()[0];
    let log_z = log_sum_exp(logits.clone()); // [N, 1]
    let log_p = logits - log_z.clone();
    let picked = log_p.clone().gather(1, targets.reshape([n, 1])).reshape([n]);
    let smoothing = terms.label_smoothing;
    let nats = if smoothing > 0.0 { picked * (smoothing - 1.0) - log_p.mean_dim(1).reshape([n]) * smoothing } else { -picked };
    let nats = if terms.z_loss > 0.0 { nats + log_z.square().reshape([n]) * terms.z_loss } else { nats };
    (nats * weights).sum()
}

/// ln of the sum of e^logit of each row, `[N, 1]`. The largest logit is taken out first, so that no `exp` overflows.
fn log_sum_exp(logits: Tensor<2>) -> Tensor<2> {
    let largest = logits.clone().detach().max_dim(1); // [N, 1]
    (logits - largest.clone()).exp().sum_dim(1).log() + largest
}

/// The logits themselves, `x·tableᵀ`: `x` `[N, C]`, `table` `[V, C]`, out `[N, V]`. The fused form gives a row the same bits whatever
/// the other rows are; it is not differentiated.
///
/// # Panics
/// If the sizes do not fit.
pub fn linear_logits(x: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&x) && !x.is_autodiff() {
        return fused::linear_logits(x, table);
    }
    x.matmul(table.transpose())
}

/// The cross-entropy of each target in nats, and its rank, both `[N]`: what an evaluation needs of `x` `[N, C]` and `table` `[V, C]`. The
/// rank is how many ids are likelier, or as likely and come first: that of the likeliest is 0. Not differentiated.
///
/// # Panics
/// If the sizes do not fit, or a target is not below V.
pub fn linear_nats(x: Tensor<2>, table: Tensor<2>, targets: Tensor<1, Int>) -> (Tensor<1>, Tensor<1, Int>) {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&x) && !x.is_autodiff() {
        return fused::linear_nats(x, table, targets);
    }
    nats_of_logits(x.matmul(table.transpose()), targets)
}

/// The same from the logits, `[N, V]`.
///
/// # Panics
/// If the sizes do not fit, or a target is not below V.
pub fn nats_of_logits(logits: Tensor<2>, targets: Tensor<1, Int>) -> (Tensor<1>, Tensor<1, Int>) {
    let n = logits.dims()[0];
    let (v, targets) = (logits.dims()[1], targets.reshape([n, 1]));
    let target = logits.clone().gather(1, targets.clone()); // [N, 1]
    let comes_first = Tensor::arange(0..v as i64, &logits.device()).reshape([1, v]).lower(targets); // [N, V]
    let is_ahead = logits.clone().greater(target.clone()).bool_or(logits.clone().equal(target.clone()).bool_and(comes_first));
    let nats = log_sum_exp(logits) - target;
    (nats.reshape([n]), is_ahead.int().sum_dim(1).reshape([n]))
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
    use burn::tensor::{Int, Tensor, TensorData};

    use crate::cpu::cross_entropy::{Targets, Wanted, linear, linear_rows};
    use crate::cpu::matmul::{Nothing, matmul};
    use crate::flex::{contiguous, ids, isa, make, matrix, owned, primitive, register, scale, values};
    use crate::{LossTerms, Precision};

    #[backend_extension(Flex, Autodiff)]
    trait CrossEntropy: Backend {
        fn linear_cross_entropy(
            x: FloatTensor<Self>,
            table: FloatTensor<Self>,
            targets: IntTensor<Self>,
            weights: FloatTensor<Self>,
            terms: LossTerms,
            precision: Precision,
        ) -> FloatTensor<Self>;
    }

    pub(super) fn linear_cross_entropy(
        x: Tensor<2>,
        table: Tensor<2>,
        targets: Tensor<1, Int>,
        weights: Tensor<1>,
        terms: LossTerms,
        precision: Precision,
    ) -> Tensor<1> {
        let (x, table, targets, weights) = (x.into_dispatch(), table.into_dispatch(), targets.into_dispatch(), weights.into_dispatch());
        Tensor::from_dispatch(Dispatch::linear_cross_entropy(x, table, targets, weights, terms, precision))
    }

    pub(super) fn linear_logits(x: Tensor<2>, table: Tensor<2>) -> Tensor<2> {
        let (n, v, device) = (x.dims()[0], table.dims()[0], x.device());
        let (x, table) = (primitive(x), primitive(table));
        let logits = matmul(isa(), Precision::F32, matrix(&x), matrix(&table).transposed(), Nothing, &Nothing);
        Tensor::from_data(TensorData::new(logits, [n, v]), &device)
    }

    pub(super) fn linear_nats(x: Tensor<2>, table: Tensor<2>, targets: Tensor<1, Int>) -> (Tensor<1>, Tensor<1, Int>) {
        let device = x.device();
        let (x, table) = (primitive(x), primitive(table));
        let targets = ids(targets.try_into_primitive::<Flex>().expect("a tensor on Flex"));
        let (nats, ranks) = linear_rows(isa(), matrix(&x), matrix(&table), &targets);
        let n = nats.len();
        let ranks: Vec<i64> = ranks.into_iter().map(i64::from).collect();
        (Tensor::from_data(TensorData::new(nats, [n]), &device), Tensor::from_data(TensorData::new(ranks, [n]), &device))
    }

    impl CrossEntropy for Flex {
        fn linear_cross_entropy(
            x: FlexTensor,
            table: FlexTensor,
            targets: FlexTensor,
            weights: FlexTensor,
            terms: LossTerms,
            precision: Precision,
        ) -> FlexTensor {
            let (x, table, weights, ids) = (contiguous(x), contiguous(table), contiguous(weights), ids(targets));
            let targets = Targets { ids: &ids, weights: values(&weights), terms };
            let (nats, _) = linear(isa(), precision, matrix(&x), matrix(&table), targets, Wanted::Loss);
            make(vec![nats as f32], Shape::new([1]))
        }
    }

    #[derive(Debug)]
    struct Step;

    impl Backward<Flex, 2> for Step {
        /// The gradients of x and of the table, unless it is frozen, if the sum's is 1: the forward pass has everything at hand for them.
        type State = (FlexTensor, Option<FlexTensor>);

        fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
            let factor = values(&contiguous(grads.consume::<Flex>(&ops.node)))[0];
            let [x_id, table_id] = ops.parents.map(|parent| parent.map(|parent| parent.id));
            let (d_x, d_table) = ops.state;
            register(grads, x_id, || scale(owned(d_x), factor));
            if let Some(d_table) = d_table {
                register(grads, table_id, || scale(owned(d_table), factor));
            }
        }
    }

    impl<C: CheckpointStrategy> CrossEntropy for Autodiff<Flex, C> {
        fn linear_cross_entropy(
            x: FloatTensor<Self>,
            table: FloatTensor<Self>,
            targets: IntTensor<Self>,
            weights: FloatTensor<Self>,
            terms: LossTerms,
            precision: Precision,
        ) -> FloatTensor<Self> {
            let wanted = if table.is_tracked() { Wanted::XAndTable } else { Wanted::X };
            let ((x, x_node), (table, table_node)) = (x.into_parts(), table.into_parts());
            let (x, table, weights, ids) = (contiguous(x), contiguous(table), contiguous(weights.into_primitive()), ids(targets));
            let targets = Targets { ids: &ids, weights: values(&weights), terms };
            let sum = |nats: f64| make(vec![nats as f32], Shape::new([1]));
            match Step.prepare::<C>([x_node, table_node]).compute_bound().stateful() {
                OpsKind::Tracked(step) => {
                    let (nats, gradients) = linear(isa(), precision, matrix(&x), matrix(&table), targets, wanted);
                    let (d_x, d_table) = gradients.expect("asked for");
                    step.finish((make(d_x, x.shape()), d_table.map(|d_table| make(d_table, table.shape()))), sum(nats))
                }
                OpsKind::UnTracked(step) => step.finish(sum(linear(isa(), precision, matrix(&x), matrix(&table), targets, Wanted::Loss).0)),
            }
        }
    }
}
