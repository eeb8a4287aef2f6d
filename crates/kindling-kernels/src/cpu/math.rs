//! Elementary functions and reductions over vectors, and loops over rows. Every function is inlined into a kernel.

use super::isa::Vector;

/// e^x, within 2 units in the last place where the result is a normal number, 0 below about -87.7 and infinite above 88.4.
/// Cody and Waite's reduction to |r| <= ln(2)/2 and the polynomial of Cephes' `expf` (Moshier 1989). NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Vector>(simd: S, x: S::f32s) -> S::f32s {
    // Adding it rounds to an integer, which then stands, with the exponent's bias, in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0 + 127.0;
    let splat = |value| simd.splat_f32s(value);
    // Comparisons that are false for NaN: it passes. `max` and `min` would replace it on x86.
    let x = simd.select_f32s(simd.less_than_f32s(x, splat(-88.0)), splat(-88.0), x);
    let x = simd.select_f32s(simd.less_than_f32s(splat(89.0), x), splat(89.0), x);
    let shifted = simd.fma(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = simd.sub_f32s(shifted, splat(ROUND));
    // ln(2) in two parts, the first short enough for n times it to be exact.
    let r = simd.fma(n, splat(-0.693_359_4), x);
    let r = simd.fma(n, splat(2.121_944_4e-4), r);
    let mut p = splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = simd.fma(p, r, splat(c));
    }
    let y = simd.add_f32s(simd.fma(p, simd.mul_f32s(r, r), r), splat(1.0));
    let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.mul_f32s(y, simd.transmute_f32s_u32s(bits))
}

/// The parts of GPT-2's GELU, x·σ(u) with u = 2·sqrt(2/π)·(x + 0.044715·x³) (Hendrycks and Gimpel, arXiv:1606.08415).
pub(crate) const GELU_LINEAR: f32 = 1.595_769;
/// See [`GELU_LINEAR`]: 2·sqrt(2/π)·0.044715.
pub(crate) const GELU_CUBIC: f32 = 0.071_354_82;

#[inline(always)]
fn gelu_sigmoid<S: Vector>(simd: S, x: S::f32s, square: S::f32s) -> S::f32s {
    let u = simd.mul_f32s(x, simd.fma(square, simd.splat_f32s(GELU_CUBIC), simd.splat_f32s(GELU_LINEAR)));
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(u))))
}

/// GPT-2's GELU, the tanh approximation.
#[inline(always)]
pub(crate) fn gelu<S: Vector>(simd: S, x: S::f32s) -> S::f32s {
    simd.mul_f32s(x, gelu_sigmoid(simd, x, simd.mul_f32s(x, x)))
}

/// Its derivative, σ + x·σ·(1 - σ)·u'.
#[inline(always)]
pub(crate) fn gelu_derivative<S: Vector>(simd: S, x: S::f32s) -> S::f32s {
    let square = simd.mul_f32s(x, x);
    let sigmoid = gelu_sigmoid(simd, x, square);
    let slope = simd.fma(square, simd.splat_f32s(3.0 * GELU_CUBIC), simd.splat_f32s(GELU_LINEAR));
    let rest = simd.mul_f32s(simd.mul_f32s(x, sigmoid), simd.sub_f32s(simd.splat_f32s(1.0), sigmoid));
    simd.fma(rest, slope, sigmoid)
}

/// One vector of a slice: the first, filled up with zeros if the slice is shorter.
#[inline(always)]
pub(crate) fn load<S: Vector>(simd: S, x: &[f32]) -> S::f32s {
    match S::as_simd_f32s(x).0 {
        [v, ..] => *v,
        [] => simd.partial_load_f32s(x),
    }
}

#[inline(always)]
pub(crate) fn store<S: Vector>(simd: S, x: &mut [f32], v: S::f32s) {
    match S::as_mut_simd_f32s(x).0 {
        [place, ..] => *place = v,
        [] => simd.partial_store_f32s(x, v),
    }
}

// The loops below are macros and not functions that take closures: a closure whose body is long is not always inlined,
// and would then be compiled without the instructions of its caller. They expect the type of the vectors to be called `S`.

/// `map!(simd, x, |v| f)`: replaces every value of `x` by `f` of it.
macro_rules! map {
    ($simd:expr, $x:expr, |$v:pat_param| $f:expr) => {
        for x in $x.chunks_mut(S::F32_LANES) {
            let $v = $crate::cpu::math::load($simd, x);
            let value = $f;
            $crate::cpu::math::store($simd, x, value);
        }
    };
}

/// `zip!(simd, x, y, |a, b| f)`: replaces every value of `x` by `f` of it and of its counterpart in `y`.
macro_rules! zip {
    ($simd:expr, $x:expr, $y:expr, |$a:pat_param, $b:pat_param| $f:expr) => {
        for (x, y) in $x.chunks_mut(S::F32_LANES).zip($y.chunks(S::F32_LANES)) {
            let ($a, $b) = ($crate::cpu::math::load($simd, x), $crate::cpu::math::load($simd, y));
            let value = $f;
            $crate::cpu::math::store($simd, x, value);
        }
    };
}

