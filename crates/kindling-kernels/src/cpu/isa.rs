//! Instruction sets, chosen at run time. What is computed with them is in the other files.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for, from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Whatever the compiler makes of plain arithmetic: every processor.
    Portable,
    /// AVX2 and FMA: x86-64-v3.
    Avx2,
    /// AVX-512 F, BW, CD, DQ and VL: x86-64-v4.
    Avx512,
    /// AVX-512 with the dot products of bf16 pairs, and with tables of 128 bytes, VBMI.
    Avx512Bf16,
}

static CHOSEN: OnceLock<Isa> = OnceLock::new();

impl Isa {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The most capable that this processor has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// The one that fused operations are computed with: the most capable, unless another was chosen.
    pub fn chosen() -> Self {
        *CHOSEN.get_or_init(Self::detect)
    }

    /// Chooses it for the whole process, if this processor has it and nothing was computed before.
    ///
    /// # Errors
    /// The one that is used instead.
    pub fn choose(self) -> Result<(), Self> {
        let chosen = *CHOSEN.get_or_init(|| if self.is_available() { self } else { Self::detect() });
        if chosen == self { Ok(()) } else { Err(chosen) }
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                pulp::x86::V4::is_available()
                    && std::arch::is_x86_feature_detected!("avx512bf16")
                    && std::arch::is_x86_feature_detected!("avx512vbmi")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        })
    }
}

/// A set of vector instructions with what the kernels must know of it beside [`pulp::Simd`].
pub trait Vector: pulp::Simd {
    /// Whether a product and a sum are one instruction. Where they are not, one would be a call into the C library.
    const FUSED: bool;
    /// Rows of the register tile of a matrix product: as many as leave registers for one row of B and one value of A.
    const TILE_ROWS: usize;

    /// Rows and columns of a block exchanged.
    #[inline(always)]
    fn transpose(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        std::array::from_fn(|i| std::array::from_fn(|j| block[j][i]))
    }

    /// `a * b + c`.
    #[inline(always)]
    fn fma(self, a: Self::f32s, b: Self::f32s, c: Self::f32s) -> Self::f32s {
        if Self::FUSED { self.mul_add_f32s(a, b, c) } else { self.add_f32s(self.mul_f32s(a, b), c) }
    }
}

impl Vector for pulp::Scalar128b {
    const FUSED: bool = false;
    const TILE_ROWS: usize = 4;
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V3 {
    const FUSED: bool = true;
    const TILE_ROWS: usize = 6;

    #[inline(always)]
    fn transpose(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        transpose_avx(self, block)
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for pulp::x86::V4 {
    const FUSED: bool = true;
    const TILE_ROWS: usize = 12;

    #[inline(always)]
    fn transpose(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        transpose_avx(*self, block)
    }
}

/// Pairs of rows are interleaved, then pairs of pairs, then the halves of rows are exchanged.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_avx(simd: pulp::x86::V3, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    let avx = simd.avx;
    let r = block.map(pulp::bytemuck::cast::<[f32; 8], std::arch::x86_64::__m256>);
    let pairs = |i: usize| (avx._mm256_unpacklo_ps(r[i], r[i + 1]), avx._mm256_unpackhi_ps(r[i], r[i + 1]));
    let ((a, b), (c, d), (e, f), (g, h)) = (pairs(0), pairs(2), pairs(4), pairs(6));
    let low = |x, y| avx._mm256_shuffle_ps::<0x44>(x, y);
    let high = |x, y| avx._mm256_shuffle_ps::<0xee>(x, y);
    let upper = [low(a, c), high(a, c), low(b, d), high(b, d)];
    let lower = [low(e, g), high(e, g), low(f, h), high(f, h)];
    let halves = std::array::from_fn::<_, 8, _>(|i| match i {
        0..4 => avx._mm256_permute2f128_ps::<0x20>(upper[i], lower[i]),
        _ => avx._mm256_permute2f128_ps::<0x31>(upper[i - 4], lower[i - 4]),
    });
    halves.map(pulp::bytemuck::cast)
}

/// A computation that is compiled once for each instruction set. `run` must be `#[inline(always)]`, and so must what it calls.
pub(crate) trait Kernel {
    /// What comes out.
    type Output;
    /// Computes it with the vectors of `simd`.
    fn run<S: Vector>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the instructions of `isa`.
///
/// # Panics
/// If this processor lacks them.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => {
            let simd = pulp::x86::V4::try_new().expect("an instruction set is chosen among the available ones");
            simd.vectorize(Run(kernel, simd))
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            let simd = pulp::x86::V3::try_new().expect("an instruction set is chosen among the available ones");
            simd.vectorize(Run(kernel, simd))
        }
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16 => unreachable!("an instruction set is chosen among the available ones"),
        Isa::Portable => kernel.run(pulp::Scalar128b),
    }
}

#[cfg(target_arch = "x86_64")]
struct Run<K, S>(K, S);

#[cfg(target_arch = "x86_64")]
impl<K: Kernel, S: Vector> pulp::NullaryFnOnce for Run<K, S> {
    type Output = K::Output;
    #[inline(always)]
    fn call(self) -> K::Output {
        self.0.run(self.1)
    }
}
