//! Causal attention over whole sequences, forward and backward, a head at a time in blocks of queries.
//!
//! The scores of a block fit the cache and are never stored: the forward pass keeps each row's largest score and sum, and
//! the backward pass computes the probabilities again from them (Dao et al., arXiv:2205.14135). Tiles above the diagonal
//! are skipped.
#![allow(unsafe_code, reason = "heads are interleaved in memory, and threads write theirs at once")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::arithmetic::F32;
use super::buffer::{Buffers, Shared, Use, filled, with_buffers};
use super::dropout::Dropout;
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::matmul::{copy_rows, interleave};
use super::tile::{Left, Place, Right, tile, tile_cols};

/// Queries in a block: a multiple of every tile's rows, few enough for their scores to fit the second-level cache.
const BLOCK: usize = 48;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences, B.
    pub n_seqs: usize,
    /// Tokens of each, T.
    pub len: usize,
    /// Heads, H.
    pub n_heads: usize,
    /// Width of a head, E.
    pub head_dim: usize,
}

impl AttentionShape {
    fn d_model(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Values from a row of scores to the next. Rows that are a multiple of 4,096 bytes apart would evict one another.
    fn score_row(&self) -> usize {
        self.len.next_multiple_of(16) + 16
    }
}

/// What else decides which keys a query sees, beside that they are not after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visible<'a> {
    /// `[B, T]`: the first key that the query sees; behind the query itself if it sees none, and its output is then zero.
    pub first: Option<&'a [u32]>,
    /// Probabilities that are dropped.
    pub dropout: Option<&'a Dropout>,
}

/// softmax(q·kᵀ / sqrt(E))·v, causal: `qkv` `[B, T, 3, H, E]` to `[B, T, H, E]`, and of each row of scores the largest and
/// the reciprocal of the sum of exponentials, `[B, H, T, 2]`: not their logarithm, in which large scores would drown the sum.
///
/// # Panics
/// If the sizes do not fit.
pub fn forward(isa: Isa, qkv: &[f32], shape: AttentionShape, visible: Visible<'_>) -> (Vec<f32>, Vec<f32>) {
    let AttentionShape { n_seqs, len, n_heads, head_dim } = shape;
    let c = shape.d_model();
    check(qkv, shape, visible);
    let n_stats = n_seqs * n_heads * len * 2;
    let mut stats = Vec::new();
    // SAFETY: every head of every sequence writes its columns of all its rows.
    let out = unsafe {
        filled(n_seqs * len * c, |out: &mut [MaybeUninit<f32>]| {
            let out = Shared::new(out.as_mut_ptr().cast::<f32>());
            stats = filled(n_stats, |stats: &mut [MaybeUninit<f32>]| {
                let stats = Shared::new(stats.as_mut_ptr().cast::<f32>());
                let head = |buffers: &mut Buffers, i: usize| {
                    let at = (i / n_heads) * len * 3 * c + (i % n_heads) * head_dim;
                    let head = Forward {
                        shape,
                        visible,
                        seq: i / n_heads,
                        head: i % n_heads,
                        qkv: qkv.as_ptr().add(at),
                        out: out.at((i / n_heads) * len * c + (i % n_heads) * head_dim),
                        stats: stats.at(i * len * 2),
                        buffers,
                    };
                    dispatch(isa, head);
                };
                (0..n_seqs * n_heads).into_par_iter().for_each(|i| with_buffers(Use::Part, |buffers| head(buffers, i)));
            });
        })
    };
    (out, stats)
}

