//! Training on the whole terminal, by burn-train's renderer: opening it, its keys, and leaving the terminal as it was. What is drawn is in
//! `figures.rs`.
//!
//! The renderer has a thread of its own that reads keys and draws ten times a second. It takes the terminal into raw mode, where
//! Ctrl-C is a key like any other, and its menu offers to stop at once by a panic. Here both lead to the same orderly stop as
//! everywhere else, and if the renderer is gone, for whatever reason, training goes on without it.

mod figures;

use std::io::{IsTerminal, stderr, stdout};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use burn::train::Interrupter;
use burn::train::logger::TrainingProgressLogger;
use burn::train::metric::{MetricAttributes, MetricDefinition, MetricEntry, MetricId, NumericAttributes, NumericEntry, SerializedEntry};
use burn::train::renderer::tui::TuiMetricsRendererWrapper as Renderer;
use burn::train::renderer::{MetricState, MetricsRenderer, MetricsRendererTraining};
use crossterm::cursor::Show;
use crossterm::event::DisableMouseCapture;
use crossterm::execute;
use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, is_raw_mode_enabled, size};
use kindling_train::TrainEvent;

use crate::failure;
use figures::{CURVES, Drawn, Figures, Split, TEXTS};

/// Columns and rows below which the curves have no place.
const SMALLEST: (u16, u16) = (60, 20);
/// The renderer's thread, as burn-train names it.
const RENDERER: &str = "train-renderer";
/// What the dashboard says once it is to stop, short enough for its corner.
const STOPPING: &str = "stopping; ^C again: unsaved";
/// How long the renderer may take to end, which it looks for ten times a second.
const PATIENCE: Duration = Duration::from_secs(2);
/// The renderer draws no more often.
const REFRESH: Duration = Duration::from_millis(100);

/// Whether the renderer's thread has panicked. Where the terminal is gone, raw mode cannot be left, and crossterm goes on saying it is on.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Whether the dashboard has the terminal.
pub(crate) fn is_open() -> bool {
    // Nothing else in this program enters raw mode, and the renderer leaves it also where its thread panics.
    !PANICKED.load(Ordering::Relaxed) && is_raw_mode_enabled().unwrap_or(false)
}

/// Gives the terminal back for a process that ends at once, and keeps the renderer from drawing again.
pub(crate) fn abandon() {
    if !is_open() {
        return;
    }
    let mut out = stdout().lock();
    let _ = disable_raw_mode();
    let _ = execute!(out, DisableMouseCapture, LeaveAlternateScreen, Show);
    // Locked for good: a frame that is drawn later would be text on the user's screen.
    std::mem::forget(out);
}

/// Where this process writes.
#[derive(Clone, Debug)]
struct Place {
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    /// The environment's `TERM`.
    term: Option<String>,
    /// Columns and rows.
    size: Option<(u16, u16)>,
    /// A process in the background would be stopped by changing the terminal's mode.
    in_foreground: bool,
}

impl Place {
    fn here() -> Self {
        let (stdout_is_terminal, stderr_is_terminal) = (stdout().is_terminal(), stderr().is_terminal());
        // Asked only where there is one: without, crossterm starts other programs to learn a size.
        let are_terminals = stdout_is_terminal && stderr_is_terminal;
        Self {
            stdout_is_terminal,
            stderr_is_terminal,
            term: std::env::var("TERM").ok(),
            size: are_terminals.then(size).and_then(Result::ok),
            in_foreground: are_terminals && in_foreground(),
        }
    }

    /// Whether it is a terminal that can hold the dashboard.
    fn is_fit(&self) -> bool {
        let can_draw = cfg!(windows) || self.term.as_deref().is_some_and(|term| !matches!(term, "" | "dumb"));
        let is_large = self.size.is_some_and(|(columns, rows)| columns >= SMALLEST.0 && rows >= SMALLEST.1);
        self.stdout_is_terminal && self.stderr_is_terminal && can_draw && is_large && self.in_foreground
    }
}

/// The terminal while a run is trained.
pub(crate) struct Dashboard {
    /// Nothing once it is given up.
    renderer: Option<Renderer>,
    /// What the renderer's menu sets.
    interrupter: Interrupter,
    /// What ends the training in an orderly way.
    stop: Arc<AtomicBool>,
    figures: Figures,
    /// What is in progress, of how many.
    phase: Option<(Split, u64)>,
    drawn: Instant,
    says_stopping: bool,
}

