//! Matrix products of f32 matrices in any orientation, multi-threaded, with work before and after fused in, and with factors
//! rounded to bf16 if asked for.
//!
//! Blocked for the caches as in GotoBLAS and BLIS: a block of B's rows is copied into panels that all threads share, each
//! thread copies blocks of A, and tiles of C are summed in registers (`tile.rs`). An element of C is summed in the same
//! order whatever the number of threads, and whichever other rows there are.
#![allow(unsafe_code, reason = "blocks of C that threads write at once are strided, and panels are not initialised twice")]

use rayon::prelude::*;

use super::arithmetic::{Arithmetic, F32, Pairs, PairsKernel, Precision, dispatch_pairs};
use super::buffer::{Buffers, Shared, Use, filled, with_buffers};
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::packed::{Expand, Packed};
use super::pairs::{self, Pair, Runs};
use super::tile::{Left, Place, Right, tile, tile_cols, tile_of_quads};

/// Words of columns of A that are taken at once: a panel of B and one of A fit the first-level cache.
pub(crate) const BLOCK_K: usize = 256;
/// Rows of A that a thread copies at once: they fit the second-level cache.
const BLOCK_M: usize = 144;
/// Columns of B that are copied at once: they fit the last-level cache.
const BLOCK_N: usize = 3072;
/// Columns of B up to which A is read in place.
const DIRECT_COLS: usize = 512;
/// Rows of A up to which B is read in place, if its rows lie as they are needed: copying it would take longer than all else.
const DIRECT_ROWS: usize = 12;
/// Rows of A up to which B is read row by row: a tile would read a few columns of all rows, and then the next few.
const FEW_ROWS: usize = 4;
/// Products with fewer multiplications are computed by the calling thread.
const PARALLEL_FROM: usize = 64 * 64 * 64;

/// A matrix that is read: element (i, j) is `data[i * row + j * col]`, and one of the strides is 1.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows lie one behind the other.
    ///
    /// # Panics
    /// If `data` is not of `rows` × `cols` values.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows} x {cols} matrix");
        Self { data, rows, cols, row: cols, col: 1 }
    }

    /// The same values with rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row: self.col, col: self.row, ..self }
    }

    /// Some of its rows.
    ///
    /// # Panics
    /// If there are not as many.
    #[must_use]
    pub fn slice_rows(self, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        Self { data: &self.data[(range.start * self.row).min(self.data.len())..], rows: range.len(), ..self }
    }

    /// A row.
    ///
    /// # Panics
    /// If there is none, or its values do not lie one behind the other.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        assert!(row < self.rows && self.col == 1, "row {row} of {}", self.rows);
        &self.data[row * self.row..][..self.cols]
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// An element.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row + j * self.col]
    }

    fn pointer(&self, i: usize, j: usize) -> *const f32 {
        debug_assert!(i < self.rows && j < self.cols);
        self.data[i * self.row + j * self.col..].as_ptr()
    }
}

/// What is done to values of A on their way into the product. It must keep zero.
pub trait Prologue: Copy + Send + Sync {
    /// Whether it does nothing.
    const NOTHING: bool = false;
    /// Changes values in place.
    fn apply(self, isa: Isa, values: &mut [f32]);
}

/// What is done to values of C once they are summed.
pub trait Epilogue: Sync {
    /// Changes the values of a row from column `col` on.
    fn apply(&self, isa: Isa, row: usize, col: usize, values: &mut [f32]);
}

/// Nothing before, or nothing after.
#[derive(Clone, Copy, Debug)]
pub struct Nothing;

impl Prologue for Nothing {
    const NOTHING: bool = true;
    fn apply(self, _isa: Isa, _values: &mut [f32]) {}
}

impl Epilogue for Nothing {
    fn apply(&self, _isa: Isa, _row: usize, _col: usize, _values: &mut [f32]) {}
}

