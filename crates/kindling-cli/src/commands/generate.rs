//! `kindling generate`: text to stdout, piece by piece.

use std::process::ExitCode;

use kindling_config::{ConfigError, Seed};
use kindling_infer::{StopReason, generate};
use kindling_runs::Registry;
use serde_json::json;

use crate::adapters::{side_by_side, title};
use crate::args::{Args, GenerateArgs};
use crate::failure::Advice;
use crate::opened::open_writer;
use crate::output;

pub(crate) fn run(args: &Args, generate_args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    let opened = open_writer(args, &registry, &generate_args.run)?;
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
    let models = side_by_side(&registry, &opened, &generate_args.adapter)?;
    let mut said = Vec::new();
    for (adapter, model) in &models {
        let mut generation = generate(model, &opened.tokenizer, &config, Seed(generate_args.seed).stream("sample"))?;
        let mut text = String::new();
        if !args.json {
            let heading = if models.len() > 1 { format!("== {} ==\n", title(*adapter)) } else { String::new() };
            output::text(&format!("{heading}{}", config.prompt))?;
        }
        for piece in generation.by_ref() {
            let piece = piece?;
            if args.json {
                text += &piece;
            } else {
                output::text(&piece)?;
            }
        }
        if !args.json {
            output::text("\n")?;
        }
        let stop = match generation.stop_reason() {
            Some(StopReason::EndOfText) => "end_of_text",
            _ => "max_new_tokens",
        };
        let mut one = json!({
            "run": opened.run.name(), "step": opened.step, "prompt": config.prompt, "text": text,
            "new_tokens": generation.n_new(), "stop_reason": stop, "seed": generate_args.seed
        });
        if models.len() > 1 {
            one["adapter"] = json!(adapter);
        }
        said.push(one);
    }
    match said.as_slice() {
        _ if !args.json => {}
        [one] => output::json(one)?,
        all => output::json(&all)?,
    }
    Ok(ExitCode::SUCCESS)
}
