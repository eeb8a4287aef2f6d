//! Keys and values of tokens in slots, and attention of new tokens to them, for generation. Not differentiated.

use burn::tensor::activation::softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::Precision;
use crate::cpu::cached::CachedRow;

/// Added to the score of a slot that must not be seen; see `attention.rs`.
const MASKED: f32 = -1e9;

/// Keys and values of tokens in each layer of a model.
#[derive(Debug)]
pub struct KvTables {
    /// Each `[2·layers, heads, slots, E]`: keys and values of each layer in turn. For fused kernels as many as there need to be, of so many slots each
    /// that large pages hold them, so that nothing moves; elsewhere one, which grows.
    blocks: Vec<Tensor<4>>,
    n_layers: usize,
    n_heads: usize,
    /// E, the values of a head.
    e: usize,
    dtype: DType,
    device: Device,
}

impl KvTables {
    /// Without slots; of `n_heads` heads of `width` values in all, rounded to `precision` where kernels of the device keep such: on Flex, if a
    /// head has an even number of values. Else they stay f32.
    ///
    /// # Panics
    /// If the width is not of so many heads.
    pub fn new(n_layers: usize, n_heads: usize, width: usize, precision: Precision, device: &Device) -> Self {
        assert!(n_heads > 0 && width.is_multiple_of(n_heads), "{width} values are of {n_heads} heads");
        let e = width / n_heads;
        let is_bf16 = precision == Precision::Bf16 && e.is_multiple_of(2) && is_in_blocks(device);
        let dtype = if is_bf16 { DType::BF16 } else { DType::F32 };
        Self { blocks: Vec::new(), n_layers, n_heads, e, dtype, device: device.clone() }
    }

    /// How many slots there are.
    pub fn n_slots(&self) -> usize {
        self.blocks.iter().map(|block| block.dims()[2]).sum()
    }

    /// Makes room for so many slots at least.
    pub fn grow(&mut self, n_slots: usize) {
        /// So that a text that grows token by token is not copied at each.
        const LEAST: usize = 64;
        let found = self.n_slots();
        if n_slots <= found {
            return;
        }
        #[cfg(feature = "flex")]
        if is_in_blocks(&self.device) {
            return fused::grow(self, n_slots);
        }
        let more = [2 * self.n_layers, self.n_heads, n_slots.max(2 * found).max(LEAST) - found, self.e];
        let more = Tensor::zeros(more, (&self.device, self.dtype));
        self.blocks = vec![match self.blocks.pop() {
            Some(block) => Tensor::cat(vec![block, more], 2),
            None => more,
        }];
    }