/// `epilogue(prologue(a) · b)`, row after row.
///
/// # Panics
/// If `a` has not as many columns as `b` has rows.
pub fn matmul(isa: Isa, precision: Precision, a: Matrix<'_>, b: Matrix<'_>, prologue: impl Prologue, epilogue: &impl Epilogue) -> Vec<f32> {
    let (m, n) = (a.rows, b.cols);
    // SAFETY: the product writes all m rows of n values, which lie one behind the other.
    unsafe {
        filled(m * n, |c| {
            let c = Target { pointer: Shared::new(c.as_mut_ptr().cast()), row: n, add: false };
            product(isa, precision, a, Operand::Plain(b), c, prologue, epilogue)
        })
    }
}

/// The same with a matrix that was packed before.
///
/// # Panics
/// As [`matmul`].
pub fn matmul_packed(isa: Isa, a: Matrix<'_>, b: Packed<'_>, prologue: impl Prologue, epilogue: &impl Epilogue) -> Vec<f32> {
    let (m, n) = (a.rows, b.n);
    // SAFETY: the product writes all m rows of n values, which lie one behind the other.
    unsafe {
        filled(m * n, |c| {
            let c = Target { pointer: Shared::new(c.as_mut_ptr().cast()), row: n, add: false };
            product(isa, b.format.precision(), a, Operand::Packed(b), c, prologue, epilogue)
        })
    }
}

/// `c += a · b`, for a `c` whose rows lie one behind the other.
///
/// # Panics
/// If the sizes do not fit.
pub fn matmul_add(isa: Isa, precision: Precision, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32]) {
    assert_eq!(c.len(), a.rows * b.cols, "C has the rows of A and the columns of B");
    let c = Target { pointer: Shared::new(c.as_mut_ptr()), row: b.cols, add: true };
    // SAFETY: c is borrowed exclusively, initialised, and of the right size.
    unsafe { product(isa, precision, a, Operand::Plain(b), c, Nothing, &Nothing) }
}

/// The right factor.
#[derive(Clone, Copy)]
enum Operand<'a> {
    Plain(Matrix<'a>),
    Packed(Packed<'a>),
}

impl Operand<'_> {
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Plain(b) => (b.rows, b.cols),
            Self::Packed(b) => (b.k, b.n),
        }
    }
}

/// Where C goes, as a [`Place`] that several threads may have.
#[derive(Clone, Copy)]
struct Target {
    pointer: Shared<f32>,
    row: usize,
    add: bool,
}

/// Rows and columns of the register tile.
pub(crate) struct TileShape;

impl Kernel for TileShape {
    type Output = (usize, usize);
    #[inline(always)]
    fn run<S: Vector>(self, _simd: S) -> (usize, usize) {
        (S::TILE_ROWS, tile_cols::<S>())
    }
}

/// # Safety
/// Row i of C, as many values as B has columns from `c.pointer + i * c.row`, must be valid for all rows of `a`, initialised if `c.add`, and
/// touched by nobody else meanwhile.
unsafe fn product(
    isa: Isa,
    precision: Precision,
    a: Matrix<'_>,
    b: Operand<'_>,
    c: Target,
    prologue: impl Prologue,
    epilogue: &impl Epilogue,
) {
    let (m, k, (b_rows, n)) = (a.rows, a.cols, b.size());
    assert_eq!(k, b_rows, "A has as many columns as B has rows");
    if m == 0 || n == 0 {
        return;
    }
    let shape = dispatch(isa, TileShape);
    let (tile_rows, tile_cols) = shape;
    let whole = Columns { isa, precision, a, b, c, from: 0, to: n, parallel: false, shape };
    let threads = rayon::current_num_threads();
    if threads == 1 || m * n * k < PARALLEL_FROM {
        // SAFETY: handed on from the caller.
        return unsafe { whole.compute(prologue, epilogue) };
    }
    if m >= 2 * threads * tile_rows {
        // SAFETY: handed on from the caller.
        return unsafe { Columns { parallel: true, ..whole }.compute(prologue, epilogue) };
    }
    // Few rows: the threads share out the columns instead.
    let width = n.div_ceil(2 * threads).next_multiple_of(tile_cols);
    (0..n.div_ceil(width)).into_par_iter().for_each(|i| {
        let (from, to) = (i * width, n.min((i + 1) * width));
        // SAFETY: handed on from the caller; the ranges of columns do not overlap.
        unsafe { Columns { from, to, ..whole }.compute(prologue, epilogue) };
    });
}

