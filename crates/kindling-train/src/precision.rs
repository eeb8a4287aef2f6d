//! What a run's matrix products are computed in, on a machine that may lack what its configuration asks for.

use burn::tensor::Device;
use kindling_config::Precision as Wanted;
use kindling_kernels::{Isa, Precision, is_fused_on};

/// The precision that training has on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingPrecision {
    /// What the factors of matrix products are rounded to.
    pub precision: Precision,
    /// Its name, as manifests have it: `f32`, `bf16` or `bf16-emulated`.
    pub name: &'static str,
    /// Why it is not what the configuration asks for, if it is not.
    pub fallback: Option<&'static str>,
}

impl TrainingPrecision {
    /// What `wanted` is on `device`.
    pub fn on(device: &Device, wanted: Wanted) -> Self {
        let is = |precision, name| Self { precision, name, fallback: None };
        let f32_because = |why| Self { fallback: Some(why), ..is(Precision::F32, "f32") };
        match wanted {
            Wanted::F32 => is(Precision::F32, "f32"),
            _ if !is_fused_on(device) => f32_because("only the device flex computes in bf16"),
            _ if Isa::chosen() == Isa::Avx512Bf16 => is(Precision::Bf16, "bf16"),
            Wanted::Bf16 if Isa::Avx512Bf16.is_available() => f32_because("the chosen instruction set has none for bf16"),
            Wanted::Bf16 => f32_because("this processor has no instructions for bf16 (AVX-512 BF16)"),
            Wanted::Bf16Emulated => is(Precision::Bf16, "bf16-emulated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(deprecated, reason = "kept for those who ask for it by name")]
    fn what_a_machine_lacks_is_said() {
        let (flex, ndarray) = (Device::flex(), Device::ndarray());
        assert_eq!(TrainingPrecision::on(&flex, Wanted::F32).fallback, None);
        assert_eq!(TrainingPrecision::on(&flex.clone().autodiff(), Wanted::Bf16Emulated).precision, Precision::Bf16);
        let bf16 = TrainingPrecision::on(&flex, Wanted::Bf16);
        assert_eq!(bf16.fallback.is_none(), Isa::Avx512Bf16.is_available());
        assert_eq!(bf16.name == "bf16", Isa::Avx512Bf16.is_available());
        for wanted in [Wanted::Bf16, Wanted::Bf16Emulated] {
            let found = TrainingPrecision::on(&ndarray, wanted);
            assert_eq!((found.precision, found.name, found.fallback.is_some()), (Precision::F32, "f32", true));
        }
    }
}
