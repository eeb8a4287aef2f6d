//! Packed weights: products with them have the bits of products with the same weights as they were, whatever the rows and the instructions.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_kernels::packed::rounded;
use kindling_kernels::{Form, Isa, PackedWeight, Precision, WeightFormat, gelu_linear, linear, stream, with_form};
use proptest::prelude::*;

fn tensor<const D: usize>(salt: u64, shape: [usize; D]) -> Tensor<D> {
    let n = shape.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..n).map(|i| (stream(salt, &[i]) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Zero has no sign: a whole number has none to keep.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| (value + 0.0).to_bits()).collect()
}

/// The product that a packed weight stands for, by the operations that training computes with.
fn expected(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, gelu: bool, format: WeightFormat) -> Vec<f32> {
    let product = if gelu { gelu_linear } else { linear };
    match format {
        WeightFormat::F32 => host(product(x, weight, bias, Precision::F32)),
        WeightFormat::Bf16 => host(product(x, weight, bias, Precision::Bf16)),
        WeightFormat::Int8 => {
            let [_, o] = weight.dims();
            let scale = weight.clone().abs().max_dim(0) / 127.0;
            let whole = rounded(weight, format) / scale.clone();
            let y = product(x, whole.round(), None, Precision::Bf16) * scale;
            host(bias.into_iter().fold(y, |y, bias| y + bias.reshape([1, o])))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn products_are_those_of_plain_weights(
        m in 1usize..170, k in 1usize..1100, n in 1usize..170, gelu: bool, has_bias: bool, is_table: bool, format in 0usize..3
    ) {
        let format = WeightFormat::ALL[format];
        let (x, weight) = (tensor(1, [m, k]), tensor(2, [k, n]));
        let bias = has_bias.then(|| tensor(3, [n]));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            with_form(Form::Fused(isa), || {
                let packed = if is_table {
                    PackedWeight::of_table(weight.clone().transpose(), format)
                } else {
                    PackedWeight::new(weight.clone(), format)
                };
                assert_eq!((packed.size(), packed.format()), ([k, n], format));
                let all = host(packed.linear(x.clone(), bias.clone(), gelu));
                let wanted = expected(x.clone(), weight.clone(), bias.clone(), gelu, format);
                assert_eq!(bits(&all), bits(&wanted), "{isa}, {format}");
                // A row has the same bits beside any others.
                for rows in [m - 1..m, 0..m.min(5), 0..m.min(13)] {
                    let some = host(packed.linear(x.clone().slice([rows.clone(), 0..k]), bias.clone(), gelu));
                    assert_eq!(bits(&some), bits(&all[rows.start * n..rows.end * n]), "{isa}, {format}, rows {rows:?}");
                }
                let by_stock = with_form(Form::Composed, || host(rounded(weight.clone(), format)));
                assert_eq!(bits(&host(packed.weight())), bits(&by_stock), "{isa}, {format}");
            });
        }
        // The twin that every device has: it rounds no factor but the weight.
        let device = Device::flex();
        let twin = with_form(Form::Composed, || {
            let packed = PackedWeight::new(weight.clone(), format);
            let ids = Tensor::<1, Int>::from_data(TensorData::new(vec![n as i64 - 1, 0], [2]), &device);
            assert_eq!(bits(&host(packed.rows(ids))), [n - 1, 0].map(|col| bits(&host(rounded(weight.clone(), format).slice([0..k, col..col + 1])))).concat());
            host(packed.linear(x.clone(), bias.clone(), gelu))
        });
        let fused = host(PackedWeight::new(weight.clone(), format).linear(x.clone(), bias, gelu));
        let largest = fused.iter().zip(&twin).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Rounding x to bf16 moves each of k products by 2^-9 of itself at most, and the sum by about the square root of k times as much.
        let allowed = if format == WeightFormat::F32 { 1e-4 } else { 2f32.powi(-9) * (k as f32).sqrt() * 2.0 + 1e-3 };
        prop_assert!(largest <= allowed, "{format}: {largest} of {allowed}");
    }
}

#[test]
fn bits_are_saved_and_zeros_stay() {
    let weight = tensor(1, [256, 64]);
    let n_bytes = WeightFormat::ALL.map(|format| PackedWeight::new(weight.clone(), format).n_bytes());
    assert_eq!(n_bytes, [256 * 64 * 4, 256 * 64 * 2, 256 * 64 + 64 * 4]);
    let zeros = Tensor::<2>::zeros([7, 3], &Device::flex());
    for format in WeightFormat::ALL {
        let packed = PackedWeight::new(zeros.clone(), format);
        assert_eq!(host(packed.linear(tensor(2, [2, 7]), None, false)), [0.0; 6]);
        assert_eq!(host(packed.weight()), [0.0; 21]);
    }
}