impl Dashboard {
    /// Takes the terminal, if it can hold a dashboard. Its keys set `stop`.
    pub(crate) fn open(stop: &Arc<AtomicBool>) -> Option<Self> {
        if !Place::here().is_fit() {
            return None;
        }
        // Done here, where it can fail, and not by the renderer, which would panic; it finds it done.
        enable_raw_mode().ok()?;
        if let_interrupts_through().is_err() {
            let _ = disable_raw_mode();
            return None;
        }
        // A renderer that panics is noticed by `is_open`, and costs the user nothing but the curves.
        PANICKED.store(false, Ordering::Relaxed);
        let is_starting = Arc::new(AtomicBool::new(true));
        let (report, starts) = (take_hook(), Arc::clone(&is_starting));
        set_hook(Box::new(move |info| {
            if std::thread::current().name() == Some(RENDERER) {
                PANICKED.store(true, Ordering::Relaxed);
                silence_lost_stderr();
            } else if !starts.load(Ordering::Relaxed) {
                report(info);
            }
        }));
        let interrupter = Interrupter::new();
        // It panics where the system has no thread for it.
        let renderer = catch_unwind(AssertUnwindSafe(|| Renderer::new(interrupter.clone(), None)));
        is_starting.store(false, Ordering::Relaxed);
        let Ok(renderer) = renderer else {
            let _ = disable_raw_mode();
            failure::report_panics();
            return None;
        };
        let mut dashboard = Self {
            renderer: Some(renderer),
            interrupter,
            stop: Arc::clone(stop),
            figures: Figures::default(),
            phase: None,
            drawn: Instant::now(),
            says_stopping: false,
        };
        dashboard.tell(begin);
        Some(dashboard)
    }

    /// Draws what an event tells, and hears what keys ask for. Whether the dashboard still has the terminal.
    pub(crate) fn on(&mut self, event: &TrainEvent<'_>) -> bool {
        if self.interrupter.should_stop() {
            self.stop.store(true, Ordering::Relaxed);
        }
        if !self.says_stopping && self.stop.load(Ordering::Relaxed) {
            self.says_stopping = true;
            self.tell(|renderer| renderer.start(1, 1, None, Some(STOPPING)));
        }
        for drawn in self.figures.of(event) {
            self.draw(drawn);
        }
        if !is_open() {
            // Told once more, so that it is known why.
            self.tell(|renderer| renderer.log_event_training(String::new()));
        }
        self.renderer.is_some() && is_open()
    }

    fn draw(&mut self, drawn: Drawn) {
        match drawn {
            Drawn::Progress { split, done, total, text } => {
                let is_new = self.phase != Some((split, total));
                if !is_new && done < total && self.drawn.elapsed() < REFRESH {
                    return;
                }
                self.phase = Some((split, total));
                self.drawn = Instant::now();
                self.tell(|renderer| {
                    if is_new {
                        renderer.start_split(split.name(), total as usize);
                    }
                    renderer.update_split(done as usize);
                    if let Some(text) = text {
                        renderer.update_train(MetricState::Generic(entry(figures::STEP, text)));
                    }
                });
            }
            Drawn::Point { split, curve, value, text } => self.tell(|renderer| {
                let state = MetricState::Numeric(entry(curve, text), value.map(NumericEntry::Value));
                match split {
                    Split::Train => renderer.update_train(state),
                    Split::Validation => renderer.update_valid(state),
                }
            }),
            Drawn::Text { name, text } => self.tell(|renderer| renderer.update_train(MetricState::Generic(entry(name, text)))),
            Drawn::Count(what) => self.tell(|renderer| renderer.log_event_training(what.to_owned())),
        }
    }

    /// Tells the renderer something. `Stop the training immediately` of its menu makes its own thread panic, and this one when it
    /// is told the next thing; it is taken for a wish to stop, after which a Ctrl-C ends the process at once, as everywhere.
    fn tell(&mut self, what: impl FnOnce(&mut Renderer)) {
        let Some(renderer) = &mut self.renderer else { return };
        // A thread that panics cannot change what is done about panics.
        if !is_open() && !std::thread::panicking() {
            // By now the terminal is the user's again: this panic, if it is one, is not to be seen.
            set_hook(Box::new(|_| {}));
        }
        if catch_unwind(AssertUnwindSafe(|| what(renderer))).is_err() {
            self.stop.store(true, Ordering::Relaxed);
            self.close();
        }
    }

