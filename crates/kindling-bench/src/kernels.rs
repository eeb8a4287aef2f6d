//! Each fused operation beside the same of stock operations, forward and backward, alternating.

use std::time::Instant;

use anyhow::Context;
use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_kernels::{
    Form, Isa, LossTerms, Mask, Precision, causal_attention, gelu_linear, layer_norm, linear, linear_cross_entropy, stream, with_form,
};
use serde_json::{Value, json};

use crate::machine::machine;
use crate::process::{measure_self, middle, number};
use crate::shape::Shape;
use crate::step::precision;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One shape; without it, all of them
    #[arg(long)]
    shape: Option<Shape>,
    /// What factors of matrix products are rounded to in fused operations; composed ones are in f32
    #[arg(long, value_parser = precision, default_value_t)]
    precision: Precision,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn command(args: &Args, threads: usize) -> anyhow::Result<()> {
    let report = report(args.shape, args.precision, threads)?;
    if args.json {
        println!("{report:#}");
    } else {
        print!("{}, {}\n\n{}", machine(threads), args.precision, table(&report)?);
    }
    Ok(())
}

/// Times them in a process of their own.
pub(crate) fn report(shape: Option<Shape>, precision: Precision, threads: usize) -> anyhow::Result<Value> {
    let mut rows = Vec::new();
    for shape in Shape::ALL.into_iter().filter(|one| shape.is_none_or(|only| only == *one)) {
        eprintln!("{}", shape.name());
        let measured = measure_self(threads, &["operations", "--shape", shape.name(), "--precision", &precision.to_string()])?;
        rows.extend(measured.as_array().cloned().unwrap_or_default());
    }
    Ok(json!({ "bench": "kernels", "machine": machine(threads), "threads": threads, "precision": precision.to_string(), "rows": rows }))
}

/// A table in Markdown.
pub(crate) fn table(report: &Value) -> anyhow::Result<String> {
    let mut out = String::from("| shape  | operation     | fused, ms | composed, ms | fused is         |\n");
    out.push_str("|--------|---------------|----------:|-------------:|-----------------:|\n");
    for row in report["rows"].as_array().context("rows")? {
        let (fused, composed) = (number(row, "fused_ms")?, number(row, "composed_ms")?);
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        out.push_str(&format!(
            "| {:6} | {:13} | {fused:9.2} | {composed:12.2} | {:6.2} × as fast |\n",
            text("shape"),
            text("operation"),
            composed / fused
        ));
    }
    Ok(out)
}

#[derive(clap::Args)]
pub(crate) struct InProcess {
    #[arg(long)]
    shape: Shape,
    #[arg(long, value_parser = precision)]
    precision: Precision,
}

/// Prints the times of every operation as one line of JSON.
pub(crate) fn in_process(args: &InProcess) {
    let operations = operations(args.shape, args.precision);
    println!("{}", Value::Array(operations.iter().map(|(name, operation)| compare(args.shape, name, operation)).collect()));
}

/// Runs forward and backward once.
type Operation = Box<dyn Fn()>;

fn operations(shape: Shape, precision: Precision) -> Vec<(&'static str, Operation)> {
    let [_, heads, c, t, b, v] = shape.sizes();
    let n = b * t;
    let device = Device::flex().autodiff();
    let tensor = move |rows: usize, cols: usize| {
        let values: Vec<f32> = (0..(rows * cols) as u64).map(|i| (stream(7, &[i]) >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, cols]), &device).require_grad()
    };
    let (x, w, wide, w_down) = (tensor(n, c), tensor(c, 4 * c), tensor(n, 4 * c), tensor(4 * c, c));
    let (qkv, table, gamma) = (tensor(n, 3 * c), tensor(v, c), Tensor::<1>::ones([c], &x.device()).require_grad());
    let targets: Vec<i64> = (0..n as u64).map(|i| (stream(3, &[i]) % v as u64) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [n]), &x.device());
    // Of a tensor that is no scalar, Burn takes the gradient of the sum.
    let run = |y: Tensor<2>| drop(y.backward());
    let (x_1, x_2) = (x.clone(), x.clone());
    vec![
        ("linear", Box::new(move || run(linear(x_1.clone(), w.clone(), None, precision)))),
        ("gelu_linear", Box::new(move || run(gelu_linear(wide.clone(), w_down.clone(), None, precision)))),
        ("attention", Box::new(move || run(causal_attention(qkv.clone(), b, heads, &Mask::default())))),
        ("layer_norm", Box::new(move || run(layer_norm(x_2.clone(), gamma.clone(), None, 1e-5)))),
        (
            "cross_entropy",
            Box::new(move || {
                let weights = Tensor::ones([n], &x.device());
                drop(linear_cross_entropy(x.clone(), table.clone(), targets.clone(), weights, LossTerms::default(), precision).backward());
            }),
        ),
    ]
}

fn compare(shape: Shape, name: &str, operation: &dyn Fn()) -> Value {
    let time = |form: Form| {
        with_form(form, || {
            let start = Instant::now();
            operation();
            start.elapsed().as_secs_f64() * 1e3
        })
    };
    let forms = [Form::Fused(Isa::detect()), Form::Composed];
    // The first of each is not counted: it meets cold caches and a small heap.
    for form in forms {
        time(form);
    }
    let rounds = if shape == Shape::Small { 50 } else { 3 };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (form, times) in forms.into_iter().zip(&mut times) {
            times.push(time(form));
        }
    }
    let [fused, composed] = times.map(middle);
    json!({ "shape": shape.name(), "operation": name, "fused_ms": fused, "composed_ms": composed })
}
