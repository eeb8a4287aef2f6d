//! Matrix products of f32 matrices in any orientation, multi-threaded, with work before and after fused in.
//!
//! Blocked for the caches as in GotoBLAS and BLIS: a block of B's rows is copied into panels that all threads share, each
//! thread copies blocks of A, and tiles of C are summed in registers (`tile.rs`). An element of C is summed in the same
//! order whatever the number of threads, and whichever other rows there are.
#![allow(unsafe_code, reason = "blocks of C that threads write at once are strided, and panels are not initialised twice")]

use rayon::prelude::*;

use super::buffer::{Shared, Use, filled, with_buffers};
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::tile::{Left, Place, Right, tile, tile_cols};

/// Columns of A that are taken at once: a panel of B and one of A fit the first-level cache.
const BLOCK_K: usize = 256;
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

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
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
pub fn matmul(isa: Isa, a: Matrix<'_>, b: Matrix<'_>, prologue: impl Prologue, epilogue: &impl Epilogue) -> Vec<f32> {
    let (m, n) = (a.rows, b.cols);
    // SAFETY: the product writes all m rows of n values, which lie one behind the other.
    unsafe {
        filled(m * n, |c| {
            product(isa, a, b, Target { pointer: Shared::new(c.as_mut_ptr().cast()), row: n, add: false }, prologue, epilogue)
        })
    }
}

/// `c += a · b`, for a `c` whose rows lie one behind the other.
///
/// # Panics
/// If the sizes do not fit.
pub fn matmul_add(isa: Isa, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32]) {
    assert_eq!(c.len(), a.rows * b.cols, "C has the rows of A and the columns of B");
    let c = Target { pointer: Shared::new(c.as_mut_ptr()), row: b.cols, add: true };
    // SAFETY: c is borrowed exclusively, initialised, and of the right size.
    unsafe { product(isa, a, b, c, Nothing, &Nothing) }
}

/// Where C goes, as a [`Place`] that several threads may have.
#[derive(Clone, Copy)]
struct Target {
    pointer: Shared<f32>,
    row: usize,
    add: bool,
}

/// Rows and columns of the register tile.
struct TileShape;

impl Kernel for TileShape {
    type Output = (usize, usize);
    #[inline(always)]
    fn run<S: Vector>(self, _simd: S) -> (usize, usize) {
        (S::TILE_ROWS, tile_cols::<S>())
    }
}

/// # Safety
/// Row i of C, `b.cols` values from `c.pointer + i * c.row`, must be valid for all rows of `a`, initialised if `c.add`, and
/// touched by nobody else meanwhile.
unsafe fn product(isa: Isa, a: Matrix<'_>, b: Matrix<'_>, c: Target, prologue: impl Prologue, epilogue: &impl Epilogue) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "A has as many columns as B has rows");
    if m == 0 || n == 0 {
        return;
    }
    let (tile_rows, tile_cols) = dispatch(isa, TileShape);
    let threads = rayon::current_num_threads();
    if threads == 1 || m * n * k < PARALLEL_FROM {
        let block = Columns { a, b, c, from: 0, to: n, parallel: false, shape: (tile_rows, tile_cols) };
        // SAFETY: handed on from the caller.
        return unsafe { block.compute(isa, prologue, epilogue) };
    }
    if m >= 2 * threads * tile_rows {
        let block = Columns { a, b, c, from: 0, to: n, parallel: true, shape: (tile_rows, tile_cols) };
        // SAFETY: handed on from the caller.
        return unsafe { block.compute(isa, prologue, epilogue) };
    }
    // Few rows: the threads share out the columns instead.
    let width = n.div_ceil(2 * threads).next_multiple_of(tile_cols);
    (0..n.div_ceil(width)).into_par_iter().for_each(|i| {
        let (from, to) = (i * width, n.min((i + 1) * width));
        let block = Columns { a, b, c, from, to, parallel: false, shape: (tile_rows, tile_cols) };
        // SAFETY: handed on from the caller; the ranges of columns do not overlap.
        unsafe { block.compute(isa, prologue, epilogue) };
    });
}