/// All rows and some columns of a product.
#[derive(Clone, Copy)]
struct Columns<'a> {
    isa: Isa,
    precision: Precision,
    a: Matrix<'a>,
    b: Operand<'a>,
    c: Target,
    from: usize,
    to: usize,
    parallel: bool,
    /// Rows and columns of the register tile.
    shape: (usize, usize),
}

/// A block of C, and the columns of A that it is computed from.
#[derive(Clone, Copy)]
struct Part {
    row: usize,
    rows: usize,
    col: usize,
    cols: usize,
    depth: Depth,
}

/// Some columns of A, or as many rows of B.
#[derive(Clone, Copy)]
struct Depth {
    from: usize,
    len: usize,
}

impl Columns<'_> {
    /// # Safety
    /// As [`product`], for the columns from `from` to `to`.
    unsafe fn compute<P: Prologue>(self, prologue: P, epilogue: &impl Epilogue) {
        let Self { isa, precision, a, b, c, from, to, parallel, shape: (tile_rows, tile_cols) } = self;
        let (m, k) = (a.rows, a.cols);
        let makes_panels = match b {
            Operand::Plain(_) => true,
            Operand::Packed(b) => b.is_quads() && !self.spreads_in_registers(),
        };
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        // Blocks of equal size, so that none is a small rest.
        let k_blocks = precision.words(k).div_ceil(BLOCK_K).max(1);
        let block_k = k.div_ceil(k_blocks).max(1);
        let m_blocks = m.div_ceil(BLOCK_M).next_multiple_of(threads);
        let block_m = m.div_ceil(m_blocks).next_multiple_of(tile_rows);
        let panels_len = if makes_panels { (to - from).min(BLOCK_N).next_multiple_of(tile_cols) * precision.words(block_k) } else { 0 };
        let b_in_place = self.b_in_place();
        with_buffers(Use::Whole, |kept| {
            let panels = Shared::new(kept.get(0, panels_len).as_mut_ptr().cast::<f32>());
            for j in (from..to).step_by(BLOCK_N) {
                let n = (to - j).min(BLOCK_N);
                for (p, last) in (0..k_blocks).map(|i| (i * block_k, i + 1 == k_blocks)) {
                    let depth = Depth { from: p, len: (k - p).min(block_k) };
                    // Those that the product reads: of its own making, or as they are kept.
                    let read = match b {
                        Operand::Packed(b) if !makes_panels => Shared::new(b.panels(p, j).cast_mut()),
                        _ => panels,
                    };
                    let pack = |panel: usize| {
                        if let Operand::Packed(b) = b {
                            let words = precision.words(depth.len);
                            let expand = Expand {
                                from: b.panels(p, j + panel * tile_cols),
                                words,
                                // SAFETY: the panels do not overlap, and there is room for all of them.
                                out: unsafe { panels.at(panel * tile_cols * words) },
                            };
                            // SAFETY: the weights are packed for these instructions, and there is room for the words.
                            return unsafe { expand.run(isa) };
                        }
                        let (col, offset) = (j + panel * tile_cols, panel * tile_cols * precision.words(depth.len));
                        let cols = (j + n - col).min(tile_cols);
                        let is_read = match b_in_place {
                            InPlace::Nothing => true,
                            InPlace::WholePanels => cols < tile_cols,
                            InPlace::Everything => false,
                        };
                        if is_read && depth.len > 0 {
                            // SAFETY: the panels do not overlap, and there is room for all of them.
                            unsafe { self.pack_b(depth, col, cols, panels.at(offset)) };
                        }
                    };
                    let multiply = |i: usize| {
                        let row = i * block_m;
                        if row >= m {
                            return;
                        }
                        let rows = (m - row).min(block_m);
                        let part = Part { row, rows, col: j, cols: n, depth };
                        // SAFETY: C's rows are the caller's, and no other block has these; the panels of B are packed.
                        unsafe {
                            with_buffers(Use::Part, |kept| self.multiply(part, read.at(0), kept, prologue));
                            if last {
                                for r in 0..rows {
                                    let values = std::slice::from_raw_parts_mut(c.pointer.at((row + r) * c.row + j), n);
                                    epilogue.apply(isa, row + r, j, values);
                                }
                            }
                        }
                    };
                    let n_panels = if makes_panels { n.div_ceil(tile_cols) } else { 0 };
                    if parallel {
                        (0..n_panels).into_par_iter().with_min_len(n_panels.div_ceil(4 * threads).max(1)).for_each(pack);
                        (0..m_blocks).into_par_iter().for_each(multiply);
                    } else {
                        (0..n_panels).for_each(pack);
                        (0..m_blocks).for_each(multiply);
                    }
                }
            }
        });
    }

    /// Whether so few rows read quads that each tile spreads them out for itself.
    fn spreads_in_registers(&self) -> bool {
        self.a.rows <= self.shape.0
    }

    /// What of B is read where it lies.
    fn b_in_place(&self) -> InPlace {
        let Self { precision, a, b: Operand::Plain(b), .. } = *self else { return InPlace::Nothing };
        if precision != Precision::F32 || b.col != 1 || a.cols == 0 || a.rows > DIRECT_ROWS {
            InPlace::Nothing
        } else if a.rows <= FEW_ROWS {
            InPlace::Everything
        } else {
            InPlace::WholePanels
        }
    }

    /// # Safety
    /// The columns and rows must be B's, of some `depth`, and `out` have room for a panel.
    unsafe fn pack_b(&self, depth: Depth, col: usize, cols: usize, out: *mut f32) {
        let Self { isa, precision, b: Operand::Plain(b), shape: (_, tile_cols), .. } = *self else { return };
        let (columns, stride) = if b.col == 1 { (false, b.row) } else { (true, b.col) };
        let from = Runs { pointer: b.pointer(depth.from, col), stride, columns };
        match precision {
            Precision::F32 => dispatch(isa, PackB { from, depth: depth.len, cols, out }),
            Precision::Bf16 => with_buffers(Use::Part, |kept| {
                let scratch = kept.get(0, precision.words(depth.len) * tile_cols).as_mut_ptr().cast();
                dispatch_pairs(isa, pairs::PackB { from, depth: depth.len, cols, scratch, out });
            }),
        }
    }

    /// Computes a block of C, for which A is still to be packed if it is to be.
    ///
    /// # Safety
    /// The block must be within A, B and C, and its part of B be packed in `panels` unless it is read in place.
    unsafe fn multiply<P: Prologue>(&self, part: Part, panels: *const f32, kept: &mut Buffers, prologue: P) {
        let Self { isa, precision, a, b, c, from, to, shape: (tile_rows, _), .. } = *self;
        let Part { row, rows, col, cols, depth } = part;
        // SAFETY: the block is within C.
        let c = unsafe { Place { pointer: c.pointer.at(row * c.row + col), row: c.row, add: c.add || depth.from > 0 } };
        let block = |a, a_is_packed, b_rows| Block { a, a_is_packed, b: panels, b_rows, c, rows, cols, depth: precision.words(depth.len) };
        if precision == Precision::Bf16 {
            // SAFETY: handed on from the caller.
            let a = unsafe { self.pack_pairs(row, rows, depth, kept, prologue) };
            let is_of_quads = matches!(b, Operand::Packed(b) if b.is_quads()) && self.spreads_in_registers();
            let block = block(a, false, None);
            return if is_of_quads { dispatch_pairs(isa, BlockOfQuads(block)) } else { dispatch_pairs(isa, block) };
        }
        // Rows that lie as they are needed are read in place, unless so many panels of B read them that copying pays.
        let a_in_place = P::NOTHING && a.col == 1 && depth.len > 0 && to - from <= DIRECT_COLS;
        let left = if a_in_place {
            Left { pointer: a.pointer(row, depth.from), row: a.row, col: 1 }
        } else {
            let panels = kept.get(0, rows.next_multiple_of(tile_rows) * depth.len);
            dispatch(isa, PackA { a, row, rows, p: depth.from, depth: depth.len, out: panels.as_mut_ptr().cast() });
            // SAFETY: the panels have just been written.
            prologue.apply(isa, unsafe { std::slice::from_raw_parts_mut(panels.as_mut_ptr().cast(), panels.len()) });
            Left { pointer: panels.as_ptr().cast(), row: 1, col: tile_rows }
        };
        let b_rows = || match b {
            Operand::Plain(b) => Right { pointer: b.pointer(depth.from, col), row: b.row },
            Operand::Packed(_) => unreachable!("what is packed is read by panels"),
        };
        match self.b_in_place() {
            InPlace::Nothing => dispatch(isa, block(left, !a_in_place, None)),
            InPlace::WholePanels => dispatch(isa, block(left, !a_in_place, Some(b_rows()))),
            InPlace::Everything => {
                let sums = kept.get(1, rows * cols).as_mut_ptr().cast();
                dispatch(isa, FewRows { a: left, b: b_rows(), c, rows, cols, depth: depth.len, sums });
            }
        }
    }

    /// Some rows of A as words.
    ///
    /// # Safety
    /// They and their columns, of some `depth`, must be A's.
    unsafe fn pack_pairs<P: Prologue>(&self, row: usize, rows: usize, depth: Depth, kept: &mut Buffers, prologue: P) -> Left {
        let Self { isa, a, .. } = *self;
        let words = Precision::Bf16.words(depth.len);
        if words == 0 {
            return Left { pointer: std::ptr::NonNull::dangling().as_ptr(), row: 0, col: 0 };
        }
        let along_k = a.col == 1;
        let (run_len, stride) = if along_k { (depth.len, a.row) } else { (rows, a.col) };
        // Runs that are a multiple of 4,096 bytes apart would evict one another.
        let (n_runs, to_next) = if along_k { (rows, words.next_multiple_of(16) + 16) } else { (words, rows.next_multiple_of(16)) };
        let scratch = kept.get(1, 2 * run_len).as_mut_ptr().cast::<f32>();
        let out = kept.get(0, n_runs * to_next).as_mut_ptr().cast::<f32>();
        // SAFETY: the runs lie in A from its place (row, depth.from) on; the scratch holds two of them, and `out` all words.
        unsafe {
            let run = |i: usize, place: usize| {
                let from = std::slice::from_raw_parts(a.pointer(row, depth.from).add(i * stride), run_len);
                if P::NOTHING {
                    return from;
                }
                let room = scratch.add(place * run_len);
                room.copy_from_nonoverlapping(from.as_ptr(), run_len);
                let values = std::slice::from_raw_parts_mut(room, run_len);
                prologue.apply(isa, values);
                &*values
            };
            for i in 0..n_runs {
                let (low, high) = match along_k {
                    true => run(i, 0).split_at(words),
                    false => (run(i, 0), if words + i < depth.len { run(words + i, 1) } else { &[] }),
                };
                dispatch_pairs(isa, Pair { low, high, out: out.add(i * to_next) });
            }
        }
        if along_k { Left { pointer: out, row: to_next, col: 1 } } else { Left { pointer: out, row: 1, col: to_next } }
    }
}