/// The gradient of `qkv`, `[B, T, 3, H, E]`, from that of the output, `[B, T, H, E]`.
///
/// # Panics
/// If the sizes do not fit.
pub fn backward(isa: Isa, qkv: &[f32], out: &[f32], stats: &[f32], d_out: &[f32], shape: AttentionShape, visible: Visible<'_>) -> Vec<f32> {
    let AttentionShape { n_seqs, len, n_heads, head_dim } = shape;
    let c = shape.d_model();
    check(qkv, shape, visible);
    assert!(
        out.len() == n_seqs * len * c && d_out.len() == out.len() && stats.len() == n_seqs * n_heads * len * 2,
        "as the forward pass gave them"
    );
    // SAFETY: every head of every sequence writes its columns of queries, keys and values in all its rows.
    unsafe {
        filled(qkv.len(), |d_qkv: &mut [MaybeUninit<f32>]| {
            let d_qkv = Shared::new(d_qkv.as_mut_ptr().cast::<f32>());
            let head = |buffers: &mut Buffers, i: usize| {
                let (seq, head) = (i / n_heads, i % n_heads);
                let (wide, narrow) = (seq * len * 3 * c + head * head_dim, seq * len * c + head * head_dim);
                let head = Backward {
                    shape,
                    visible,
                    seq,
                    head,
                    qkv: qkv.as_ptr().add(wide),
                    out: out.as_ptr().add(narrow),
                    d_out: d_out.as_ptr().add(narrow),
                    stats: &stats[i * len * 2..][..len * 2],
                    d_qkv: d_qkv.at(wide),
                    buffers,
                };
                dispatch(isa, head);
            };
            (0..n_seqs * n_heads).into_par_iter().for_each(|i| with_buffers(Use::Part, |buffers| head(buffers, i)));
        })
    }
}

fn check(qkv: &[f32], shape: AttentionShape, visible: Visible<'_>) {
    let n = shape.n_seqs * shape.len;
    assert_eq!(qkv.len(), n * 3 * shape.d_model(), "qkv is of {shape:?}");
    assert!(visible.first.is_none_or(|first| first.len() == n), "one first key for each query");
    assert!(visible.dropout.is_none_or(|dropout| dropout.streams.len() == shape.n_seqs), "one stream for each sequence");
}

/// Panels of a matrix of `depth` rows and `cols` columns, as the right side of a product; `transposed` if it is given by columns.
///
/// # Safety
/// The values must be valid, and `out` have room for whole panels.
#[inline(always)]
unsafe fn pack<S: Vector>(simd: S, from: *const f32, stride: usize, transposed: bool, depth: usize, cols: usize, out: *mut f32) {
    let width = tile_cols::<S>();
    for j in (0..cols).step_by(width) {
        let n = (cols - j).min(width);
        // SAFETY: the caller vouches for the values and for the room.
        unsafe {
            let out = out.add(j * depth);
            if n < width {
                out.write_bytes(0, depth * width);
            }
            if transposed {
                interleave(simd, from.add(j * stride), stride, n, depth, out, width);
            } else {
                copy_rows(simd, from.add(j), stride, depth, n, out, width);
            }
        }
    }
}

/// Values of `n` columns, with those that fill up the last panel.
#[inline(always)]
fn padded<S: Vector>(n: usize) -> usize {
    n.next_multiple_of(tile_cols::<S>())
}

/// A block of queries of one sequence.
#[derive(Clone, Copy)]
struct Queries<'a> {
    /// First query.
    from: usize,
    /// Queries.
    n: usize,
    /// First key of any, rounded down to a panel.
    first_key: usize,
    /// First key of each, if given.
    first: Option<&'a [u32]>,
}

impl<'a> Queries<'a> {
    #[inline(always)]
    fn new(from: usize, shape: AttentionShape, visible: Visible<'a>, seq: usize) -> Self {
        let n = BLOCK.min(shape.len - from);
        let first = visible.first.map(|first| &first[seq * shape.len + from..][..n]);
        let lowest = first.map_or(0, |first| first.iter().map(|key| *key as usize).min().unwrap_or(0));
        // A multiple of every panel's width and of every tile's height; never behind the block.
        let first_key = lowest.min(from) / 96 * 96;
        Self { from, n, first_key, first }
    }

    /// The keys that query r of the block sees.
    #[inline(always)]
    fn keys(&self, r: usize) -> std::ops::Range<usize> {
        let query = self.from + r;
        let first = self.first.map_or(0, |first| first[r] as usize);
        first.min(query + 1)..query + 1
    }

    /// One behind the last key of the tile that begins at query r.
    #[inline(always)]
    fn end<S: Vector>(&self, r: usize) -> usize {
        self.from + self.n.min(r / S::TILE_ROWS * S::TILE_ROWS + S::TILE_ROWS)
    }

