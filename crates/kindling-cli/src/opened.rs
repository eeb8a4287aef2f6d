//! Runs opened for use, as every command opens them.

use kindling_infer::{Opened, open};
use kindling_runs::Registry;

use crate::args::Args;
use crate::device;
use crate::failure::Advice;
use crate::progress::line;

/// Opens a run by its name, its path, or as `latest`, and says which checkpoints were passed over.
pub(crate) fn open_run(args: &Args, registry: &Registry, name: &str) -> anyhow::Result<Opened> {
    let opened = open(&registry.resolve(name)?, &device::open(&args.device)?)?;
    for message in &opened.rejected {
        line(args.quiet, &format!("warning: {message}; using another checkpoint"));
    }
    Ok(opened)
}

/// The same of a run that writes text.
pub(crate) fn open_writer(args: &Args, registry: &Registry, name: &str) -> anyhow::Result<Opened> {
    let opened = open_run(args, registry, name)?;
    if opened.model.config().n_classes > 0 {
        return Err(Advice {
            message: format!("run `{}` has a classification head, and writes no text", opened.run.name()),
            hint: format!("use `kindling apply {}`", opened.run.name()),
        }
        .into());
    }
    Ok(opened)
}
