//! Cross-entropy with the head before it, in chunks of rows; what was a row of logits becomes its gradient, in place.

use std::ops::Range;

use rayon::prelude::*;

use super::arithmetic::Precision;
use super::isa::{Isa, Kernel, Vector, dispatch};
use super::math;
use super::matmul::{Matrix, Nothing, matmul, matmul_add};
use super::rows::rows_per_task;

/// What a training loss has beside the cross-entropy with its targets. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossTerms {
    /// Share of the probability that is spread evenly over the vocabulary (Szegedy et al., arXiv:1512.00567).
    pub label_smoothing: f64,
    /// What (ln Z)² counts, Z being the sum that softmax divides by: it keeps logits from drifting (PaLM, arXiv:2204.02311, 5).
    pub z_loss: f64,
}

/// What is predicted.
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    /// `[N]`: the id of each row's target.
    pub ids: &'a [u32],
    /// `[N]`: what each row counts; 0 ignores it.
    pub weights: &'a [f32],
    /// What is added.
    pub terms: LossTerms,
}

impl Targets<'_> {
    /// Those of some rows.
    pub(crate) fn rows(&self, range: Range<usize>) -> Self {
        Self { ids: &self.ids[range.clone()], weights: &self.weights[range], ..*self }
    }
}

/// Logits that exist at once at most: 256 MiB.
pub const LOGITS_AT_ONCE: usize = 1 << 26;

/// Which gradients of a cross-entropy are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None: the loss alone.
    Loss,
    /// That of x: the table is frozen.
    X,
    /// Those of x and of the table.
    XAndTable,
}

/// Gradients of x `[N, C]` and, where it is asked for, of the table `[V, C]`.
pub type Gradients = (Vec<f32>, Option<Vec<f32>>);

/// The sum over rows of weight × loss of `softmax(x·tableᵀ)` in nats, and the gradients that are asked for: `x`
/// `[N, C]`, `table` `[V, C]`.
///
/// # Panics
/// If the sizes do not fit, or the target of a row that counts is not below V.
pub fn linear(
    isa: Isa,
    precision: Precision,
    x: Matrix<'_>,
    table: Matrix<'_>,
    targets: Targets<'_>,
    wanted: Wanted,
) -> (f64, Option<Gradients>) {
    // Rows that do not count take no part in any product: of prompts and answers that is most of them.
    let counted: Vec<usize> = (0..targets.ids.len()).filter(|row| targets.weights[*row] != 0.0).collect();
    if counted.len() < targets.ids.len() {
        let gathered = gather(x, &counted);
        let of = |values: &[u32]| counted.iter().map(|row| values[*row]).collect::<Vec<_>>();
        let (ids, weights) = (of(targets.ids), counted.iter().map(|row| targets.weights[*row]).collect::<Vec<_>>());
        let targets = Targets { ids: &ids, weights: &weights, ..targets };
        let (nats, gradients) = linear(isa, precision, Matrix::new(&gathered, counted.len(), x.cols()), table, targets, wanted);
        let scattered = gradients.map(|(d_x, d_table)| (scatter(&d_x, &counted, x.rows(), x.cols()), d_table));
        return (nats, scattered);
    }
    let gradients = wanted != Wanted::Loss;
    let mut nats = 0.0;
    let mut d_x = Vec::with_capacity(if gradients { x.rows() * x.cols() } else { 0 });
    let mut d_table: Option<Vec<f32>> = None;
    for rows in chunks(x.rows(), table.rows()) {
        let x = x.slice_rows(rows.clone());
        let mut logits = matmul(isa, precision, x, table.transposed(), Nothing, &Nothing);
        nats += in_place(isa, &mut logits, table.rows(), targets.rows(rows), gradients);
        if gradients {
            let logits = Matrix::new(&logits, x.rows(), table.rows());
            let part = matmul(isa, precision, logits, table, Nothing, &Nothing);
            if d_x.is_empty() {
                d_x = part
            } else {
                d_x.extend_from_slice(&part)
            }
            match &mut d_table {
                _ if wanted == Wanted::X => {}
                Some(sum) => matmul_add(isa, precision, logits.transposed(), x, sum),
                None => d_table = Some(matmul(isa, precision, logits.transposed(), x, Nothing, &Nothing)),
            }
        }
    }
    if wanted == Wanted::XAndTable && d_table.is_none() {
        d_table = Some(vec![0.0; table.rows() * table.cols()]);
    }
    (nats, gradients.then_some((d_x, d_table)))
}

/// Some rows of a matrix, one behind the other.
fn gather(x: Matrix<'_>, rows: &[usize]) -> Vec<f32> {
    let mut out = Vec::with_capacity(rows.len() * x.cols());
    rows.iter().for_each(|row| out.extend_from_slice(x.row(*row)));
    out
}

/// Rows put where they belong among `n`, and zeros elsewhere.
fn scatter(x: &[f32], rows: &[usize], n: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * cols];
    for (x, row) in x.chunks_exact(cols.max(1)).zip(rows) {
        out[row * cols..][..cols].copy_from_slice(x);
    }
    out
}

