//! The innermost loops of a matrix product: a tile of C that stays in registers while k runs, and the panels it reads.
//!
//! Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), and the BLIS papers after it.
#![allow(unsafe_code, reason = "the loops that decide the speed of everything read through pointers, without bounds checks")]

use pulp::Simd as _;

use super::arithmetic::{Arithmetic, Pairs, Words};
use super::isa::Vector;

/// Vectors in a row of the register tile.
pub(crate) const TILE_VECTORS: usize = 2;

/// Rows of A up to which B comes from memory as fast as it is multiplied, and is worth asking for.
const FEW_ROWS: usize = 8;
/// How many words of B before they are read they are asked for.
const WORDS_AHEAD: usize = 512;

/// Columns of the register tile.
#[inline(always)]
pub(crate) const fn tile_cols<S: Vector>() -> usize {
    TILE_VECTORS * S::F32_LANES
}

/// Where a tile's words of A are: word (r, p) stands at `pointer + r * row + p * col`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    pub(crate) pointer: *const f32,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

/// Where a tile's words of B are: row p begins at `pointer + p * row`.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub(crate) pointer: *const f32,
    pub(crate) row: usize,
}

impl Right {
    /// A panel: rows of [`tile_cols`] words, one behind the other.
    #[inline(always)]
    pub(crate) fn panel<S: Vector>(pointer: *const f32) -> Self {
        Self { pointer, row: tile_cols::<S>() }
    }
}

/// Where a tile of C goes: value (r, j) to `pointer + r * row + j`, added to what is there or not.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) pointer: *mut f32,
    pub(crate) row: usize,
    pub(crate) add: bool,
}

/// C of `rows` × `cols`, at most one tile, from `k` columns of A and `k` rows of [`tile_cols`] words of B.
///
/// # Safety
/// All of A's `rows` × `k`, B's `k` rows, and the `rows` × `cols` places of C must be valid, the places to be
/// added to initialised, and no other thread may touch those places meanwhile.
#[inline(always)]
pub(crate) unsafe fn tile<A: Arithmetic>(by: A, rows: usize, cols: usize, k: usize, a: Left, b: Right, c: Place) {
    debug_assert!(rows <= A::Simd::TILE_ROWS && cols <= tile_cols::<A::Simd>());
    // SAFETY: handed on from the caller; every arm takes `rows` rows.
    unsafe {
        if cols <= lanes::<A>() {
            rows_of::<A, 1>(by, rows, cols, k, a, b, c);
        } else {
            rows_of::<A, TILE_VECTORS>(by, rows, cols, k, a, b, c);
        }
    }
}

/// The same with a B of int8: `words` words along k, of which two stand in each row of `b`.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
pub(crate) unsafe fn tile_of_quads<A: Pairs>(by: A, rows: usize, cols: usize, words: usize, a: Left, b: Right, c: Place) {
    macro_rules! arms {
        ($($r:literal)*) => {
            match rows {
                // SAFETY: handed on from the caller.
                $($r if $r <= A::Simd::TILE_ROWS => unsafe { registers_of_quads::<A, $r, TILE_VECTORS>(by, cols, words, a, b, c) },)*
                _ => unreachable!("a tile has between 1 and TILE_ROWS rows"),
            }
        };
    }
    arms!(1 2 3 4 5 6 7 8 9 10 11 12);
}

#[inline(always)]
const fn lanes<A: Arithmetic>() -> usize {
    <A::Simd as pulp::Simd>::F32_LANES
}

#[inline(always)]
unsafe fn rows_of<A: Arithmetic, const V: usize>(by: A, rows: usize, cols: usize, k: usize, a: Left, b: Right, c: Place) {
    macro_rules! arms {
        ($($r:literal)*) => {
            match rows {
                // SAFETY: handed on from the caller.
                $($r if $r <= A::Simd::TILE_ROWS => unsafe { registers::<A, $r, V>(by, cols, k, a, b, c) },)*
                _ => unreachable!("a tile has between 1 and TILE_ROWS rows"),
            }
        };
    }
    arms!(1 2 3 4 5 6 7 8 9 10 11 12);
}

