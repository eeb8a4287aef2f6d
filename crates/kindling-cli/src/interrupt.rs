//! Ctrl-C: the first lets what is being done end well, the second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::dashboard;
use crate::failure::STOPPED;
use crate::progress::line;

/// What the first interrupt answers.
pub(crate) const STOPPING: &str = "stopping once everything is saved; once more to stop at once, without saving";

/// What is set by the first interrupt.
pub(crate) fn listen(quiet: bool) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::Relaxed) {
            dashboard::abandon();
            std::process::exit(STOPPED.into());
        }
        // The dashboard says so itself.
        if !dashboard::is_open() {
            line(quiet, STOPPING);
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