/// How much of B is read where it lies, instead of being copied into panels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InPlace {
    Nothing,
    /// The last panel is copied if it is not whole.
    WholePanels,
    /// Row by row.
    Everything,
}

/// Copies `cols` columns of `depth` rows of B into one panel, the rest of which becomes zero.
struct PackB {
    from: Runs,
    depth: usize,
    cols: usize,
    out: *mut f32,
}

impl Kernel for PackB {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { from: Runs { pointer, stride, columns }, depth, cols, out } = self;
        let width = tile_cols::<S>();
        // SAFETY: the runs are all there, and the panel has room for depth rows of `width` values.
        unsafe {
            if cols < width {
                out.write_bytes(0, depth * width);
            }
            if columns {
                interleave(simd, pointer, stride, cols, depth, out, width);
            } else {
                copy_rows(simd, pointer, stride, depth, cols, out, width);
            }
        }
    }
}

/// Copies `rows` rows of `depth` columns of A into panels of as many rows as the register tile has; what is missing in
/// the last becomes zero.
struct PackA<'a> {
    a: Matrix<'a>,
    row: usize,
    rows: usize,
    p: usize,
    depth: usize,
    out: *mut f32,
}

impl Kernel for PackA<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { a, row, rows, p, depth, out } = self;
        if depth == 0 {
            return;
        }
        for r in (0..rows).step_by(S::TILE_ROWS) {
            let n = (rows - r).min(S::TILE_ROWS);
            // SAFETY: rows row..row+rows and columns p..p+depth are A's, and there is room for whole panels.
            unsafe {
                let out = out.add(r * depth);
                if n < S::TILE_ROWS {
                    out.write_bytes(0, depth * S::TILE_ROWS);
                }
                if a.col == 1 {
                    interleave(simd, a.pointer(row + r, p), a.row, n, depth, out, S::TILE_ROWS);
                } else {
                    copy_rows(simd, a.pointer(row + r, p), a.col, depth, n, out, S::TILE_ROWS);
                }
            }
        }
    }
}

