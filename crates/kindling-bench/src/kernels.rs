//! Each fused operation beside the same of stock operations, forward and backward, alternating.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use kindling_kernels::{Form, Isa, Mask, causal_attention, gelu_linear, layer_norm, linear, linear_cross_entropy, stream, with_form};
use serde_json::{Value, json};

use crate::machine::processor;
use crate::shape::Shape;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One shape; without it, all of them
    #[arg(long)]
    shape: Option<Shape>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn command(args: &Args) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for shape in Shape::ALL.into_iter().filter(|shape| args.shape.is_none_or(|only| only == *shape)) {
        for (name, operation) in operations(shape) {
            eprintln!("{} {name}", shape.name());
            rows.push(compare(shape, name, &*operation));
        }
    }
    if args.json {
        let report = json!({ "bench": "kernels", "processor": processor(), "isa": Isa::detect().to_string(), "threads": rayon::current_num_threads(), "rows": rows });
        println!("{report:#}");
        return Ok(());
    }
    println!("{}, {}, {} threads; milliseconds of forward and backward", processor(), Isa::detect(), rayon::current_num_threads());
    println!("shape    operation          fused   composed   times as fast");
    for row in rows {
        let get = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        let (fused, composed) = (get("fused_ms"), get("composed_ms"));
        println!(
            "{:8} {:16} {fused:7.2} {composed:10.2} {:10.2}",
            row["shape"].as_str().unwrap_or(""),
            row["operation"].as_str().unwrap_or(""),
            composed / fused
        );
    }
    Ok(())
}

/// Runs forward and backward once.
type Operation = Box<dyn Fn()>;

fn operations(shape: Shape) -> Vec<(&'static str, Operation)> {
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
    let run = |y: Tensor<2>| drop(y.sum().backward());
    let (x_1, x_2) = (x.clone(), x.clone());
    vec![
        ("linear", Box::new(move || run(linear(x_1.clone(), w.clone(), None)))),
        ("gelu_linear", Box::new(move || run(gelu_linear(wide.clone(), w_down.clone(), None)))),
        ("attention", Box::new(move || run(causal_attention(qkv.clone(), b, heads, &Mask::default())))),
        ("layer_norm", Box::new(move || run(layer_norm(x_2.clone(), gamma.clone(), None, 1e-5)))),
        (
            "cross_entropy",
            Box::new(move || {
                let weights = Tensor::ones([n], &x.device());
                drop(linear_cross_entropy(x.clone(), table.clone(), targets.clone(), weights, 0.0).backward());
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
    let [fused, composed] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    json!({ "shape": shape.name(), "operation": name, "fused_ms": fused, "composed_ms": composed })
}
