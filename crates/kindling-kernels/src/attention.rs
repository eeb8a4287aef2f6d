//! Causal self-attention over whole sequences.

use std::sync::Arc;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::Dropout;
use crate::cpu::attention::AttentionShape;
use crate::dropout::factors;

/// Added to the score of a key that must not be seen: its probability becomes exactly 0, and unlike infinity it is safe on
/// GPUs that assume finite arithmetic.
const MASKED: f32 = -1e9;

/// What a query does not see, beside what comes after it.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    /// `[B, T]`: the first key that each query sees: where its document begins, or where the padding before it ends. If
    /// it lies behind the query, the query sees nothing and its output is zero.
    pub first: Option<Arc<[u32]>>,
    /// Probabilities that are dropped.
    pub dropout: Option<Arc<Dropout>>,
}

/// softmax(q·kᵀ / sqrt(E))·v of each head, causal (Vaswani et al., arXiv:1706.03762): `qkv` `[N, 3C]` holds `n_seqs` sequences
/// of equal length, and in each row the queries, keys and values of `n_heads` heads; out `[N, C]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn causal_attention(qkv: Tensor<2>, n_seqs: usize, n_heads: usize, mask: &Mask) -> Tensor<2> {
    let [n, c3] = qkv.dims();
    assert!(n_seqs > 0 && n.is_multiple_of(n_seqs), "{n} rows are of {n_seqs} sequences");
    assert!(n_heads > 0 && c3.is_multiple_of(3 * n_heads), "{c3} columns are of {n_heads} heads");
    let shape = AttentionShape { n_seqs, len: n / n_seqs, n_heads, head_dim: c3 / 3 / n_heads };
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&qkv) {
        return fused::causal_attention(qkv, shape, mask.clone());
    }
    composed(qkv, shape, mask)
}

/// The same of stock operations.
pub fn composed(qkv: Tensor<2>, shape: AttentionShape, mask: &Mask) -> Tensor<2> {
    let AttentionShape { n_seqs: b, len: t, n_heads: h, head_dim: e } = shape;
    let mut parts = qkv.chunk(3, 1).into_iter().map(|part| part.reshape([b, t, h, e]).swap_dims(1, 2));
    let mut next = || parts.next().expect("three chunks");
    let (q, k, v) = (next(), next(), next()); // [B, H, T, E]
    let device = q.device().without_autodiff();
    let constant = |tensor: Tensor<4>| if q.is_autodiff() { Tensor::from_inner(tensor) } else { tensor };
    // Scaling the queries costs T·E products a head, scaling the scores T·T.
    let scores = (q.clone() * (e as f64).powf(-0.5)).matmul(k.swap_dims(2, 3)); // [B, H, T, T]
    let mut p = softmax(scores + constant(hidden(shape, mask, &device)), 3);
    if let Some(first) = &mask.first {
        let sees: Vec<f32> = first.iter().enumerate().map(|(i, first)| f32::from(*first as usize <= i % t)).collect();
        p = p * constant(Tensor::from_data(TensorData::new(sees, [b, 1, t, 1]), &device));
    }
    if let Some(dropout) = &mask.dropout {
        p = p * constant(Tensor::from_data(TensorData::new(factors(dropout, h * t, t), [b, h, t, t]), &device));
    }
    p.matmul(v).swap_dims(1, 2).reshape([b * t, h * e])
}

/// `[B, 1, T, T]` or `[1, 1, T, T]`: 0 where a query may look, [`MASKED`] where not.
fn hidden(shape: AttentionShape, mask: &Mask, device: &Device) -> Tensor<4> {
    let t = shape.len;
    let b = if mask.first.is_some() { shape.n_seqs } else { 1 };
    let mut values = vec![MASKED; b * t * t];
    for (i, row) in values.chunks_mut(t.max(1)).enumerate() {
        let query = i % t;
        let first = mask.first.as_ref().map_or(0, |first| first[i] as usize);
        row[first.min(query + 1)..=query].fill(0.0);
    }
    Tensor::from_data(TensorData::new(values, [b, 1, t, t]), device)
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

    use super::{AttentionShape, Mask};
    use crate::cpu::attention as cpu;
    use crate::flex::{contiguous, isa, make, register, values};

    #[backend_extension(Flex, Autodiff)]
    trait Attention: Backend {
        fn causal_attention(qkv: FloatTensor<Self>, shape: AttentionShape, mask: Mask) -> FloatTensor<Self>;
    }

    pub(super) fn causal_attention(qkv: Tensor<2>, shape: AttentionShape, mask: Mask) -> Tensor<2> {
        Tensor::from_dispatch(Dispatch::causal_attention(qkv.into_dispatch(), shape, mask))
    }

    fn visible(mask: &Mask) -> cpu::Visible<'_> {
        cpu::Visible { first: mask.first.as_deref(), dropout: mask.dropout.as_deref() }
    }

    /// The output, and what the backward pass needs of each row of scores.
    fn forward(qkv: &FlexTensor, shape: AttentionShape, mask: &Mask) -> (FlexTensor, Vec<f32>) {
        let (out, stats) = cpu::forward(isa(), values(qkv), shape, visible(mask));
        (make(out, Shape::new([shape.n_seqs * shape.len, shape.n_heads * shape.head_dim])), stats)
    }

    impl Attention for Flex {
        fn causal_attention(qkv: FlexTensor, shape: AttentionShape, mask: Mask) -> FlexTensor {
            forward(&contiguous(qkv), shape, &mask).0
        }
    }

    /// What the backward pass needs.
    #[derive(Clone, Debug)]
    struct State {
        qkv: FlexTensor,
        out: FlexTensor,
        stats: Vec<f32>,
        shape: AttentionShape,
        mask: Mask,
    }

    #[derive(Debug)]
    struct Step;

    impl Backward<Flex, 1> for Step {
        type State = State;

        fn backward(self, ops: Ops<State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
            let State { qkv, out, stats, shape, mask } = ops.state;
            let d_out = contiguous(grads.consume::<Flex>(&ops.node));
            let [qkv_id] = ops.parents.map(|parent| parent.map(|parent| parent.id));
            register(grads, qkv_id, || {
                let d_qkv = cpu::backward(isa(), values(&qkv), values(&out), &stats, values(&d_out), shape, visible(&mask));
                make(d_qkv, qkv.shape())
            });
        }
    }

    impl<C: CheckpointStrategy> Attention for Autodiff<Flex, C> {
        fn causal_attention(qkv: FloatTensor<Self>, shape: AttentionShape, mask: Mask) -> FloatTensor<Self> {
            let (qkv, node) = qkv.into_parts();
            let qkv = contiguous(qkv);
            let (out, stats) = forward(&qkv, shape, &mask);
            match Step.prepare::<C>([node]).compute_bound().stateful() {
                OpsKind::Tracked(step) => step.finish(State { qkv, out: out.clone(), stats, shape, mask }, out),
                OpsKind::UnTracked(step) => step.finish(out),
            }
        }
    }
}