    /// Gives the terminal back as it was.
    fn close(&mut self) {
        let Some(renderer) = self.renderer.take() else { return };
        if is_open() {
            // Dropping it waits for its thread, which never ends where the terminal has hung up (it asks again and again for keys there)
            // or takes nothing more: so another thread waits, and this one waits for that only so long.
            let (done, is_done) = channel();
            let wait = move || {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(renderer)));
                let _ = done.send(());
            };
            if std::thread::Builder::new().spawn(wait).is_ok() {
                let _ = is_done.recv_timeout(PATIENCE);
            }
        } else {
            // Its thread has ended, and its destructor might panic.
            std::mem::forget(renderer);
        }
        // What a renderer that panicked leaves undone.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), Show);
        if !std::thread::panicking() {
            failure::report_panics();
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the renderer is told first.
fn begin(renderer: &mut Renderer) {
    let define =
        |name: &str, attributes| MetricDefinition { metric_id: id(name), name: Arc::new(name.to_owned()), description: None, attributes };
    for name in CURVES {
        renderer.register_metric(define(name, MetricAttributes::Numeric(NumericAttributes { unit: None, higher_is_better: true })));
    }
    for name in TEXTS {
        renderer.register_metric(define(name, MetricAttributes::None));
    }
    // To the renderer all of the training is one epoch, and a step an item.
    renderer.start(1, 1, None, None);
    // Before any step it knows no ratio by which it would thin out the curve of validation, down to nothing.
    renderer.start_split(Split::Validation.name(), 1);
    renderer.update_split(0);
}

fn id(name: &str) -> MetricId {
    MetricId::new(Arc::new(name.to_owned()))
}

fn entry(name: &str, text: String) -> MetricEntry {
    MetricEntry::new(id(name), SerializedEntry { serialized: text.clone(), formatted: text })
}

/// Of the keys that a terminal turns into signals, Ctrl-C does so again in raw mode. Ctrl-Z and Ctrl-\ would leave the terminal as
/// the dashboard has it, and stay keys.
#[cfg(unix)]
fn let_interrupts_through() -> std::io::Result<()> {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    // POSIX's _POSIX_VDISABLE, which rustix does not have.
    const DISABLED: u8 = if cfg!(any(target_os = "linux", target_os = "android")) { 0 } else { 0xff };
    let terminal = std::fs::File::open("/dev/tty")?;
    let mut mode = tcgetattr(&terminal)?;
    mode.local_modes |= LocalModes::ISIG;
    mode.special_codes[SpecialCodeIndex::VSUSP] = DISABLED;
    mode.special_codes[SpecialCodeIndex::VQUIT] = DISABLED;
    Ok(tcsetattr(&terminal, OptionalActions::Now, &mode)?)
}

/// Turns stderr to nowhere if its terminal has hung up. The renderer's destructors complain there, and a complaint that cannot be written
/// is a panic; during a panic that is the end of the process, and of all that is not saved.
#[cfg(unix)]
fn silence_lost_stderr() {
    if !stderr().is_terminal()
        && let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null")
    {
        let _ = rustix::stdio::dup2_stderr(nowhere);
    }
}

#[cfg(unix)]
fn in_foreground() -> bool {
    let group = std::fs::File::open("/dev/tty").and_then(|terminal| Ok(rustix::termios::tcgetpgrp(terminal)?));
    group.is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Elsewhere `q` is the key.
#[cfg(not(unix))]
fn let_interrupts_through() -> std::io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn silence_lost_stderr() {}

#[cfg(not(unix))]
fn in_foreground() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_that_can_hold_it_has_a_dashboard() {
        let fit = Place {
            stdout_is_terminal: true,
            stderr_is_terminal: true,
            term: Some("xterm-256color".into()),
            size: Some((80, 24)),
            in_foreground: true,
        };
        let check = |expected: bool, change: fn(&mut Place)| {
            let mut place = fit.clone();
            change(&mut place);
            assert_eq!(place.is_fit(), expected, "{place:?}");
        };
        check(true, |_| {});
        check(true, |place| place.size = Some(SMALLEST));
        check(false, |place| place.stdout_is_terminal = false);
        check(false, |place| place.stderr_is_terminal = false);
        check(false, |place| place.size = Some((59, 24)));
        check(false, |place| place.size = Some((80, 19)));
        check(false, |place| place.size = None);
        check(false, |place| place.in_foreground = false);
        check(cfg!(windows), |place| place.term = Some("dumb".into()));
        check(cfg!(windows), |place| place.term = None);
    }
}