    /// `out[r, key] = rows[r] · keys[key]` for the tiles that any query sees.
    ///
    /// # Safety
    /// `rows` must hold the block's rows of E values, `panels` the packed keys, and `out` have room for the scores.
    #[inline(always)]
    unsafe fn scores<S: Vector>(&self, simd: S, rows: Left, e: usize, panels: *const f32, out: Place) {
        let width = tile_cols::<S>();
        for key in (self.first_key..self.from + self.n).step_by(width) {
            // Queries before the panel's first key do not see it.
            let start = key.saturating_sub(self.from) / S::TILE_ROWS * S::TILE_ROWS;
            for r in (start..self.n).step_by(S::TILE_ROWS) {
                // SAFETY: handed on from the caller.
                unsafe {
                    let a = Left { pointer: rows.pointer.add(r * rows.row), row: rows.row, col: 1 };
                    let c = Place { pointer: out.pointer.add(r * out.row + key), ..out };
                    tile(
                        F32(simd),
                        (self.n - r).min(S::TILE_ROWS),
                        (self.from + self.n - key).min(width),
                        e,
                        a,
                        Right::panel::<S>(panels.add(key * e)),
                        c,
                    );
                }
            }
        }
    }

    /// `out[r] = sum over keys of weights[r, key] * values[key]`, E values a row.
    ///
    /// # Safety
    /// `weights` must be as [`Queries::scores`] wrote them, with zeros for the keys of a tile that a query does not see,
    /// `panels` the packed values of `len` keys, and `out` have room.
    #[inline(always)]
    unsafe fn weighted<S: Vector>(&self, simd: S, weights: Left, len: usize, e: usize, panels: *const f32, out: Place) {
        let width = tile_cols::<S>();
        for j in (0..e).step_by(width) {
            for r in (0..self.n).step_by(S::TILE_ROWS) {
                // SAFETY: handed on from the caller.
                unsafe {
                    let a = Left { pointer: weights.pointer.add(r * weights.row + self.first_key), row: weights.row, col: 1 };
                    let c = Place { pointer: out.pointer.add(r * out.row + j), ..out };
                    let panel = Right::panel::<S>(panels.add(j * len + self.first_key * width));
                    tile(F32(simd), (self.n - r).min(S::TILE_ROWS), (e - j).min(width), self.end::<S>(r) - self.first_key, a, panel, c);
                }
            }
        }
    }

    /// `out[key] = sum over queries of weights[r, key] * rows[r]`, E values a key, added to what is there if `out.add`.
    ///
    /// # Safety
    /// As [`Queries::weighted`], with the block's rows packed in `panels`.
    #[inline(always)]
    unsafe fn gathered<S: Vector>(&self, simd: S, weights: Left, e: usize, panels: *const f32, out: Place) {
        let width = tile_cols::<S>();
        let end = self.from + self.n;
        for j in (0..e).step_by(width) {
            for key in (self.first_key..end).step_by(S::TILE_ROWS) {
                let start = key.saturating_sub(self.from);
                // SAFETY: handed on from the caller.
                unsafe {
                    let a = Left { pointer: weights.pointer.add(start * weights.row + key), row: 1, col: weights.row };
                    let c = Place { pointer: out.pointer.add(key * out.row + j), ..out };
                    let panel = Right::panel::<S>(panels.add(j * self.n + start * width));
                    tile(F32(simd), (end - key).min(S::TILE_ROWS), (e - j).min(width), self.n - start, a, panel, c);
                }
            }
        }
    }
}

/// Rows that are read.
fn rows(pointer: *const f32, row: usize) -> Left {
    Left { pointer, row, col: 1 }
}

/// Rows that are written.
fn place(pointer: *mut f32, row: usize) -> Place {
    Place { pointer, row, add: false }
}

