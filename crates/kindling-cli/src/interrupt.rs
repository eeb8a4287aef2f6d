//! Ctrl-C: the first lets what is being done end well, the second ends the program.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::dashboard;
use crate::failure::STOPPED;
use crate::progress::{line, tell_held};

/// What the first interrupt answers.
pub(crate) const STOPPING: &str = "stopping once everything is saved; once more to stop at once, without saving";

/// What is set by the first interrupt.
pub(crate) fn listen(quiet: bool) -> anyhow::Result<Arc<AtomicBool>> {
    listen_with(quiet, STOPPING)
}

/// The same, with another answer to the first interrupt.
pub(crate) fn listen_with(quiet: bool, answer: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let was_terminal = stderr().is_terminal();
    ctrlc::set_handler(move || {
        let has_hung_up = was_terminal && !stderr().is_terminal();
        if seen.swap(true, Ordering::Relaxed) {
            // A terminal that is closed is told to a process more than once, by the system and by its shell: nobody has pressed a key.
            if has_hung_up {
                return;
            }
            dashboard::abandon();
            tell_held();
            std::process::exit(STOPPED.into());
        }
        // The dashboard says so itself.
        if !dashboard::is_open() {
            line(quiet, answer);
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

/// What is set by an interrupt while something is done that it can end. Otherwise one ends the program, unless a line is being edited at a terminal,
/// which would be left as the editor has it; then it is set too.
pub(crate) fn listen_while(is_busy: Arc<AtomicBool>, is_edited: bool) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        let was_seen = seen.swap(true, Ordering::Relaxed);
        if !is_edited && (was_seen || !is_busy.load(Ordering::Relaxed)) {
            std::process::exit(STOPPED.into());
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