#[inline(always)]
unsafe fn registers<A: Arithmetic, const R: usize, const V: usize>(by: A, cols: usize, k: usize, a: Left, b: Right, c: Place) {
    let (simd, lanes) = (by.simd(), lanes::<A>());
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    prefetch_rows::<R>(c);
    let (mut a_p, mut b_p) = (a.pointer, b.pointer);
    for _ in 0..k {
        if R <= FEW_ROWS {
            prefetch_row::<V>(b_p.wrapping_add(WORDS_AHEAD), lanes);
        }
        for part in 0..A::PARTS {
            // SAFETY: the caller vouches for k rows of B and k columns of A's R rows. `wrapping_add` because the
            // pointers are moved once more than they are read.
            unsafe {
                let mut b_row = [by.factor(simd.splat_f32s(0.0), part); V];
                for (v, value) in b_row.iter_mut().enumerate() {
                    *value = by.factor(b_p.add(v * lanes).cast::<Words<A>>().read_unaligned(), part);
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let value = by.factor(simd.splat_f32s(*a_p.add(r * a.row)), part);
                    for v in 0..V {
                        sums[v] = by.multiply_add(value, b_row[v], sums[v]);
                    }
                }
            }
        }
        a_p = a_p.wrapping_add(a.col);
        b_p = b_p.wrapping_add(b.row);
    }
    // SAFETY: handed on from the caller.
    unsafe { write_sums::<A, R, V>(by, cols, sums, c) };
}

/// As `registers`, from `words` words along k that stand in quads of int8.
#[inline(always)]
unsafe fn registers_of_quads<A: Pairs, const R: usize, const V: usize>(by: A, cols: usize, words: usize, a: Left, b: Right, c: Place) {
    let (simd, lanes) = (by.simd(), lanes::<A>());
    let mut sums = [[simd.splat_f32s(0.0); V]; R];
    prefetch_rows::<R>(c);
    let (mut a_p, mut b_p) = (a.pointer, b.pointer);
    for quad in 0..words.div_ceil(2) {
        // One row leaves no time for it: spreading quads out takes longer than multiplying.
        if R > 1 && R <= FEW_ROWS {
            prefetch_row::<V>(b_p.wrapping_add(WORDS_AHEAD), lanes);
        }
        // SAFETY: the caller vouches for all words of B and of A's R rows.
        unsafe {
            let mut quads = [simd.splat_f32s(0.0); V];
            for (v, quads) in quads.iter_mut().enumerate() {
                *quads = b_p.add(v * lanes).cast::<Words<A>>().read_unaligned();
            }
            let mut both = [quads; 2];
            for (v, quads) in quads.iter().enumerate() {
                [both[0][v], both[1][v]] = by.of_quads(*quads);
            }
            for pairs in both.iter().take(words - 2 * quad) {
                for part in 0..A::PARTS {
                    let mut b_row = [by.factor(pairs[0], part); V];
                    for (b, pairs) in b_row.iter_mut().zip(pairs) {
                        *b = by.factor(*pairs, part);
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let value = by.factor(simd.splat_f32s(*a_p.add(r * a.row)), part);
                        for v in 0..V {
                            sums[v] = by.multiply_add(value, b_row[v], sums[v]);
                        }
                    }
                }
                a_p = a_p.wrapping_add(a.col);
            }
        }
        b_p = b_p.wrapping_add(b.row);
    }
    // SAFETY: handed on from the caller.
    unsafe { write_sums::<A, R, V>(by, cols, sums, c) };
}

/// Takes the sums as they are, and not where they lie: what is indexed in loops that are not unrolled lies in memory, and were it the sums that are
/// summed in, every step of k would store them all.
///
/// # Safety
/// The R rows of `cols` places of C must be valid, initialised where `add`.
#[inline(always)]
unsafe fn write_sums<A: Arithmetic, const R: usize, const V: usize>(by: A, cols: usize, sums: [[Words<A>; V]; R], c: Place) {
    let (simd, lanes) = (by.simd(), lanes::<A>());
    // SAFETY: the caller vouches for R rows of `cols` places, initialised where `add`; a mask takes those of the last vector.
    unsafe {
        if cols == V * lanes {
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let place = c.pointer.add(r * c.row + v * lanes).cast::<Words<A>>();
                    place.write_unaligned(if c.add { simd.add_f32s(place.read_unaligned(), *sum) } else { *sum });
                }
            }
            return;
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let n = cols.saturating_sub(v * lanes).min(lanes);
                if n > 0 {
                    let place = c.pointer.add(r * c.row + v * lanes);
                    let mask = simd.mask_between_m32s(0, n as u32);
                    let sum = if c.add { simd.add_f32s(simd.mask_load_ptr_f32s(mask, place), *sum) } else { *sum };
                    simd.mask_store_ptr_f32s(mask, place, sum);
                }
            }
        }
    }
}

/// Asks for the rows of C, which are needed once k has run.
#[inline(always)]
fn prefetch_rows<const R: usize>(c: Place) {
    for r in 0..R {
        prefetch(c.pointer.wrapping_add(r * c.row));
    }
}

/// Asks for the V vectors of a row of B.
#[inline(always)]
fn prefetch_row<const V: usize>(row: *const f32, lanes: usize) {
    for v in 0..V {
        prefetch(row.wrapping_add(v * lanes));
    }
}

/// Asks memory for what is needed soon.
#[inline(always)]
pub(crate) fn prefetch(pointer: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}
