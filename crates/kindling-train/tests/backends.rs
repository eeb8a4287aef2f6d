//! Each CPU backend computes what flex computes. GPU backends run the same body: `kindling devices --check`.

use burn::tensor::Device;
use kindling_train::parity::{TOLERANCE, compare};

#[test]
fn ndarray_computes_what_flex_computes() {
    #[expect(deprecated, reason = "kept for those who ask for it by name")]
    let ndarray = Device::ndarray();
    let parity = compare(&ndarray, &Device::flex());
    println!("{parity:?}");
    assert!(parity.within(&TOLERANCE), "{parity:?}");
    // Another summation order rounds differently; equal results would mean that one backend was compared with itself.
    assert!(parity.gradients > 0.0, "{parity:?}");
}

#[test]
fn flex_computes_the_same_twice() {
    let parity = compare(&Device::flex(), &Device::flex());
    assert!(parity.gradients == 0.0 && parity.weights == 0.0, "{parity:?}");
}