/// The cross-entropy of each row in nats, and the rank of its target: how many ids are likelier, or as likely and come first.
///
/// # Panics
/// If the sizes do not fit, or a target is not below V.
pub fn linear_rows(isa: Isa, x: Matrix<'_>, table: Matrix<'_>, targets: &[u32]) -> (Vec<f32>, Vec<u32>) {
    let vocab_size = table.rows();
    assert!(targets.len() == x.rows() && targets.iter().all(|id| (*id as usize) < vocab_size), "{} targets below {vocab_size}", x.rows());
    let mut out = Vec::with_capacity(targets.len());
    for rows in chunks(x.rows(), vocab_size) {
        let mut logits = matmul(isa, Precision::F32, x.slice_rows(rows.clone()), table.transposed(), Nothing, &Nothing);
        let tasks = logits.par_chunks_mut(vocab_size).zip(&targets[rows]);
        out.par_extend(tasks.map(|(logits, id)| dispatch(isa, Score { logits, id: *id as usize })));
    }
    out.into_iter().unzip()
}

/// Ranges of rows with few enough logits, of about equal size.
fn chunks(n_rows: usize, vocab_size: usize) -> impl Iterator<Item = Range<usize>> {
    let n_chunks = (n_rows * vocab_size).div_ceil(LOGITS_AT_ONCE).max(1);
    let size = n_rows.div_ceil(n_chunks).max(1);
    (0..n_rows).step_by(size).map(move |from| from..n_rows.min(from + size))
}

struct Score<'a> {
    logits: &'a mut [f32],
    id: usize,
}

impl Kernel for Score<'_> {
    type Output = (f32, u32);
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) -> (f32, u32) {
        let largest = math::max(simd, self.logits);
        let target = self.logits[self.id];
        let (before, behind) = self.logits.split_at(self.id);
        let rank = before.iter().filter(|logit| **logit >= target).count() + behind.iter().filter(|logit| **logit > target).count();
        (exp_and_sum(simd, self.logits, largest).ln() - (target - largest), rank as u32)
    }
}

/// Replaces x by e^(x - largest) and gives the sum.
#[inline(always)]
fn exp_and_sum<S: Vector>(simd: S, x: &mut [f32], largest: f32) -> f32 {
    let shift = simd.splat_f32s(largest);
    math::map!(simd, x, |v| math::exp(simd, simd.sub_f32s(v, shift)));
    math::sum!(simd, x, |v| v)
}

/// The sum over rows of weight × cross-entropy, in nats. `logits` `[N, V]` become its gradient, or anything if `gradient` is false.
///
/// # Panics
/// If the sizes do not fit, or the target of a row that counts is not below V.
pub fn in_place(isa: Isa, logits: &mut [f32], vocab_size: usize, targets: Targets<'_>, gradient: bool) -> f64 {
    let n = targets.ids.len();
    assert!(logits.len() == n * vocab_size && targets.weights.len() == n, "{n} rows of {vocab_size} logits");
    let in_range = |(id, weight): (&u32, &f32)| *weight == 0.0 || (*id as usize) < vocab_size;
    assert!(targets.ids.iter().zip(targets.weights).all(in_range), "targets are below {vocab_size}");
    if n == 0 {
        return 0.0;
    }
    let rows = rows_per_task(n, vocab_size);
    let tasks = logits.par_chunks_mut(rows * vocab_size).enumerate();
    let part = |(i, logits): (usize, _)| {
        let targets = targets.rows(i * rows..n.min((i + 1) * rows));
        dispatch(isa, Rows { logits, vocab_size, targets, gradient })
    };
    let sums: Vec<f64> = tasks.map(part).collect();
    sums.iter().sum()
}

struct Rows<'a> {
    logits: &'a mut [f32],
    vocab_size: usize,
    targets: Targets<'a>,
    gradient: bool,
}

impl Kernel for Rows<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Vector>(self, simd: S) -> f64 {
        let Self { logits, vocab_size, targets: Targets { ids, weights, terms }, gradient } = self;
        let (smoothing, z_loss) = (terms.label_smoothing as f32, terms.z_loss as f32);
        let mut nats = 0.0;
        for ((row, id), weight) in logits.chunks_exact_mut(vocab_size).zip(ids).zip(weights) {
            if *weight == 0.0 {
                row.fill(0.0);
                continue;
            }
            let id = *id as usize;
            let largest = math::max(simd, row);
            let share = smoothing / vocab_size as f32;
            // The largest logit is taken out of all, so that no difference of large numbers is left.
            let spread = if smoothing > 0.0 { math::sum!(simd, row, |v| v) - largest * vocab_size as f32 } else { 0.0 };
            let target = row[id] - largest;
            let sum = exp_and_sum(simd, row, largest);
            let log_z = largest + sum.ln();
            let penalty = z_loss * log_z * log_z;
            nats += f64::from(*weight) * f64::from(sum.ln() - (1.0 - smoothing) * target - share * spread + penalty);
            if gradient {
                // d (ln Z)² is 2 ln Z times the softmax.
                let of_softmax = weight * (1.0 + 2.0 * z_loss * log_z) / sum;
                let (factor, share_v) = (simd.splat_f32s(of_softmax), simd.splat_f32s(-share * weight));
                math::map!(simd, row, |v| simd.fma(v, factor, share_v));
                row[id] -= (1.0 - smoothing) * weight;
            }
        }
        nats
    }
}
