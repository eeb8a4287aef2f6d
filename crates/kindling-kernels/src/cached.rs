//! Attention of new tokens to keys and values in slots, for generation. Not differentiated.

use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};

use crate::cpu::cached::CachedRow;

/// Added to the score of a slot that must not be seen; see `attention.rs`.
const MASKED: f32 = -1e9;

/// Writes `rows` `[N, C]` into the `slots` of `table` `[S, C]`, N of them, in place where nobody else has the table.
///
/// # Panics
/// If the sizes do not fit, or there is no such slot.
pub fn write_rows(table: Tensor<2>, slots: &[u32], rows: Tensor<2>) -> Tensor<2> {
    let ([n, c], [n_slots, width]) = (rows.dims(), table.dims());
    assert!(n == slots.len() && c == width && slots.iter().all(|slot| (*slot as usize) < n_slots), "{n} rows into {n_slots} slots");
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&table) && !table.is_autodiff() {
        return fused::write_rows(table, slots, rows);
    }
    // Neighbours together.
    let mut first = 0;
    slots.chunk_by(|a, b| a + 1 == *b).fold(table, |table, run| {
        let (slot, n) = (run[0] as usize, run.len());
        first += n;
        table.slice_assign([slot..slot + n, 0..c], rows.clone().slice([first - n..first, 0..c]))
    })
}

/// softmax(q·kᵀ / sqrt(E))·v of each of `n_heads` heads over the slots that a token sees: those of its sequence before it, and its own.
/// `queries` `[N, C]` of the new tokens of all `rows`, `keys` and `values` `[slots, C]`, out `[N, C]`. The fused form gives a token the
/// same bits whatever the other rows are.
///
/// # Panics
/// If the sizes do not fit, or there is no such slot.
pub fn cached_attention(queries: Tensor<2>, keys: &Tensor<2>, values: &Tensor<2>, n_heads: usize, rows: &[CachedRow<'_>]) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::flex::is_fused(&queries) && !queries.is_autodiff() {
        return fused::cached_attention(queries, keys.clone(), values.clone(), n_heads, rows);
    }
    composed(queries, keys, values, n_heads, rows)
}

/// The same of stock operations.
pub fn composed(queries: Tensor<2>, keys: &Tensor<2>, values: &Tensor<2>, n_heads: usize, rows: &[CachedRow<'_>]) -> Tensor<2> {
    let [_, c] = queries.dims();
    let (device, b, e) = (queries.device(), rows.len(), c / n_heads);
    let t = rows.iter().map(|row| row.n_new).max().unwrap_or(0);
    let s = rows.iter().map(|row| row.slots.len()).max().unwrap_or(0);
    // Rows filled up to T new tokens and S slots. What is filled up is hidden, or never looked at.
    let (mut tokens, mut slots, mut places, mut mask) = (vec![0i64; b * t], vec![0i64; b * s], Vec::new(), vec![MASKED; b * t * s]);
    for (row, CachedRow { slots: of_row, n_new }) in rows.iter().enumerate() {
        slots[row * s..].iter_mut().zip(*of_row).for_each(|(to, slot)| *to = i64::from(*slot));
        for token in 0..*n_new {
            let place = row * t + token;
            tokens[place] = places.len() as i64;
            places.push(place as i64);
            mask[place * s..][..of_row.len() - n_new + token + 1].fill(0.0);
        }
    }
    let index = |values: Vec<i64>| {
        let n = values.len();
        Tensor::<1, Int>::from_data(TensorData::new(values, [n]), &device)
    };
    let (tokens, slots, places) = (index(tokens), index(slots), index(places));
    let mask = Tensor::<4>::from_data(TensorData::new(mask, [b, 1, t, s]), &device);
    let heads = |rows: Tensor<2>, n: usize| rows.reshape([b, n, n_heads, e]).swap_dims(1, 2);
    let queries = heads(queries.select(0, tokens), t) * (e as f64).powf(-0.5); // [B, H, T, E]
    let (keys, values) = (heads(keys.clone().select(0, slots.clone()), s), heads(values.clone().select(0, slots), s)); // [B, H, S, E]
    let y = softmax(queries.matmul(keys.swap_dims(2, 3)) + mask, 3).matmul(values); // [B, H, T, E]
    y.swap_dims(1, 2).reshape([b * t, c]).select(0, places)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::Flex;
    use burn::tensor::{Tensor, TensorData};

    use crate::cpu::cached::{self as cpu, CachedRow};
    use crate::flex::{isa, owned, primitive, values as of, values_mut};

    pub(super) fn write_rows(table: Tensor<2>, slots: &[u32], rows: Tensor<2>) -> Tensor<2> {
        let c = table.dims()[1];
        let (mut table, rows) = (owned(primitive(table)), primitive(rows));
        let to = values_mut(&mut table);
        for (slot, row) in slots.iter().zip(of(&rows).chunks(c)) {
            to[*slot as usize * c..][..c].copy_from_slice(row);
        }
        Tensor::from_primitive::<Flex>(table)
    }

    pub(super) fn cached_attention(
        queries: Tensor<2>,
        keys: Tensor<2>,
        values: Tensor<2>,
        n_heads: usize,
        rows: &[CachedRow<'_>],
    ) -> Tensor<2> {
        let ([n, c], device) = (queries.dims(), queries.device());
        let (queries, keys, values) = (primitive(queries), primitive(keys), primitive(values));
        let out = cpu::forward(isa(), of(&queries), of(&keys), of(&values), c, n_heads, rows);
        Tensor::from_data(TensorData::new(out, [n, c]), &device)
    }
}
