//! Runs opened for use, as every command opens them.

use std::path::Path;

use kindling_infer::{ChatTemplate, Opened, open};
use kindling_kernels::WeightFormat;
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

/// The same of a run that writes text, its weights laid out for that.
pub(crate) fn open_writer(args: &Args, registry: &Registry, name: &str, weights: WeightFormat) -> anyhow::Result<Opened> {
    let mut opened = open_run(args, registry, name)?;
    if opened.model.config().n_classes > 0 {
        return Err(Advice {
            message: format!("run `{}` has a classification head, and writes no text", opened.run.name()),
            hint: format!("use `kindling apply {}`", opened.run.name()),
        }
        .into());
    }
    opened.model = opened.model.packed(weights);
    Ok(opened)
}

/// How messages become a text: by the template in a file, or as the run was trained on chats.
pub(crate) fn chat_template(opened: &Opened, file: Option<&Path>) -> anyhow::Result<ChatTemplate> {
    Ok(match file {
        Some(path) => ChatTemplate::new(fs_err::read_to_string(path)?)?,
        None => ChatTemplate::of_examples(&opened.run.config().data.examples.clone().unwrap_or_default())?,
    })
}
