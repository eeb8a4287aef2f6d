//! `kindling generate`: text to stdout, piece by piece.

use std::process::ExitCode;

use kindling_config::Seed;
use kindling_infer::{Border, EngineLimits, Generation, Request, StopReason, prompt_ids};
use kindling_runs::Registry;
use serde_json::json;

use crate::adapters::{side_by_side, title};
use crate::args::{Args, GenerateArgs};
use crate::opened::open_writer;
use crate::output;

pub(crate) fn run(args: &Args, generate_args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    let opened = open_writer(args, &registry, &generate_args.run, generate_args.model.weights)?;
    let mut config = opened.run.config().sample.clone();
    config.prompt = generate_args.prompt.clone().unwrap_or(config.prompt);
    let options = &generate_args.sampling;
    let sampling = options.over(&mut config)?;
    let request = Request {
        prompt: prompt_ids(&opened.tokenizer, &config.prompt)?,
        sampling,
        seed: Seed(options.seed).stream("sample"),
        max_new_tokens: config.max_new_tokens,
        stop: options.stop.clone(),
        border: Border::Slide,
        constraint: generate_args.grammar.constraint(&opened.tokenizer)?,
        ..Request::default()
    };
    let models = side_by_side(&registry, &opened, &generate_args.adapter)?;
    let draft = generate_args.model.draft(args, &registry, &opened)?;
    let mut said = Vec::new();
    for (adapter, model) in &models {
        let engine = generate_args.model.engine(model, &opened.tokenizer, draft.as_ref(), EngineLimits::alone())?;
        let mut generation = Generation::new(engine, request.clone())?;
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
            Some(StopReason::StopText) => "stop_text",
            _ => "max_new_tokens",
        };
        let mut one = json!({
            "run": opened.run.name(), "step": opened.step, "prompt": config.prompt, "text": text,
            "new_tokens": generation.n_new(), "stop_reason": stop, "seed": options.seed
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
