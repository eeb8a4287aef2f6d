//! The same bits for any number of threads.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use kindling_kernels::cpu::attention::{AttentionShape, Visible, backward, forward};
use kindling_kernels::cpu::cross_entropy::{Targets, Wanted, linear};
use kindling_kernels::cpu::linear::{backward_w, backward_x, forward as forward_linear, sum_rows};
use kindling_kernels::cpu::matmul::Matrix;
use kindling_kernels::cpu::{embedding, layer_norm};
use kindling_kernels::{Isa, LossTerms, Precision, stream};

fn values(salt: u64, n: usize) -> Vec<f32> {
    (0..n as u64).map(|i| (stream(salt, &[i]) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// Computes in pools of several sizes and compares the bits.
fn check(name: &str, compute: impl Fn(Isa) -> Vec<f32> + Sync) {
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compute(Isa::detect())).into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = bits(1);
    for threads in [2, 3, 8] {
        assert!(bits(threads) == one, "{name} with {threads} threads");
    }
}

#[test]
fn sums_do_not_depend_on_threads() {
    let (n, i, o) = (700, 130, 300);
    let (x, w, dy) = (values(1, n * i), values(2, i * o), values(3, n * o));
    for precision in [Precision::F32, Precision::Bf16] {
        let name = |what: &str| format!("{what} in {precision:?}");
        check(&name("a product"), |isa| forward_linear(isa, precision, Matrix::new(&x, n, i), Matrix::new(&w, i, o), None, true));
        check(&name("a product of few rows"), |isa| {
            forward_linear(isa, precision, Matrix::new(&x[..9 * i], 9, i), Matrix::new(&w, i, o), None, false)
        });
        check(&name("the gradient of x"), |isa| backward_x(isa, precision, Matrix::new(&dy, n, o), Matrix::new(&w, i, o), Some(&x)));
        check(&name("the gradient of w"), |isa| backward_w(isa, precision, Matrix::new(&x, n, i), Matrix::new(&dy, n, o), true));
    }
    check("the gradient of a bias", |isa| sum_rows(isa, &dy, o));
    let ids: Vec<u32> = (0..n as u64).map(|row| (stream(4, &[row]) % 50) as u32).collect();
    check("the gradient of a table", |isa| embedding::backward(isa, &ids, &dy, 50, o));
    let gamma = values(5, o);
    let (_, stats) = layer_norm::forward(Isa::detect(), &dy, &gamma, None, 1e-5);
    check("layer norm's gradients", |isa| {
        let mut d = dy.clone();
        let (d_gamma, d_beta) = layer_norm::backward(isa, &dy, &gamma, &stats, &mut d);
        [d, d_gamma, d_beta].concat()
    });
    let weights = vec![1.0; n];
    check("cross-entropy", |isa| {
        let targets = Targets { ids: &ids, weights: &weights, terms: LossTerms { label_smoothing: 0.1, z_loss: 0.01 } };
        let (x, table) = (Matrix::new(&x, n, i), Matrix::new(&w[..50 * i], 50, i));
        let (nats, gradients) = linear(isa, Precision::F32, x, table, targets, Wanted::XAndTable);
        let (d_x, d_table) = gradients.unwrap();
        [vec![nats as f32], d_x, d_table.unwrap()].concat()
    });
    let shape = AttentionShape { n_seqs: 5, len: 140, n_heads: 2, head_dim: 15 };
    let (qkv, d_out) = (values(6, 5 * 140 * 90), values(7, 5 * 140 * 30));
    check("attention", |isa| {
        let (out, stats) = forward(isa, &qkv, shape, Visible::default());
        let d = backward(isa, &qkv, &out, &stats, &d_out, shape, Visible::default());
        [out, d].concat()
    });
}