/// `out[i * width + j] = from[i * stride + j]` for `n` rows of `len` values.
///
/// # Safety
/// All of them must be valid.
#[inline(always)]
pub(crate) unsafe fn copy_rows<S: Vector>(_simd: S, from: *const f32, stride: usize, n: usize, len: usize, out: *mut f32, width: usize) {
    for i in 0..n {
        // SAFETY: the caller vouches for every row.
        unsafe {
            let (from, out) = (from.add(i * stride), out.add(i * width));
            if len == width {
                // The width is known to the compiler, which makes this a few instructions instead of a call.
                for j in 0..width {
                    *out.add(j) = *from.add(j);
                }
            } else {
                out.copy_from_nonoverlapping(from, len);
            }
        }
    }
}

/// `out[i * width + j] = from[j * stride + i]`: `n` sequences of `len` values, one value of each in turn.
///
/// # Safety
/// All of them must be valid.
#[inline(always)]
pub(crate) unsafe fn interleave<S: Vector>(simd: S, from: *const f32, stride: usize, n: usize, len: usize, out: *mut f32, width: usize) {
    let whole = len / 8 * 8;
    for j in (0..n).step_by(8) {
        let sequences = (n - j).min(8);
        // SAFETY: the caller vouches for every sequence; no block reaches beyond their number or their length.
        unsafe {
            let at = |j: usize, i: usize| from.add(j * stride + i);
            for i in (0..whole).step_by(8) {
                let block = std::array::from_fn(|row| if row < sequences { at(j + row, i).cast::<[f32; 8]>().read() } else { [0.0; 8] });
                let turned = simd.transpose(block);
                for (row, values) in turned.iter().enumerate() {
                    let out = out.add((i + row) * width + j);
                    if sequences == 8 {
                        out.cast::<[f32; 8]>().write(*values);
                    } else if sequences == width % 8 {
                        // Known to the compiler, as above.
                        for (k, value) in values[..width % 8].iter().enumerate() {
                            *out.add(k) = *value;
                        }
                    } else {
                        out.copy_from_nonoverlapping(values.as_ptr(), sequences);
                    }
                }
            }
            for i in whole..len {
                for row in 0..sequences {
                    *out.add(i * width + j + row) = *at(j + row, i);
                }
            }
        }
    }
}

