//! Linear layers whose weights are kept as kernels read them, in fewer bits if wanted, for models that only write.

use burn::tensor::{DType, Int, Tensor, TensorData};

use crate::{Precision, WeightFormat, embedding, gelu_linear, linear};

/// A weight `[I, O]` that is no longer trained.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    format: WeightFormat,
    size: [usize; 2],
    kept: Kept,
}

#[derive(Clone, Debug)]
enum Kept {
    /// As a tensor `[I, O]`, rounded as the format says: on every device.
    Rounded(Box<Tensor<2>>),
    /// As panels, on Flex.
    #[cfg(feature = "flex")]
    Panels(Box<Panels>),
}

/// Words of 32 bits, and of int8 the scale of each output; else none.
#[cfg(feature = "flex")]
#[derive(Clone, Debug)]
struct Panels {
    words: Tensor<1, Int>,
    scales: Tensor<1>,
}

impl PackedWeight {
    /// Of a weight `[I, O]`.
    pub fn new(weight: Tensor<2>, format: WeightFormat) -> Self {
        let size = weight.dims();
        #[cfg(feature = "flex")]
        if crate::flex::is_fused(&weight) {
            return Self { format, size, kept: fused::pack(weight, format, false) };
        }
        Self { format, size, kept: Kept::Rounded(Box::new(rounded(weight, format))) }
    }

    /// Of the transpose of a table `[O, I]`, such as an embedding that is also the head.
    pub fn of_table(table: Tensor<2>, format: WeightFormat) -> Self {
        let [o, i] = table.dims();
        #[cfg(feature = "flex")]
        if crate::flex::is_fused(&table) {
            return Self { format, size: [i, o], kept: fused::pack(table, format, true) };
        }
        Self { format, size: [i, o], kept: Kept::Rounded(Box::new(rounded(table.transpose(), format))) }
    }

    /// How it is kept.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// `[I, O]`.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// `x·weight + bias`, or `gelu(x)·weight + bias`: `x` `[N, I]`, `bias` `[O]`, out `[N, O]`. The fused form gives a row the same bits whatever the
    /// other rows are, and rounds `x` to bf16 where weights are not f32.
    ///
    /// # Panics
    /// If the sizes do not fit.
    pub fn linear(&self, x: Tensor<2>, bias: Option<Tensor<1>>, gelu: bool) -> Tensor<2> {
        match &self.kept {
            Kept::Rounded(weight) if gelu => gelu_linear(x, (**weight).clone(), bias, Precision::F32),
            Kept::Rounded(weight) => linear(x, (**weight).clone(), bias, Precision::F32),
            #[cfg(feature = "flex")]
            Kept::Panels(panels) => fused::linear(self, panels, x, bias, gelu),
        }
    }

    /// The outputs with some `ids` `[N]` as rows, `[N, I]`: of a table those of its rows.
    ///
    /// # Panics
    /// If there is no such output.
    pub fn rows(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        match &self.kept {
            Kept::Rounded(weight) => embedding(weight.clone().transpose(), ids),
            #[cfg(feature = "flex")]
            Kept::Panels(panels) => fused::rows(self, panels, ids),
        }
    }

    /// The weight as it is computed with, `[I, O]`.
    pub fn weight(&self) -> Tensor<2> {
        match &self.kept {
            Kept::Rounded(weight) => (**weight).clone(),
            #[cfg(feature = "flex")]
            Kept::Panels(panels) => {
                let o = self.size[1];
                let ids = Tensor::from_data(TensorData::new((0..o as i64).collect(), [o]), &panels.words.device());
                self.rows(ids).transpose()
            }
        }
    }

    /// Bytes that it takes.
    pub fn n_bytes(&self) -> usize {
        let [i, o] = self.size;
        match &self.kept {
            Kept::Rounded(_) => 4 * i * o,
            #[cfg(feature = "flex")]
            Kept::Panels(panels) => 4 * (panels.words.dims()[0] + panels.scales.dims()[0]),
        }
    }
}

/// A weight `[I, O]` rounded as a format says, of stock operations.
pub fn rounded(weight: Tensor<2>, format: WeightFormat) -> Tensor<2> {
    match format {
        WeightFormat::F32 => weight,
        WeightFormat::Bf16 => {
            let dtype = weight.dtype();
            weight.cast(DType::BF16).cast(dtype)
        }
        WeightFormat::Int8 => {
            let scale = weight.clone().abs().max_dim(0) / 127.0; // [1, O]
            // An output of zeros alone has no scale.
            let divisor = scale.clone().mask_fill(scale.clone().equal_elem(0.0), 1.0);
            (weight / divisor).round() * scale
        }
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::{DType, Int, Tensor, TensorData};

    use super::{Kept, PackedWeight, Panels};
    use crate::cpu::linear::forward_packed;
    use crate::cpu::packed::{Packed, WeightFormat, pack as pack_words};
    use crate::flex::{contiguous, ids as ids_of, isa, matrix, not_empty, primitive, values};

    pub(super) fn pack(weight: Tensor<2>, format: WeightFormat, is_table: bool) -> Kept {
        let device = weight.device();
        let weight = primitive(weight);
        let matrix = if is_table { matrix(&weight).transposed() } else { matrix(&weight) };
        let (words, scales) = pack_words(isa(), format, matrix);
        let (n_words, n_scales) = (words.len(), scales.len());
        Kept::Panels(Box::new(Panels {
            words: Tensor::from_data(TensorData::new(words, [n_words]), (&device, DType::I32)),
            scales: Tensor::from_data(TensorData::new(scales, [n_scales]), &device),
        }))
    }

    /// Calls `compute` with the matrix that a weight is.
    fn with<T>(weight: &PackedWeight, panels: &Panels, compute: impl FnOnce(Packed<'_>) -> T) -> T {
        let words: FlexTensor = panels.words.clone().try_into_primitive::<Flex>().expect("a tensor on Flex");
        let scales = panels.scales.clone().try_into_primitive::<Flex>().expect("a tensor on Flex");
        let words = words.as_slice::<i32>().expect("a contiguous i32 tensor");
        compute(Packed::new(isa(), weight.format, weight.size, words, values(&scales)))
    }

    pub(super) fn linear(weight: &PackedWeight, panels: &Panels, x: Tensor<2>, bias: Option<Tensor<1>>, gelu: bool) -> Tensor<2> {
        let device = x.device();
        let x = primitive(x);
        let bias = bias.map(|bias| contiguous(bias.try_into_primitive::<Flex>().expect("a tensor on Flex")));
        let n = x.shape()[0];
        let y = with(weight, panels, |w| forward_packed(isa(), matrix(&x), w, bias.as_ref().and_then(not_empty), gelu));
        Tensor::from_data(TensorData::new(y, [n, weight.size[1]]), &device)
    }

    pub(super) fn rows(weight: &PackedWeight, panels: &Panels, ids: Tensor<1, Int>) -> Tensor<2> {
        let device = ids.device();
        let ids = ids_of(ids.try_into_primitive::<Flex>().expect("a tensor on Flex"));
        let (n, i) = (ids.len(), weight.size[0]);
        let mut out = vec![0.0; n * i];
        with(weight, panels, |w| {
            ids.iter().zip(out.chunks_mut(i.max(1))).for_each(|(id, out)| w.column(*id as usize, out));
        });
        Tensor::from_data(TensorData::new(out, [n, i]), &device)
    }
}
