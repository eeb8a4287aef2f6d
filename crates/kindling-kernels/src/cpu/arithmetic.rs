//! What a step along k of a matrix product multiplies: single values, or pairs of bf16.
#![allow(unsafe_code, reason = "the instructions for pairs of bf16 may only be called where the processor has them")]

use std::fmt;

use super::isa::{Isa, Kernel, Vector, dispatch};
use super::packed::pairs_of;

/// What the factors of matrix products are rounded to. Sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Both factors are rounded to bf16, to the nearest and ties to even. Processors without instructions for it compute the
    /// same more slowly.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl Precision {
    /// Words of 32 bits that `depth` values take: two bf16 share one.
    #[inline(always)]
    pub(crate) fn words(self, depth: usize) -> usize {
        match self {
            Self::F32 => depth,
            Self::Bf16 => depth.div_ceil(2),
        }
    }
}

/// The nearest bf16, ties to even, in the upper half.
#[inline(always)]
pub(crate) fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() { (bits | 0x0040_0000) & 0xffff_0000 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000 }
}

/// A vector of words of 32 bits.
pub(crate) type Words<A> = <<A as Arithmetic>::Simd as pulp::Simd>::f32s;

/// Multiplies words of 32 bits, handed around as `f32` whatever they hold.
pub(crate) trait Arithmetic: Copy {
    /// Its vectors.
    type Simd: Vector;
    /// A vector of factors.
    type Factor: Copy;
    /// How many products a word takes.
    const PARTS: usize;
    /// Its instructions.
    fn simd(self) -> Self::Simd;
    /// The factors of one part, of every word of a vector.
    fn factor(self, words: Words<Self>, part: usize) -> Self::Factor;
    /// `a * b + sum`.
    fn multiply_add(self, a: Self::Factor, b: Self::Factor, sum: Words<Self>) -> Words<Self>;
}

/// A word is a value.
#[derive(Clone, Copy)]
pub(crate) struct F32<S>(pub(crate) S);

impl<S: Vector> Arithmetic for F32<S> {
    type Simd = S;
    type Factor = S::f32s;
    const PARTS: usize = 1;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn factor(self, words: S::f32s, _part: usize) -> S::f32s {
        words
    }

    #[inline(always)]
    fn multiply_add(self, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        self.0.fma(a, b, sum)
    }
}

/// A word is two bf16.
pub(crate) trait Pairs: Arithmetic {
    /// Rounds two vectors and makes words of them, of whose bits the lower half are `low`.
    fn pair(self, low: Words<Self>, high: Words<Self>) -> Words<Self>;
    /// The words of both rows that quads of int8 are.
    fn of_quads(self, quads: Words<Self>) -> [Words<Self>; 2];
}

/// Pairs of bf16 by the instructions for f32, in which products of bf16 are exact.
#[derive(Clone, Copy)]
pub(crate) struct Emulated<S>(pub(crate) S);

impl<S: Vector> Emulated<S> {
    /// The nearest bf16, as the upper half of each word.
    #[inline(always)]
    fn round(self, x: S::f32s) -> S::u32s {
        let Self(simd) = self;
        let bits = simd.transmute_u32s_f32s(x);
        // Half of the last place, less one bit if the result would be even below.
        let last = simd.and_u32s(simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(16)), simd.splat_u32s(1));
        let rounded = simd.add_u32s(bits, simd.add_u32s(last, simd.splat_u32s(0x7fff)));
        // What is no number would become infinite, or wrap around: it stays none.
        let nan = simd.or_u32s(bits, simd.splat_u32s(0x0040_0000));
        simd.and_u32s(simd.select_u32s(simd.equal_f32s(x, x), rounded, nan), simd.splat_u32s(0xffff_0000))
    }
}

impl<S: Vector> Arithmetic for Emulated<S> {
    type Simd = S;
    type Factor = S::f32s;
    const PARTS: usize = 2;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn factor(self, words: S::f32s, part: usize) -> S::f32s {
        let Self(simd) = self;
        let bits = simd.transmute_u32s_f32s(words);
        simd.transmute_f32s_u32s(if part == 0 {
            simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(16))
        } else {
            simd.and_u32s(bits, simd.splat_u32s(0xffff_0000))
        })
    }

    #[inline(always)]
    fn multiply_add(self, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        self.0.fma(a, b, sum)
    }
}

impl<S: Vector> Pairs for Emulated<S> {
    #[inline(always)]
    fn pair(self, low: S::f32s, high: S::f32s) -> S::f32s {
        let Self(simd) = self;
        let low = simd.wrapping_dyn_shr_u32s(self.round(low), simd.splat_u32s(16));
        simd.transmute_f32s_u32s(simd.or_u32s(low, self.round(high)))
    }

    #[inline(always)]
    fn of_quads(self, quads: S::f32s) -> [S::f32s; 2] {
        [pairs_of(self.0, quads, 0), pairs_of(self.0, quads, 1)]
    }
}

/// Pairs of bf16 by the instructions of AVX-512 BF16. They take what is too small for a normal number for zero.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16(pulp::x86::V4);