/// A block of C of few rows, from the rows of B. Every element is summed as in a tile.
struct FewRows {
    a: Left,
    b: Right,
    c: Place,
    rows: usize,
    cols: usize,
    depth: usize,
    /// Room for the sums.
    sums: *mut f32,
}

impl Kernel for FewRows {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { a, b, c, rows, cols, depth, sums } = self;
        // SAFETY: A and B have these rows and columns, `sums` has room for `rows` times `cols` values, all of which are
        // written first, and C's places are this thread's, initialised if they are added to.
        unsafe {
            sums.write_bytes(0, rows * cols);
            let b_row = |p: usize| std::slice::from_raw_parts(b.pointer.add(p * b.row), cols);
            for p in 0..depth {
                for r in 0..rows {
                    let value = simd.splat_f32s(*a.pointer.add(r * a.row + p * a.col));
                    let sums = std::slice::from_raw_parts_mut(sums.add(r * cols), cols);
                    math::zip!(simd, sums, b_row(p), |sum, b| simd.fma(value, b, sum));
                }
            }
            for r in 0..rows {
                let (sums, place) = (std::slice::from_raw_parts(sums.add(r * cols), cols), c.pointer.add(r * c.row));
                if c.add {
                    math::add(simd, std::slice::from_raw_parts_mut(place, cols), sums);
                } else {
                    place.copy_from_nonoverlapping(sums.as_ptr(), cols);
                }
            }
        }
    }
}