/// The forward pass of one head.
struct Forward<'a> {
    shape: AttentionShape,
    visible: Visible<'a>,
    seq: usize,
    head: usize,
    qkv: *const f32,
    out: *mut f32,
    stats: *mut f32,
    buffers: &'a mut Buffers,
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { shape, visible, seq, head, qkv, out, stats, buffers } = self;
        let AttentionShape { len, head_dim: e, .. } = shape;
        let (c, row) = (shape.d_model(), shape.score_row());
        let scale = (e as f32).sqrt().recip();
        let keys = buffers.get(0, padded::<S>(len) * e).as_mut_ptr().cast::<f32>();
        let values = buffers.get(1, len * padded::<S>(e)).as_mut_ptr().cast::<f32>();
        let scores = buffers.get(2, BLOCK * row).as_mut_ptr().cast::<f32>();
        let factors = buffers.get(3, len).as_mut_ptr().cast::<f32>();
        // SAFETY: the pointers are to this head's columns of rows of 3C (qkv) and C (out) values, which no other thread
        // writes; the buffers have room for whole panels, for a block of rows of scores, and for a row of factors; every
        // score that is read was written by the same block before.
        unsafe {
            pack(simd, qkv.add(c), 3 * c, true, e, len, keys);
            pack(simd, qkv.add(2 * c), 3 * c, false, len, e, values);
            for from in (0..len).step_by(BLOCK) {
                let block = Queries::new(from, shape, visible, seq);
                block.scores(simd, rows(qkv.add(from * 3 * c), 3 * c), e, keys, place(scores, row));
                let mut inverses = [0.0; BLOCK];
                for (r, inverse) in inverses.iter_mut().take(block.n).enumerate() {
                    let seen = block.keys(r);
                    let part = |from: usize, to: usize| std::slice::from_raw_parts_mut(scores.add(r * row + from), to - from);
                    part(block.first_key, seen.start.max(block.first_key)).fill(0.0);
                    part(seen.end, block.end::<S>(r)).fill(0.0);
                    let p = part(seen.start, seen.end);
                    if p.is_empty() {
                        stats.add((from + r) * 2).write_bytes(0, 2);
                        continue;
                    }
                    let largest = math::max(simd, p);
                    *inverse = exp_and_sum(simd, p, scale, largest).recip();
                    *stats.add((from + r) * 2) = largest;
                    *stats.add((from + r) * 2 + 1) = *inverse;
                    if let Some(dropout) = visible.dropout {
                        let factors = std::slice::from_raw_parts_mut(factors, seen.end);
                        dropout.factors(simd, seq, (head * len + from + r) as u64, factors);
                        math::mul(simd, p, &factors[seen.start..]);
                    }
                }
                let out = out.add(from * c);
                block.weighted(simd, rows(scores, row), len, e, values, place(out, c));
                for (r, inverse) in inverses[..block.n].iter().enumerate() {
                    math::scale(simd, std::slice::from_raw_parts_mut(out.add(r * c), e), *inverse);
                }
            }
        }
    }
}

/// Replaces x by e^((x - largest)·scale) and gives the sum.
#[inline(always)]
fn exp_and_sum<S: Vector>(simd: S, x: &mut [f32], scale: f32, largest: f32) -> f32 {
    let (scale, largest) = (simd.splat_f32s(scale), simd.splat_f32s(largest));
    math::map!(simd, x, |v| math::exp(simd, simd.mul_f32s(simd.sub_f32s(v, largest), scale)));
    math::sum!(simd, x, |v| v)
}