    /// Writes keys and values of new tokens into their slots, and gives softmax(q·kᵀ / sqrt(E))·v of each head over the slots that each of them
    /// sees: those of its sequence before it, and its own. `qkv` `[N, 3C]`: queries, keys and values of the new tokens of all `rows`; out
    /// `[N, C]`. The fused form gives a token the same bits whatever the other rows are.
    ///
    /// # Panics
    /// If the sizes do not fit, or there is no such layer or slot.
    pub fn attend(&mut self, layer: usize, qkv: Tensor<2>, rows: &[CachedRow<'_>]) -> Tensor<2> {
        let (n, n_slots) = (rows.iter().map(|row| row.n_new).sum(), self.n_slots());
        assert!(layer < self.n_layers, "layer {layer} of {}", self.n_layers);
        assert_eq!(qkv.dims(), [n, 3 * self.n_heads * self.e], "a query, a key and a value for each new token");
        let has_slots = |row: &CachedRow<'_>| row.n_new <= row.slots.len() && row.slots.iter().all(|slot| (*slot as usize) < n_slots);
        assert!(rows.iter().all(has_slots), "slots of {n_slots}");
        #[cfg(feature = "flex")]
        if crate::flex::is_fused(&qkv) && !qkv.is_autodiff() {
            return fused::attend(self, layer, qkv, rows);
        }
        self.composed(layer, qkv, rows)
    }

    /// The same of stock operations.
    fn composed(&mut self, layer: usize, qkv: Tensor<2>, rows: &[CachedRow<'_>]) -> Tensor<2> {
        let [q, k, v]: [Tensor<2>; 3] = qkv.chunk(3, 1).try_into().expect("three chunks");
        let (n, n_heads, e) = (q.dims()[0], self.n_heads, self.e);
        let block_len = self.blocks.first().map_or(1, |block| block.dims()[2]);
        let slots: Vec<usize> = rows.iter().flat_map(|row| &row.slots[row.slots.len() - row.n_new..]).map(|slot| *slot as usize).collect();
        for (table, new) in [(2 * layer, k), (2 * layer + 1, v)] {
            let new = new.reshape([1, n, n_heads, e]).swap_dims(1, 2).cast(self.dtype); // [1, H, N, E]
            // Neighbours together.
            let mut first = 0;
            for run in slots.chunk_by(|a, b| a + 1 == *b && b % block_len != 0) {
                let (slot, n) = (run[0] % block_len, run.len());
                let new = new.clone().slice([0..1, 0..n_heads, first..first + n, 0..e]);
                let place = [table..table + 1, 0..n_heads, slot..slot + n, 0..e];
                self.blocks[run[0] / block_len].inplace(|block| block.slice_assign(place, new));
                first += n;
            }
        }
        let tables = match &self.blocks[..] {
            [one] => one.clone(),
            several => Tensor::cat(several.to_vec(), 2),
        };
        attention(q, &tables, layer, rows)
    }
}

/// Whether kernels compute on this device, and nothing is tracked.
fn is_in_blocks(device: &Device) -> bool {
    crate::is_fused_on(device) && !device.is_autodiff()
}

/// softmax(q·kᵀ / sqrt(E))·v over slots of a layer: `queries` `[N, C]` of the new tokens of all `rows`, `tables` `[2·layers, H, slots, E]`, out
/// `[N, C]`.
fn attention(queries: Tensor<2>, tables: &Tensor<4>, layer: usize, rows: &[CachedRow<'_>]) -> Tensor<2> {
    let ([n_tables, n_heads, n_slots, e], device, b) = (tables.dims(), queries.device(), rows.len());
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
    let (tokens, places) = (index(tokens), index(places));
    let mask = Tensor::<4>::from_data(TensorData::new(mask, [b, 1, t, s]), &device);
    let queries = queries.select(0, tokens).reshape([b, t, n_heads, e]).swap_dims(1, 2) * (e as f64).powf(-0.5); // [B, H, T, E]
    // All that is kept as rows, so that what is not seen is not copied.
    let (all, dtype) = (tables.clone().reshape([n_tables * n_heads * n_slots, e]), queries.dtype());
    let [keys, values] = [2 * layer, 2 * layer + 1].map(|table| {
        let of_head = |head: usize| slots.iter().map(move |slot| ((table * n_heads + head) * n_slots) as i64 + slot);
        let seen = all.clone().select(0, index((0..n_heads).flat_map(of_head).collect()));
        seen.cast(dtype).reshape([n_heads, b, s, e]).swap_dims(0, 1) // [B, H, S, E]
    });
    let y = softmax(queries.matmul(keys.swap_dims(2, 3)) + mask, 3).matmul(values); // [B, H, T, E]
    y.swap_dims(1, 2).reshape([b * t, n_heads * e]).select(0, places)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::{FlexTensor, Layout};
    use burn::backend::{Element, Flex, Shape};
    use burn::tensor::{Bytes, DType, Tensor, TensorData, bf16};
    use pulp::bytemuck::{self, Pod};

    use super::KvTables;
    use crate::cpu::buffer::zeros_in_large_pages;
    use crate::cpu::cached::{self as cpu, BLOCK, CachedRow, Kept, Table};
    use crate::cpu::matmul::Matrix;
    use crate::flex::{isa, matrix, primitive};

    pub(super) fn grow(tables: &mut KvTables, n_slots: usize) {
        let (size, dtype) = ([2 * tables.n_layers, tables.n_heads, BLOCK, tables.e], tables.dtype);
        let block = || {
            let n_bytes = size.iter().product::<usize>() * dtype.size();
            // Zeros are zeros, whatever they are.
            let zeros = Bytes::from_elems(zeros_in_large_pages(n_bytes / size_of::<f32>()));
            Tensor::from_primitive::<Flex>(FlexTensor::new(zeros, Layout::contiguous(Shape::new(size)), dtype))
        };
        tables.blocks.resize_with(n_slots.div_ceil(BLOCK), block);
    }

    pub(super) fn attend(tables: &mut KvTables, layer: usize, qkv: Tensor<2>, rows: &[CachedRow<'_>]) -> Tensor<2> {
        let (c, device, qkv) = (tables.n_heads * tables.e, qkv.device(), primitive(qkv));
        // Taken out, so that nobody else has them.
        let primitive = |block: Tensor<4>| block.try_into_primitive::<Flex>().expect("a tensor on Flex");
        let mut taken: Vec<FlexTensor> = std::mem::take(&mut tables.blocks).into_iter().map(primitive).collect();
        let work = Work { layer, qkv: matrix(&qkv), n_heads: tables.n_heads, e: tables.e, rows };
        let out = match tables.dtype {
            DType::BF16 => work.of::<bf16, u16>(&mut taken),
            _ => work.of::<f32, f32>(&mut taken),
        };
        tables.blocks = taken.into_iter().map(Tensor::from_primitive::<Flex>).collect();
        let n = out.len() / c;
        Tensor::from_data(TensorData::new(out, [n, c]), &device)
    }

    struct Work<'a> {
        layer: usize,
        qkv: Matrix<'a>,
        n_heads: usize,
        e: usize,
        rows: &'a [CachedRow<'a>],
    }

    impl Work<'_> {
        fn of<T: Element + Pod, K: Kept>(&self, blocks: &mut [FlexTensor]) -> Vec<f32> {
            let Self { layer, qkv, n_heads, e, rows } = *self;
            let len = BLOCK * n_heads * e;
            let blocks = blocks.iter_mut().map(|block| block.try_storage_mut::<T>().expect("blocks that nobody else has"));
            let of_layer = blocks.map(|block| bytemuck::cast_slice_mut(&mut block[2 * layer * len..][..2 * len]).split_at_mut(len));
            let (keys, values): (Vec<&mut [K]>, Vec<&mut [K]>) = of_layer.unzip();
            let [keys, values] = [(keys, 1), (values, 2)].map(|(blocks, part)| {
                let mut table = Table { blocks, e };
                cpu::write(isa(), &mut table, qkv, part * n_heads * e, rows);
                Table { blocks: table.blocks.into_iter().map(|block| &*block).collect(), e }
            });
            cpu::forward(isa(), qkv, &keys, &values, n_heads, rows)
        }
    }
}
