//! `kindling generate`: text to stdout, piece by piece.

use std::process::ExitCode;

use kindling_config::{ConfigError, Seed};
use kindling_infer::{StopReason, generate, open};
use kindling_runs::Registry;
use serde_json::json;

use crate::args::{Args, GenerateArgs};
use crate::failure::Advice;
use crate::progress::line;
use crate::{device, output};

pub(crate) fn run(args: &Args, generate_args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let dir = Registry::new(&args.runs_dir).resolve(&generate_args.run)?;
    let opened = open(&dir, &device::open(&args.device)?)?;
    for message in &opened.rejected {
        line(args.quiet, &format!("warning: {message}; using another checkpoint"));
    }
    let mut config = opened.run.config().sample.clone();
    let GenerateArgs { prompt, max_new_tokens, temperature, top_k, top_p, .. } = generate_args;
    config.prompt = prompt.clone().unwrap_or(config.prompt);
    config.max_new_tokens = max_new_tokens.unwrap_or(config.max_new_tokens);
    config.temperature = temperature.unwrap_or(config.temperature);
    config.top_k = top_k.unwrap_or(config.top_k);
    config.top_p = top_p.unwrap_or(config.top_p);
    config.validate().map_err(|error| match error {
        ConfigError::Invalid { key, .. } => {
            let option = key.trim_start_matches("sample.").replace('_', "-");
            Advice { message: error.to_string(), hint: format!("pass another `--{option}`") }.into()
        }
        error => anyhow::Error::from(error),
    })?;
    let seed = Seed(generate_args.seed).stream("sample");
    let mut generation = generate(&opened.model, &opened.tokenizer, &config, seed)?;
    let mut text = String::new();
    if !args.json {
        output::text(&config.prompt)?;
    }
    for piece in generation.by_ref() {
        let piece = piece?;
        if args.json {
            text += &piece;
        } else {
            output::text(&piece)?;
        }
    }
    if args.json {
        let stop = match generation.stop_reason() {
            Some(StopReason::EndOfText) => "end_of_text",
            _ => "max_new_tokens",
        };
        output::json(&json!({
            "run": opened.run.name(), "step": opened.step, "prompt": config.prompt, "text": text,
            "new_tokens": generation.n_new(), "stop_reason": stop, "seed": generate_args.seed
        }))?;
    } else {
        output::text("\n")?;
    }
    Ok(ExitCode::SUCCESS)
}
