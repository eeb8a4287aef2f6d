//! Rows of a table by id, and the gradient of the table.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::buffer::{filled, initialised};
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::rows::rows_per_task;

/// The rows `[N, C]` of a table `[V, C]` at `ids` `[N]`.
///
/// # Panics
/// If an id is not below V.
#[allow(unsafe_code, reason = "the output is not written twice")]
pub fn forward(table: &[f32], ids: &[u32], c: usize) -> Vec<f32> {
    let vocab_size = table.len().checked_div(c).unwrap_or(0);
    assert!(c == 0 || ids.iter().all(|id| (*id as usize) < vocab_size), "ids are below {vocab_size}");
    let rows = rows_per_task(ids.len(), c);
    // SAFETY: every task writes all of its rows.
    unsafe {
        filled(ids.len() * c, |out: &mut [MaybeUninit<f32>]| {
            out.par_chunks_mut((rows * c).max(1)).zip(ids.par_chunks(rows)).for_each(|(out, ids)| {
                for (out, id) in out.chunks_exact_mut(c).zip(ids) {
                    initialised(out, &table[*id as usize * c..][..c]);
                }
            });
        })
    }
}

/// The gradient `[V, C]` of a table from that of the rows `[N, C]` that were taken from it. The rows of one id are added in
/// their order, whatever the number of threads.
///
/// # Panics
/// If the sizes do not fit or an id is not below V.
pub fn backward(isa: Isa, ids: &[u32], d_rows: &[f32], vocab_size: usize, c: usize) -> Vec<f32> {
    assert_eq!(d_rows.len(), ids.len() * c, "one row of {c} values for each id");
    assert!(ids.iter().all(|id| (*id as usize) < vocab_size), "ids are below {vocab_size}");
    let mut out = vec![0.0; vocab_size * c];
    if c == 0 || vocab_size == 0 {
        return out;
    }
    // The places of each id, in order: a counting sort.
    let mut ends = vec![0u32; vocab_size + 1];
    ids.iter().for_each(|id| ends[*id as usize + 1] += 1);
    for i in 0..vocab_size {
        ends[i + 1] += ends[i];
    }
    let starts = ends.clone();
    let mut places = vec![0u32; ids.len()];
    for (place, id) in ids.iter().enumerate() {
        let next = &mut ends[*id as usize];
        places[*next as usize] = place as u32;
        *next += 1;
    }
    let rows = rows_per_task(vocab_size, c);
    out.par_chunks_mut(rows * c).enumerate().for_each(|(i, out)| {
        let places = |id: usize| &places[starts[id] as usize..starts[id + 1] as usize];
        dispatch(isa, Add { out, c, first: i * rows, places: &places, d_rows });
    });
    out
}

struct Add<'a, P> {
    out: &'a mut [f32],
    c: usize,
    first: usize,
    places: &'a P,
    d_rows: &'a [f32],
}

impl<'p, P: Fn(usize) -> &'p [u32]> Kernel for Add<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) {
        let Self { out, c, first, places, d_rows } = self;
        for (i, out) in out.chunks_exact_mut(c).enumerate() {
            for place in places(first + i) {
                math::add(simd, out, &d_rows[*place as usize * c..][..c]);
            }
        }
    }
}