/// `zip_with!(simd, out, x, y, |o, a, b| f)`: replaces every value of `out` by `f` of it and of its counterparts.
macro_rules! zip_with {
    ($simd:expr, $out:expr, $x:expr, $y:expr, |$o:pat_param, $a:pat_param, $b:pat_param| $f:expr) => {
        for ((out, x), y) in $out.chunks_mut(S::F32_LANES).zip($x.chunks(S::F32_LANES)).zip($y.chunks(S::F32_LANES)) {
            let $o = $crate::cpu::math::load($simd, out);
            let ($a, $b) = ($crate::cpu::math::load($simd, x), $crate::cpu::math::load($simd, y));
            let value = $f;
            $crate::cpu::math::store($simd, out, value);
        }
    };
}

/// `zip_both!(simd, x, y, |a, b| f)`: replaces the values of `x` and their counterparts in `y` by the pair that `f` makes of both.
macro_rules! zip_both {
    ($simd:expr, $x:expr, $y:expr, |$a:pat_param, $b:pat_param| $f:expr) => {
        for (x, y) in $x.chunks_mut(S::F32_LANES).zip($y.chunks_mut(S::F32_LANES)) {
            let ($a, $b) = ($crate::cpu::math::load($simd, x), $crate::cpu::math::load($simd, y));
            let (first, second) = $f;
            $crate::cpu::math::store($simd, x, first);
            $crate::cpu::math::store($simd, y, second);
        }
    };
}

/// `sum!(simd, x, y, |a, b| f)`: the sum of `f` over the values of two slices, in four running sums, so that additions need
/// not wait for one another. What is missing in the last vector comes as zero, and `f` of it must be zero.
macro_rules! sum {
    ($simd:expr, $x:expr, |$a:pat_param| $f:expr) => {
        $crate::cpu::math::sum!($simd, $x, $x, |$a, _| $f)
    };
    ($simd:expr, $x:expr, $y:expr, |$a:pat_param, $b:pat_param| $f:expr) => {{
        let mut sums = [$simd.splat_f32s(0.0); 4];
        for (x, y) in $x.chunks(4 * S::F32_LANES).zip($y.chunks(4 * S::F32_LANES)) {
            let (x, y) = ($crate::cpu::math::load_four($simd, x), $crate::cpu::math::load_four($simd, y));
            for (i, sum) in sums.iter_mut().enumerate() {
                let ($a, $b) = (x[i], y[i]);
                *sum = $simd.add_f32s(*sum, $f);
            }
        }
        $simd.reduce_sum_f32s($simd.add_f32s($simd.add_f32s(sums[0], sums[1]), $simd.add_f32s(sums[2], sums[3])))
    }};
}

pub(crate) use {map, sum, zip, zip_both, zip_with};

/// `x *= a`.
#[inline(always)]
pub(crate) fn scale<S: Vector>(simd: S, x: &mut [f32], a: f32) {
    let a = simd.splat_f32s(a);
    map!(simd, x, |v| simd.mul_f32s(v, a));
}

/// `y *= x`.
#[inline(always)]
pub(crate) fn mul<S: Vector>(simd: S, y: &mut [f32], x: &[f32]) {
    zip!(simd, y, x, |y, x| simd.mul_f32s(y, x));
}

/// `y += x`.
#[inline(always)]
pub(crate) fn add<S: Vector>(simd: S, y: &mut [f32], x: &[f32]) {
    zip!(simd, y, x, |y, x| simd.add_f32s(y, x));
}

/// Four vectors of a slice, filled up with zeros.
#[inline(always)]
pub(crate) fn load_four<S: Vector>(simd: S, x: &[f32]) -> [S::f32s; 4] {
    match S::as_simd_f32s(x).0 {
        [a, b, c, d, ..] => [*a, *b, *c, *d],
        _ => std::array::from_fn(|i| load(simd, &x[x.len().min(i * S::F32_LANES)..])),
    }
}

/// Sum of products.
#[inline(always)]
pub(crate) fn dot<S: Vector>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    sum!(simd, x, y, |a, b| simd.mul_f32s(a, b))
}

/// The largest value that is a number, minus infinity if there is none.
#[inline(always)]
pub(crate) fn max<S: Vector>(simd: S, x: &[f32]) -> f32 {
    let (head, tail) = S::as_simd_f32s(x);
    let larger = |best, v| simd.select_f32s(simd.less_than_f32s(best, v), v, best);
    let mut best = [simd.splat_f32s(f32::NEG_INFINITY); 4];
    let mut four = head.chunks_exact(4);
    for v in &mut four {
        for i in 0..4 {
            best[i] = larger(best[i], v[i]);
        }
    }
    for v in four.remainder() {
        best[0] = larger(best[0], *v);
    }
    let largest = simd.reduce_max_f32s(larger(larger(best[0], best[1]), larger(best[2], best[3])));
    tail.iter().fold(largest, |best, v| if best < *v { *v } else { best })
}

/// `out += x * y`.
#[inline(always)]
pub(crate) fn add_products<S: Vector>(simd: S, out: &mut [f32], x: &[f32], y: &[f32]) {
    zip_with!(simd, out, x, y, |out, x, y| simd.fma(x, y, out));
}