#[cfg(target_arch = "x86_64")]
impl Avx512Bf16 {
    fn try_new() -> Option<Self> {
        Isa::Avx512Bf16.is_available().then(pulp::x86::V4::try_new).flatten().map(Self)
    }

    /// Compiles a kernel with these instructions.
    #[target_feature(enable = "avx512bf16,avx512vbmi,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn call<K: PairsKernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}

#[cfg(target_arch = "x86_64")]
impl Arithmetic for Avx512Bf16 {
    type Simd = pulp::x86::V4;
    type Factor = pulp::f32x16;
    const PARTS: usize = 1;

    #[inline(always)]
    fn simd(self) -> pulp::x86::V4 {
        self.0
    }

    #[inline(always)]
    fn factor(self, words: pulp::f32x16, _part: usize) -> pulp::f32x16 {
        words
    }

    #[inline(always)]
    fn multiply_add(self, a: pulp::f32x16, b: pulp::f32x16, sum: pulp::f32x16) -> pulp::f32x16 {
        use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
        // SAFETY: all of these are 512 bits of which every pattern is valid; and this was made where the instructions are.
        unsafe {
            let [a, b] = [a, b].map(|words| std::mem::transmute::<pulp::f32x16, __m512bh>(words));
            let sum = std::mem::transmute::<pulp::f32x16, __m512>(sum);
            std::mem::transmute::<__m512, pulp::f32x16>(_mm512_dpbf16_ps(sum, a, b))
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Pairs for Avx512Bf16 {
    #[inline(always)]
    fn pair(self, low: pulp::f32x16, high: pulp::f32x16) -> pulp::f32x16 {
        use std::arch::x86_64::{__m512, __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_permutexvar_epi16};
        /// Where the halves of each word stand among the 32 rounded values.
        const HALVES: [u16; 32] = {
            let mut halves = [0; 32];
            let mut i = 0;
            while i < 16 {
                (halves[2 * i], halves[2 * i + 1]) = (i as u16, 16 + i as u16);
                i += 1;
            }
            halves
        };
        // SAFETY: as above.
        unsafe {
            let [low, high] = [low, high].map(|values| std::mem::transmute::<pulp::f32x16, __m512>(values));
            let rounded = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            let halves = std::mem::transmute::<[u16; 32], __m512i>(HALVES);
            std::mem::transmute::<__m512i, pulp::f32x16>(_mm512_permutexvar_epi16(halves, rounded))
        }
    }

    #[inline(always)]
    fn of_quads(self, quads: pulp::f32x16) -> [pulp::f32x16; 2] {
        use std::arch::x86_64::{
            __m512i, _mm512_permutex2var_epi8, _mm512_set1_epi8, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi8, _mm512_unpacklo_epi8,
        };
        // SAFETY: as above.
        unsafe {
            let quads = std::mem::transmute::<pulp::f32x16, __m512i>(quads);
            let table = |half: usize, upper: usize| std::mem::transmute::<[u8; 64], __m512i>(BF16_OF_SIZES[half][upper]);
            // The lower seven bits of a byte choose among 128.
            let low = _mm512_permutex2var_epi8(table(0, 0), quads, table(0, 1));
            let high = _mm512_permutex2var_epi8(table(1, 0), quads, table(1, 1));
            // The sign, where the table has none: high | quads & 0x80.
            let high = _mm512_ternarylogic_epi32::<0xf8>(high, quads, _mm512_set1_epi8(i8::MIN));
            [_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)]
                .map(|words| std::mem::transmute::<__m512i, pulp::f32x16>(words))
        }
    }
}

/// The lower and the upper bytes of the bf16 of whole numbers from 0 to 127, the first half of each and the second.
#[cfg(target_arch = "x86_64")]
static BF16_OF_SIZES: [[[u8; 64]; 2]; 2] = {
    let mut tables = [[[0; 64]; 2]; 2];
    let mut size = 0;
    while size < 128 {
        // So small a number has nothing below.
        let bf16 = ((size as f32).to_bits() >> 16) as u16;
        tables[0][size / 64][size % 64] = (bf16 & 0xff) as u8;
        tables[1][size / 64][size % 64] = (bf16 >> 8) as u8;
        size += 1;
    }
    tables
};

/// As [`Kernel`], for what is computed with pairs of bf16.
pub(crate) trait PairsKernel {
    /// What comes out.
    type Output;
    /// Computes it.
    fn run<P: Pairs>(self, pairs: P) -> Self::Output;
}

/// Runs a kernel with the instructions of `isa`, emulated where it has none for bf16.
///
/// # Panics
/// If this processor lacks them.
pub(crate) fn dispatch_pairs<K: PairsKernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512Bf16 {
        let pairs = Avx512Bf16::try_new().expect("an instruction set is chosen among the available ones");
        // SAFETY: the line above made sure that this processor has the instructions.
        return unsafe { pairs.call(kernel) };
    }
    dispatch(isa, EmulatedKernel(kernel))
}

struct EmulatedKernel<K>(K);

impl<K: PairsKernel> Kernel for EmulatedKernel<K> {
    type Output = K::Output;
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) -> K::Output {
        self.0.run(Emulated(simd))
    }
}