/// The backward pass of one head.
struct Backward<'a> {
    shape: AttentionShape,
    visible: Visible<'a>,
    seq: usize,
    head: usize,
    qkv: *const f32,
    out: *const f32,
    d_out: *const f32,
    stats: &'a [f32],
    d_qkv: *mut f32,
    buffers: &'a mut Buffers,
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { shape, visible, seq, head, qkv, out, d_out, stats, d_qkv, buffers } = self;
        let AttentionShape { len, head_dim: e, .. } = shape;
        let (c, row) = (shape.d_model(), shape.score_row());
        let scale = (e as f32).sqrt().recip();
        let keys = buffers.get(0, padded::<S>(len) * e).as_mut_ptr().cast::<f32>();
        let values = buffers.get(1, padded::<S>(len) * e).as_mut_ptr().cast::<f32>();
        let key_rows = buffers.get(2, len * padded::<S>(e)).as_mut_ptr().cast::<f32>();
        let p = buffers.get(3, BLOCK * row).as_mut_ptr().cast::<f32>();
        let d_p = buffers.get(4, BLOCK * row).as_mut_ptr().cast::<f32>();
        let block_queries = buffers.get(5, BLOCK * padded::<S>(e)).as_mut_ptr().cast::<f32>();
        let block_d_out = buffers.get(6, BLOCK * padded::<S>(e)).as_mut_ptr().cast::<f32>();
        let factors = buffers.get(7, len).as_mut_ptr().cast::<f32>();
        // SAFETY: as in the forward pass; d_qkv is this head's columns of rows of 3C values.
        unsafe {
            let (d_queries, d_keys, d_values) = (d_qkv, d_qkv.add(c), d_qkv.add(2 * c));
            pack(simd, qkv.add(c), 3 * c, true, e, len, keys);
            pack(simd, qkv.add(2 * c), 3 * c, true, e, len, values);
            pack(simd, qkv.add(c), 3 * c, false, len, e, key_rows);
            // The last block sees every key, unless first keys are given: then what it writes is not everything.
            if visible.first.is_some() {
                for t in 0..len {
                    d_keys.add(t * 3 * c).write_bytes(0, e);
                    d_values.add(t * 3 * c).write_bytes(0, e);
                }
            }
            for from in (0..len).step_by(BLOCK).rev() {
                let add = visible.first.is_some() || from + BLOCK < len;
                let block = Queries::new(from, shape, visible, seq);
                let block_qkv = qkv.add(from * 3 * c);
                block.scores(simd, rows(block_qkv, 3 * c), e, keys, place(p, row));
                block.scores(simd, rows(d_out.add(from * c), c), e, values, place(d_p, row));
                for r in 0..block.n {
                    let seen = block.keys(r);
                    let part = |of: *mut f32, from: usize, to: usize| std::slice::from_raw_parts_mut(of.add(r * row + from), to - from);
                    for of in [p, d_p] {
                        part(of, block.first_key, seen.start.max(block.first_key)).fill(0.0);
                        part(of, seen.end, block.end::<S>(r)).fill(0.0);
                    }
                    if seen.is_empty() {
                        continue;
                    }
                    let at = |of: *const f32| std::slice::from_raw_parts(of.add((from + r) * c), e);
                    let delta = math::dot(simd, at(out), at(d_out));
                    let (p, d_p) = (part(p, seen.start, seen.end), part(d_p, seen.start, seen.end));
                    // Dropping is linear: the factors go onto the gradient before, and onto the probabilities, for the values, after.
                    let factors = visible.dropout.map(|dropout| {
                        let factors = std::slice::from_raw_parts_mut(factors, seen.end);
                        dropout.factors(simd, seq, (head * len + from + r) as u64, factors);
                        &factors[seen.start..]
                    });
                    if let Some(factors) = factors {
                        math::mul(simd, d_p, factors);
                    }
                    d_scores(simd, p, d_p, scale, stats[(from + r) * 2], stats[(from + r) * 2 + 1], delta);
                    if let Some(factors) = factors {
                        math::mul(simd, p, factors);
                    }
                }
                pack(simd, d_out.add(from * c), c, false, block.n, e, block_d_out);
                pack(simd, block_qkv, 3 * c, false, block.n, e, block_queries);
                block.gathered(simd, rows(p, row), e, block_d_out, Place { add, ..place(d_values, 3 * c) });
                block.gathered(simd, rows(d_p, row), e, block_queries, Place { add, ..place(d_keys, 3 * c) });
                block.weighted(simd, rows(d_p, row), len, e, key_rows, place(d_queries.add(from * 3 * c), 3 * c));
            }
        }
    }
}

/// A row of the softmax's backward pass. From scores s and the probabilities' gradient g: p = e^((s - largest)·scale)·inverse
/// takes the place of s, and p·(g - delta)·scale that of g.
#[inline(always)]
fn d_scores<S: Vector>(simd: S, s: &mut [f32], g: &mut [f32], scale: f32, largest: f32, inverse: f32, delta: f32) {
    let [scale, largest, inverse, delta] = [scale, largest, inverse, delta].map(|value| simd.splat_f32s(value));
    math::zip_both!(simd, s, g, |s, g| {
        let p = simd.mul_f32s(math::exp(simd, simd.mul_f32s(simd.sub_f32s(s, largest), scale)), inverse);
        (p, simd.mul_f32s(simd.mul_f32s(p, simd.sub_f32s(g, delta)), scale))
    });
}
