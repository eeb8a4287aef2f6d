//! The command `kindling`: parses, calls one library function, prints. Holds no logic of its own.

mod adapters;
mod args;
mod commands;
mod corpus;
#[cfg(feature = "dashboard")]
mod dashboard;
#[cfg(not(feature = "dashboard"))]
#[path = "no_dashboard.rs"]
mod dashboard;
mod device;
mod failure;
mod interrupt;
mod opened;
mod output;
mod progress;
mod sampling;
mod startup;

use clap::Parser;

use crate::args::{Args, Command, DataCommand};

fn main() -> std::process::ExitCode {
    // Usage errors end the program with code 2, help and version with 0.
    let args = Args::parse();
    failure::report_panics();
    startup::set_up_process();
    // A server computes on threads of its own.
    let computes = !matches!(args.command, Command::Serve(_));
    let result =
        startup::thread_pool(args.threads, computes).and_then(|()| startup::instructions(args.isa)).and_then(|()| match &args.command {
            Command::Train(train) => commands::train::run(&args, train),
            Command::Finetune(finetune) => commands::finetune::run(&args, finetune),
            Command::Merge(merge) => commands::merge::run(&args, merge),
            Command::Prepare(corpus) => commands::prepare::run(&args, corpus),
            Command::Data { command: DataCommand::Audit(audit) } => commands::data::run(&args, audit),
            Command::Doctor(corpus) => commands::doctor::run(&args, corpus),
            Command::Generate(generate) => commands::generate::run(&args, generate),
            Command::Eval(eval) => commands::eval::run(&args, eval),
            Command::Apply(apply) => commands::apply::run(&args, apply),
            Command::Embed(embed) => commands::embed::run(&args, embed),
            Command::Chat(chat) => commands::chat::run(&args, chat),
            Command::Serve(serve) => commands::serve::run(&args, serve),
            Command::Runs { command } => commands::runs::run(&args, command),
            Command::Tokenizer { command } => commands::tokenizer::run(&args, command),
            Command::Devices { check } => commands::devices::run(&args, *check),
        });
    match result {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}
