//! `kindling devices`: what was compiled in, what else could be, and whether each computes the same.

use std::process::ExitCode;

use kindling_kernels::Isa;
use kindling_train::parity::{Parity, TOLERANCE, compare};
use serde_json::json;

use crate::args::Args;
use crate::device::{BACKENDS, build_command, enumerate, open};
use crate::failure::Advice;
use crate::output;
use crate::progress::line;

pub(crate) fn run(args: &Args, check: bool) -> anyhow::Result<ExitCode> {
    if check { self::check(args) } else { list(args) }
}

fn list(args: &Args) -> anyhow::Result<ExitCode> {
    let found: Vec<_> = BACKENDS.iter().map(|backend| if backend.compiled { enumerate(backend.name).len() } else { 0 }).collect();
    if args.json {
        let rows: Vec<_> = BACKENDS
            .iter()
            .zip(&found)
            .map(|(backend, n)| json!({ "name": backend.name, "compiled": backend.compiled, "found": n, "build": build_command(backend.name) }))
            .collect();
        output::json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = BACKENDS
        .iter()
        .zip(&found)
        .map(|(backend, n)| {
            let state = match (backend.compiled, n) {
                (true, 0) => "compiled in, no hardware or driver found".into(),
                (true, 1) if backend.name == "flex" => format!("ready, with {}", Isa::chosen()),
                (true, 1) => "ready".into(),
                (true, n) => format!("ready, {n} found"),
                (false, _) => format!("not compiled in: {}", build_command(backend.name)),
            };
            vec![backend.name.to_owned(), backend.what.to_owned(), state]
        })
        .collect();
    output::table(&["device", "what", "state"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Forward, backward and three training steps on every device that is there, against flex.
fn check(args: &Args) -> anyhow::Result<ExitCode> {
    let reference = open("flex")?;
    let mut rows = Vec::new();
    for backend in BACKENDS.iter().filter(|backend| backend.compiled && backend.name != "flex") {
        for index in 0..enumerate(backend.name).len() {
            let name = if index == 0 { backend.name.to_owned() } else { format!("{}:{index}", backend.name) };
            line(args.quiet, &format!("computing on {name}"));
            let device = open(&name)?;
            // A driver that fails in the middle must not hide what the other devices give.
            let parity = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| compare(&device, &reference))).ok();
            rows.push((name, parity));
        }
    }
    let right = |parity: &Option<Parity>| parity.as_ref().is_some_and(|parity| parity.within(&TOLERANCE));
    if args.json {
        let rows: Vec<_> =
            rows.iter().map(|(name, parity)| json!({ "device": name, "passed": right(parity), "difference": parity })).collect();
        output::json(&json!({ "reference": "flex", "tolerance": TOLERANCE, "devices": rows }))?;
    } else {
        let figures = |parity: &Parity| [parity.logits, parity.gradients, parity.losses, parity.weights].map(|d| format!("{d:.1e}"));
        let table: Vec<_> = rows
            .iter()
            .map(|(name, parity)| {
                let figures = parity.as_ref().map_or(["-"; 4].map(str::to_owned), figures);
                let verdict = if parity.is_none() {
                    "failed to compute"
                } else if right(parity) {
                    "passed"
                } else {
                    "FAILED"
                };
                std::iter::once(name.clone()).chain(figures).chain([verdict.to_owned()]).collect()
            })
            .collect();
        let bounds = std::iter::once("(bound)".to_owned()).chain(figures(&TOLERANCE)).chain([String::new()]).collect();
        output::text("largest differences from flex, relative to the largest value of each tensor:\n")?;
        output::table(&["device", "logits", "gradients", "losses", "weights", ""], &[vec![bounds], table].concat())?;
    }
    match rows.iter().find(|(_, parity)| !right(parity)) {
        None => Ok(ExitCode::SUCCESS),
        Some((name, _)) => Err(Advice {
            message: format!("device `{name}` does not compute what flex computes"),
            hint: "update its driver, or use another device; results from this one cannot be trusted".into(),
        }
        .into()),
    }
}
