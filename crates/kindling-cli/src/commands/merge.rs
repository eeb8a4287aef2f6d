//! `kindling merge`: a run whose weights have an adapter folded into them. What that is, `kindling-train` knows.

use std::process::ExitCode;

use kindling_runs::Registry;
use kindling_train::merge;
use serde_json::json;

use crate::args::{Args, MergeArgs};
use crate::opened::open_run;
use crate::output;
use crate::progress::Progress;

pub(crate) fn run(args: &Args, merge_args: &MergeArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(&args.runs_dir);
    let opened = open_run(args, &registry, &merge_args.run)?;
    let name = merge_args.name.clone().unwrap_or_else(|| registry.next_name(&format!("{}-merged", opened.run.name())));
    let mut progress = Progress::new(args.quiet);
    let now = jiff::Timestamp::now().as_millisecond();
    let merged = merge(&opened, registry.root(), &name, now, &mut |done, total| progress.scoring(done, total))?;
    let loss = merged.summary()?.map(|summary| summary.validation_loss);
    if args.json {
        output::json(
            &json!({ "run": merged.name(), "dir": merged.dir(), "from": opened.run.name(), "step": opened.step, "validation_loss": loss }),
        )?;
    } else {
        output::pairs(&[
            ("from", format!("{} (checkpoint of step {})", opened.run.name(), opened.step)),
            ("validation loss", loss.map_or("unknown: the run's prepared data are gone".into(), |loss| format!("{loss:.4} nats a token"))),
            ("run", merged.dir().display().to_string()),
        ])?;
    }
    Ok(ExitCode::SUCCESS)
}
