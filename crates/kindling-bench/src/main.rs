//! `kindling-bench`: times what Kindling computes beside a baseline of the same run. `cargo xtask bench` builds and calls it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "results go to stdout, progress to stderr")]

mod infer;
mod kernels;
mod load;
mod loader;
mod machine;
mod page;
mod prepare;
mod process;
mod recipe;
mod shape;
mod step;
mod tokenizer;
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
    /// A whole recipe, from text to a validated model, beside PyTorch if a Python that has it is given
    Recipe(recipe::Args),
    /// Training and using a BPE vocabulary, beside other tokenizers if a Python that has them is given
    Tokenizer(tokenizer::Args),
    /// Preparing a corpus, beside the encoder alone
    Prepare(prepare::Args),
    /// Reading prompts and writing with a GPT-2, beside llama.cpp if a Node that has it is given
    Infer(infer::Args),
    /// A server of a GPT-2 under load, for a bounded time
    Load(load::Args),
    /// All of these, as the page docs/benchmarks.md
    Page(page::Args),
    /// Steps in this process alone
    #[command(hide = true)]
    Step(step::Args),
    /// Operations in this process alone
    #[command(hide = true)]
    Operations(kernels::InProcess),
    /// One measurement of a tokenizer in this process alone
    #[command(hide = true)]
    Tokenize(tokenizer::InProcess),
    /// One preparation in this process alone
    #[command(hide = true)]
    Preparing(prepare::InProcess),
    /// Texts written in this process alone
    #[command(hide = true)]
    Writing(infer::InProcess),
    /// The machine's best speed of matrix products, in this process alone
    #[command(hide = true)]
    Peak,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let threads = cli.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    match cli.bench {
        // These compute nothing themselves: each measurement has a process of its own.
        Bench::Train(args) => train::command(&args, threads),
        Bench::Kernels(args) => kernels::command(&args, threads),
        Bench::Recipe(args) => recipe::command(&args, threads),
        Bench::Tokenizer(args) => tokenizer::command(&args, threads),
        Bench::Prepare(args) => prepare::command(&args, threads),
        Bench::Infer(args) => infer::command(&args, threads),
        Bench::Load(args) => load::command(&args, threads),
        Bench::Page(args) => page::command(&args, threads),
        Bench::Step(args) => {
            thread_pool(threads)?;
            step::command(&args)
        }
        Bench::Operations(args) => {
            thread_pool(threads)?;
            kernels::in_process(&args);
            Ok(())
        }
        Bench::Tokenize(args) => {
            thread_pool(threads)?;
            tokenizer::in_process(&args)
        }
        Bench::Preparing(args) => {
            thread_pool(threads)?;
            prepare::in_process(&args)
        }
        Bench::Writing(args) => {
            thread_pool(threads)?;
            infer::in_process(&args)
        }
        Bench::Peak => {
            thread_pool(threads)?;
            println!("{}", serde_json::json!({ "gflops": machine::matmul_peak() }));
            Ok(())
        }
    }
}

/// As `kindling` has it: the calling thread is one of the workers.
fn thread_pool(threads: usize) -> anyhow::Result<()> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build_global()?)
}