/// All rows and some columns of a product.
#[derive(Clone, Copy)]
struct Columns<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    c: Target,
    from: usize,
    to: usize,
    parallel: bool,
    shape: (usize, usize),
}

impl Columns<'_> {
    /// # Safety
    /// As [`product`], for the columns from `from` to `to`.
    unsafe fn compute<P: Prologue>(self, isa: Isa, prologue: P, epilogue: &impl Epilogue) {
        let Self { a, b, c, from, to, parallel, shape: (tile_rows, tile_cols) } = self;
        let (m, k) = (a.rows, a.cols);
        let threads = if parallel { rayon::current_num_threads() } else { 1 };
        // Blocks of equal size, so that none is a small rest.
        let k_blocks = k.div_ceil(BLOCK_K).max(1);
        let block_k = k.div_ceil(k_blocks).max(1);
        let m_blocks = m.div_ceil(BLOCK_M).next_multiple_of(threads);
        let block_m = m.div_ceil(m_blocks).next_multiple_of(tile_rows);
        // Rows that lie as they are needed are read in place, unless so many panels of B read them that copying pays.
        let direct = P::NOTHING && a.col == 1 && k > 0 && to - from <= DIRECT_COLS;
        let b_direct = m <= DIRECT_ROWS && b.col == 1 && k > 0;
        let row_by_row = m <= FEW_ROWS && b.col == 1 && k > 0;
        let panels_len = (to - from).min(BLOCK_N).next_multiple_of(tile_cols) * block_k;
        with_buffers(Use::Whole, |kept| {
            let b_panels = Shared::new(kept.get(0, panels_len).as_mut_ptr().cast::<f32>());
            for j in (from..to).step_by(BLOCK_N) {
                let n = (to - j).min(BLOCK_N);
                for (p, last) in (0..k_blocks).map(|i| (i * block_k, i + 1 == k_blocks)) {
                    let depth = (k - p).min(block_k);
                    let pack = |panel: usize| {
                        let (col, offset) = (j + panel * tile_cols, panel * tile_cols * depth);
                        let cols = (j + n - col).min(tile_cols);
                        if row_by_row || b_direct && cols == tile_cols {
                            return;
                        }
                        // SAFETY: the panels do not overlap, and there is room for all of them.
                        unsafe { dispatch(isa, PackB { b, p, depth, col, cols, out: b_panels.at(offset) }) };
                    };
                    let multiply = |i: usize| {
                        let row = i * block_m;
                        if row >= m {
                            return;
                        }
                        let rows = (m - row).min(block_m);
                        // SAFETY: C's rows are the caller's, and no other block has these; the panels of B are packed.
                        unsafe {
                            let c_block = Place { pointer: c.pointer.at(row * c.row + j), row: c.row, add: c.add || p > 0 };
                            let b_rows = b_direct.then(|| Right { pointer: b.pointer(p, j), row: b.row });
                            let block =
                                Block { a: std::ptr::null(), a_row: None, b: b_panels.at(0), b_rows, c: c_block, rows, cols: n, depth };
                            let in_place = Left { pointer: if direct { a.pointer(row, p) } else { std::ptr::null() }, row: a.row, col: 1 };
                            with_buffers(Use::Part, |kept| {
                                let packed = if direct {
                                    None
                                } else {
                                    let panels = kept.get(0, rows.next_multiple_of(tile_rows) * depth);
                                    dispatch(isa, PackA { a, row, rows, p, depth, out: panels.as_mut_ptr().cast() });
                                    prologue.apply(isa, std::slice::from_raw_parts_mut(panels.as_mut_ptr().cast(), panels.len()));
                                    Some(panels.as_ptr().cast::<f32>())
                                };
                                if row_by_row {
                                    let left = packed.map_or(in_place, |pointer| Left { pointer, row: 1, col: tile_rows });
                                    let sums = kept.get(1, rows * n).as_mut_ptr().cast();
                                    dispatch(
                                        isa,
                                        FewRows {
                                            a: left,
                                            b: Right { pointer: b.pointer(p, j), row: b.row },
                                            c: c_block,
                                            rows,
                                            cols: n,
                                            depth,
                                            sums,
                                        },
                                    );
                                } else {
                                    let block = Block { a: packed.unwrap_or(in_place.pointer), a_row: direct.then_some(a.row), ..block };
                                    dispatch(isa, block);
                                }
                            });
                            if last {
                                for r in 0..rows {
                                    let values = std::slice::from_raw_parts_mut(c.pointer.at((row + r) * c.row + j), n);
                                    epilogue.apply(isa, row + r, j, values);
                                }
                            }
                        }
                    };
                    let n_panels = n.div_ceil(tile_cols);
                    if parallel {
                        (0..n_panels).into_par_iter().with_min_len(n_panels.div_ceil(4 * threads)).for_each(pack);
                        (0..m_blocks).into_par_iter().for_each(multiply);
                    } else {
                        (0..n_panels).for_each(pack);
                        (0..m_blocks).for_each(multiply);
                    }
                }
            }
        });
    }
}