/// A block of C from panels of A and of B, or from their rows.
#[derive(Clone, Copy)]
struct Block {
    a: Left,
    /// Whether A is in panels of as many rows as the register tile has, one behind the other.
    a_is_packed: bool,
    b: *const f32,
    /// B's rows, if whole panels are not packed.
    b_rows: Option<Right>,
    c: Place,
    rows: usize,
    cols: usize,
    /// Words along k.
    depth: usize,
}

impl Block {
    #[inline(always)]
    fn compute<A: Arithmetic>(self, by: A) {
        let Self { a, a_is_packed, b, b_rows, c, rows, cols, depth } = self;
        let (tile_rows, width) = (A::Simd::TILE_ROWS, tile_cols::<A::Simd>());
        for j in (0..cols).step_by(width) {
            for r in (0..rows).step_by(tile_rows) {
                let (n_rows, n_cols) = ((rows - r).min(tile_rows), (cols - j).min(width));
                // SAFETY: the panels, or the rows, hold all rows and columns of this block, whose places in C are this thread's.
                unsafe {
                    let place = Place { pointer: c.pointer.add(r * c.row + j), ..c };
                    let panel = Right::panel::<A::Simd>(b.add(j * depth));
                    let packed = || Left { pointer: a.pointer.add(r * depth), row: 1, col: tile_rows };
                    let rows_in_place = || Left { pointer: a.pointer.add(r * a.row), ..a };
                    // A call for each, so that each is compiled with its own constant strides.
                    match b_rows {
                        None if a_is_packed => tile(by, n_rows, n_cols, depth, packed(), panel, place),
                        None if a.col == 1 => tile(by, n_rows, n_cols, depth, Left { col: 1, ..rows_in_place() }, panel, place),
                        None => tile(by, n_rows, n_cols, depth, Left { row: 1, ..rows_in_place() }, panel, place),
                        Some(Right { pointer, row }) => {
                            let left = if a_is_packed { packed() } else { rows_in_place() };
                            let right = if n_cols == width { Right { pointer: pointer.add(j), row } } else { panel };
                            tile(by, n_rows, n_cols, depth, left, right, place);
                        }
                    }
                }
            }
        }
    }
}

impl Kernel for Block {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        self.compute(F32(simd));
    }
}

impl PairsKernel for Block {
    type Output = ();
    #[inline(always)]
    fn run<P: Pairs>(self, pairs: P) {
        self.compute(pairs);
    }
}

/// The same from panels of quads, for rows of A that are one tile at most and lie one behind the other.
struct BlockOfQuads(Block);

impl PairsKernel for BlockOfQuads {
    type Output = ();
    #[inline(always)]
    fn run<P: Pairs>(self, pairs: P) {
        let Block { a, b, c, rows, cols, depth, .. } = self.0;
        let width = tile_cols::<P::Simd>();
        for j in (0..cols).step_by(width) {
            // SAFETY: the panels hold all rows and columns of this block, whose places in C are this thread's.
            unsafe {
                let place = Place { pointer: c.pointer.add(j), ..c };
                let panel = Right::panel::<P::Simd>(b.add(j * depth.div_ceil(2)));
                tile_of_quads(pairs, rows, (cols - j).min(width), depth, a, panel, place);
            }
        }
    }
}
