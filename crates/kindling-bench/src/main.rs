//! `kindling-bench`: times what Kindling computes beside a baseline of the same run. `cargo xtask bench` builds and calls it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "results go to stdout, progress to stderr")]

mod kernels;
mod machine;
mod shape;
mod step;
mod train;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "kindling-bench", bin_name = "cargo xtask bench", about)]
struct Cli {
    /// Threads to compute with
    #[arg(long, global = true)]
    threads: Option<usize>,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Whole training steps, beside PyTorch if a Python that has it is given
    Train(train::Args),
    /// Fused operations beside the same of stock operations
    Kernels(kernels::Args),
    /// Steps in this process alone: what `train` calls, once for each measurement
    #[command(hide = true)]
    Step(step::Args),
    /// The machine's best speed of matrix products, in this process alone
    #[command(hide = true)]
    Peak,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let threads = cli.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    match cli.bench {
        // It computes nothing itself.
        Bench::Train(args) => return train::command(&args, threads),
        Bench::Kernels(_) | Bench::Step(_) | Bench::Peak => {}
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?;
    match cli.bench {
        Bench::Train(_) => unreachable!("returned above"),
        Bench::Kernels(args) => kernels::command(&args),
        Bench::Step(args) => step::command(&args),
        Bench::Peak => {
            println!("{}", serde_json::json!({ "gflops": machine::matmul_peak() }));
            Ok(())
        }
    }
}