/// Copies `cols` columns of `depth` rows of B into one panel, the rest of which becomes zero.
struct PackB<'a> {
    b: Matrix<'a>,
    p: usize,
    depth: usize,
    col: usize,
    cols: usize,
    out: *mut f32,
}

impl Kernel for PackB<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { b, p, depth, col, cols, out } = self;
        if depth == 0 {
            return;
        }
        let width = tile_cols::<S>();
        // SAFETY: rows p..p+depth and columns col..col+cols are B's, and the panel has room for depth rows of `width` values.
        unsafe {
            if cols < width {
                out.write_bytes(0, depth * width);
            }
            if b.col == 1 {
                copy_rows(simd, b.pointer(p, col), b.row, depth, cols, out, width);
            } else {
                interleave(simd, b.pointer(p, col), b.col, cols, depth, out, width);
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
    a: *const f32,
    /// Values from a row of A to the next, if it is not packed.
    a_row: Option<usize>,
    b: *const f32,
    /// B's rows, if whole panels are not packed.
    b_rows: Option<Right>,
    c: Place,
    rows: usize,
    cols: usize,
    depth: usize,
}

impl Kernel for Block {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { a, a_row, b, b_rows, c, rows, cols, depth } = self;
        let width = tile_cols::<S>();
        for j in (0..cols).step_by(width) {
            for r in (0..rows).step_by(S::TILE_ROWS) {
                let (n_rows, n_cols) = ((rows - r).min(S::TILE_ROWS), (cols - j).min(width));
                // SAFETY: the panels, or the rows, hold all rows and columns of this block, whose places in C are this thread's.
                unsafe {
                    let place = Place { pointer: c.pointer.add(r * c.row + j), ..c };
                    let panel = Right::panel::<S>(b.add(j * depth));
                    let packed = Left { pointer: a.wrapping_add(r * depth), row: 1, col: S::TILE_ROWS };
                    // A call for each, so that each is compiled with its own constant strides.
                    match (a_row, b_rows) {
                        (Some(row), None) => tile(simd, n_rows, n_cols, depth, Left { pointer: a.add(r * row), row, col: 1 }, panel, place),
                        (None, None) => tile(simd, n_rows, n_cols, depth, packed, panel, place),
                        (a_row, Some(Right { pointer, row })) => {
                            let left = a_row.map_or(packed, |row| Left { pointer: a.add(r * row), row, col: 1 });
                            let right = if n_cols == width { Right { pointer: pointer.add(j), row } } else { panel };
                            tile(simd, n_rows, n_cols, depth, left, right, place);
                        }
                    }
                }
            }
        }
    }
}
