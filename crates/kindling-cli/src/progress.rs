//! Progress on stderr: a bar with loss, tokens a second and ETA on a terminal, plain lines elsewhere; or, for training, the dashboard.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use kindling_data::{CleaningStep, CorpusStats, PrepareEvent, StepReport};
use kindling_train::TrainEvent;

use crate::dashboard::Dashboard;
use crate::interrupt::STOPPING;
use crate::output::count;

/// Lines that wait for the dashboard to close; of more the first are in the run's log alone.
const MOST_HELD: usize = 1000;

/// What is said while the dashboard has the terminal. Here, where a second interrupt can reach it.
static HELD: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Says what was held back, unless it is just being said.
pub(crate) fn tell_held() {
    let held = HELD.try_lock().map(|mut held| std::mem::take(&mut *held));
    for text in held.unwrap_or_default() {
        line(false, &text);
    }
}

/// Writes a line to stderr. A closed stderr must not end a training.
pub(crate) fn line(quiet: bool, text: &str) {
    if !quiet {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// When a training will have taken its steps, by the time that those of this start took, evaluations included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeLeft {
    first_step: u64,
    /// Steps in all.
    pub(crate) steps: u64,
    started: Instant,
}

impl TimeLeft {
    /// From `step` on, now.
    pub(crate) fn new(step: u64, steps: u64) -> Self {
        Self { first_step: step, steps, started: Instant::now() }
    }

    /// The run went back to `step`.
    pub(crate) fn go_back(&mut self, step: u64) {
        *self = Self::new(step, self.steps);
    }

    /// What is left after `step`.
    pub(crate) fn left(&self, step: u64) -> HumanDuration {
        let per_step = self.started.elapsed().as_secs_f64() / step.saturating_sub(self.first_step).max(1) as f64;
        let left = Duration::try_from_secs_f64(per_step * self.steps.saturating_sub(step) as f64);
        HumanDuration(left.unwrap_or(Duration::MAX))
    }
}

impl Default for TimeLeft {
    fn default() -> Self {
        Self::new(0, 0)
    }
}

/// The terminal as a listener of preparation and training.
pub(crate) struct Progress {
    quiet: bool,
    is_terminal: bool,
    log_every: u64,
    bar: ProgressBar,
    phase: &'static str,
    time: TimeLeft,
    /// What the dashboard's keys set, where training is to be shown on one.
    dashboard_stop: Option<Arc<AtomicBool>>,
    /// While it has the terminal.
    dashboard: Option<Dashboard>,
    /// Tokens and seconds of the last steps, decaying, so that the speed shown is the present one.
    recent: (f64, f64),
    last_tokens: Option<u64>,
    loss: f64,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            is_terminal: std::io::stderr().is_terminal() && !quiet,
            log_every: 1,
            bar: ProgressBar::hidden(),
            phase: "",
            time: TimeLeft::default(),
            dashboard_stop: None,
            dashboard: None,
            recent: (0.0, 0.0),
            last_tokens: None,
            loss: f64::NAN,
        }
    }

    pub(crate) fn log_every(&mut self, steps: u64) {
        self.log_every = steps;
    }

    /// Shows training on the whole terminal, if there is one that can hold it. Its keys set `stop`.
    pub(crate) fn on_dashboard(&mut self, stop: &Arc<AtomicBool>) {
        self.dashboard_stop = Some(Arc::clone(stop));
    }

    fn line(&mut self, text: &str) {
        if self.dashboard.is_none() {
            return self.bar.suspend(|| line(self.quiet, text));
        }
        let Ok(mut held) = HELD.lock() else { return };
        if held.len() == MOST_HELD {
            held.pop_front();
        }
        held.push_back(text.to_owned());
    }

    /// Lets the dashboard draw, and goes on without it when it has lost the terminal.
    fn draw(&mut self, event: &TrainEvent<'_>) {
        if let (TrainEvent::Started { .. }, Some(stop)) = (event, &self.dashboard_stop) {
            self.dashboard = Dashboard::open(stop);
        }
        if self.dashboard.as_mut().is_some_and(|dashboard| !dashboard.on(event)) {
            self.close_dashboard();
            if self.dashboard_stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                self.line(STOPPING);
            }
        }
    }

    /// Gives the terminal back to lines and bars.
    fn close_dashboard(&mut self) {
        if self.dashboard.take().is_some() {
            self.bar.suspend(tell_held);
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Begins a bar, where there is a terminal to draw it on.
    fn begin(&mut self, phase: &'static str, total: u64, template: &str) {
        if self.phase == phase {
            return;
        }
        self.bar.finish_and_clear();
        self.phase = phase;
        if self.is_terminal {
            let hidden = self.dashboard.is_some().then(ProgressDrawTarget::hidden);
            self.bar = ProgressBar::with_draw_target(Some(total), hidden.unwrap_or_else(ProgressDrawTarget::stderr));
            self.bar.set_style(ProgressStyle::with_template(template).expect("the template is one of ours").progress_chars("=> "));
            self.bar.enable_steady_tick(Duration::from_millis(250));
        }
    }

    pub(crate) fn prepare(&mut self, event: PrepareEvent<'_>) {
        match event {
            PrepareEvent::Reading { done, total } => self.reading(done, total),
            PrepareEvent::Read { stats, cleaning } => {
                self.clear();
                self.line(&format!(
                    "corpus     {} documents, {:.1} MB, hash {}",
                    count(stats.n_documents as u64),
                    stats.n_bytes as f64 / 1e6,
                    stats.hash
                ));
                for text in left_out(stats, cleaning) {
                    self.line(&format!("           {text}"));
                }
            }
            PrepareEvent::Waiting => self.line("another process prepares this corpus; waiting for it"),
            PrepareEvent::GoingOn { n_shards } => self.line(&format!("going on behind {n_shards} shards that an earlier call finished")),
            PrepareEvent::Rebuilding { damage } => self.line(&format!("warning: {damage}; writing it again")),
            PrepareEvent::Counted { done, total } => {
                self.begin("count", total, "count      [{bar:30}] {bytes}/{total_bytes}, {eta} left");
                self.bar.set_position(done);
            }
            PrepareEvent::Merges { done, total } => {
                self.merging(done as u64, total as u64);
            }
            PrepareEvent::Encoded { done, total } => {
                self.begin("encode", total, "encode     [{bar:30}] {bytes}/{total_bytes}, {eta} left");
                self.bar.set_position(done);
                if done == total {
                    self.bar.finish_and_clear();
                }
            }
            _ => {}
        }
    }

    /// Progress of a tokenizer's training.
    pub(crate) fn merging(&mut self, done: u64, total: u64) {
        self.begin("tokenizer", total, "tokenizer  [{bar:30}] {pos}/{len} merges, {eta} left");
        self.bar.set_position(done);
    }

    /// Progress of text that is read.
    pub(crate) fn reading(&mut self, done: u64, total: u64) {
        self.begin("read", total, "read       [{bar:30}] {bytes}/{total_bytes}, {eta} left");
        self.bar.set_position(done);
        if done == total {
            self.clear();
        }
    }

    /// Progress of a scored text.
    pub(crate) fn scoring(&mut self, done: u64, total: u64) {
        self.begin("score", total, "score      [{bar:30}] {pos}/{len} windows, {eta} left");
        self.bar.set_position(done);
        if done == total {
            self.bar.finish_and_clear();
        }
    }

    pub(crate) fn answering(&mut self, done: u64, total: u64) {
        self.begin("answer", total, "answer     [{bar:30}] {pos}/{len} rows, {eta} left");
        self.bar.set_position(done);
        if done == total {
            self.bar.finish_and_clear();
        }
    }

    pub(crate) fn train(&mut self, event: &TrainEvent<'_>) {
        self.draw(event);
        match event {
            TrainEvent::Started { step, steps, .. } => {
                self.begin("train", *steps, "train      [{bar:30}] {pos}/{len} {msg}");
                self.bar.set_position(*step);
                self.time = TimeLeft::new(*step, *steps);
            }
            TrainEvent::CheckpointRejected { message } => self.line(&format!("warning: {message}; using the one before")),
            TrainEvent::Step { step, loss, lr, tokens, step_s, .. } => self.step(*step, *loss, *lr, *tokens, *step_s),
            TrainEvent::Skipped { step, loss, .. } => {
                self.line(&format!("warning: the loss of step {step} is {loss:.4}, a spike: the step is not taken"));
                self.bar.set_position(*step);
            }
            TrainEvent::RolledBack { from, to, loss } => {
                self.line(&format!(
                    "warning: the loss after step {from} is {loss:.4}, a spike: back to step {to}, and on with other batches"
                ));
                self.bar.set_position(*to);
                self.last_tokens = None;
                self.time.go_back(*to);
            }
            TrainEvent::Validating { done, total } => {
                self.bar.set_message(format!("validating, {done} of {total} windows"));
            }
            TrainEvent::Validated { step, nll, is_best, .. } => {
                let bpb = nll.bits_per_byte().map_or(String::new(), |bpb| format!(", {bpb:.4} bits per byte"));
                let best = if *is_best { ", best so far" } else { "" };
                self.line(&format!("step {step:>6}  validation loss {:.4}{bpb}{best}", nll.loss()));
            }
            // The last sample and the last checkpoint are told with the results.
            TrainEvent::Sample { step, prompt, text } if *step < self.time.steps => {
                self.line(&format!("step {step:>6}  sample:\n{}", indent(&format!("{prompt}{text}"))));
            }
            TrainEvent::Saved { step, dir } if *step < self.time.steps => self.line(&format!("step {step:>6}  saved {}", dir.display())),
            _ => {}
        }
        if let TrainEvent::Step { step, .. } = event
            && *step == self.time.steps
        {
            self.bar.set_message("evaluating and saving");
        }
    }

    /// A step of the learning-rate range test.
    pub(crate) fn finding_lr(&mut self, step: u64, steps: u64, lr: f64, loss: f64) {
        self.begin("find lr", steps, "find lr    [{bar:30}] {pos}/{len} {msg}");
        self.bar.set_position(step);
        self.bar.set_message(format!("lr {lr:.1e}  loss {loss:.3}"));
        if !self.is_terminal && step.is_multiple_of(25) {
            self.line(&format!("step {step:>6}/{steps}  lr {lr:.1e}  loss {loss:.3}"));
        }
    }

    fn step(&mut self, step: u64, loss: f64, lr: f64, tokens: u64, step_s: f64) {
        let n = self.last_tokens.map_or(0, |last| tokens - last);
        self.last_tokens = Some(tokens);
        if n > 0 {
            self.recent = (self.recent.0 * 0.95 + n as f64, self.recent.1 * 0.95 + step_s);
        }
        // A mean over the last steps: one batch's loss jumps.
        self.loss = if self.loss.is_nan() { loss } else { 0.9 * self.loss + 0.1 * loss };
        let speed = if self.recent.1 > 0.0 { format!("{:.0} tokens/s", self.recent.0 / self.recent.1) } else { "- tokens/s".into() };
        let eta = self.time.left(step);
        self.bar.set_position(step);
        self.bar.set_message(format!("loss {:.3}  {speed}  {eta} left", self.loss));
        if !self.is_terminal && step.is_multiple_of(self.log_every) {
            self.line(&format!("step {step:>6}/{}  loss {:.3}  lr {lr:.2e}  {speed}  {eta} left", self.time.steps, self.loss));
        }
    }

    /// Takes the bar away, and the dashboard.
    pub(crate) fn clear(&mut self) {
        self.close_dashboard();
        self.bar.finish_and_clear();
        self.phase = "";
    }

    /// A line about the model, before training.
    pub(crate) fn model(&mut self, text: &str) {
        self.line(&format!("model      {text}"));
    }

    /// A line about the shards, after preparation.
    pub(crate) fn shards(&mut self, manifest: &kindling_data::PreparedManifest, dir: &std::path::Path, reused: bool) {
        let verb = if reused { "reused" } else { "written" };
        self.line(&format!(
            "tokens     {} to train on, {} to validate on, vocabulary {} ({}); {verb} in {}",
            count(manifest.training.n_tokens),
            count(manifest.validation.n_tokens),
            count(manifest.vocab_size as u64),
            manifest.tokenizer_kind,
            dir.display()
        ));
    }

    /// A line about the run's folder, before training.
    pub(crate) fn line_run(&mut self, dir: &std::path::Path) {
        self.line(&format!("run        {}", dir.display()));
    }
}

impl Drop for Progress {
    /// Also where a panic ends the training, what was said meanwhile is told.
    fn drop(&mut self) {
        self.close_dashboard();
    }
}

/// What of a corpus was left out, dropped or changed, each with its count.
pub(crate) fn left_out(stats: &CorpusStats, cleaning: &[StepReport]) -> Vec<String> {
    let mut texts = Vec::new();
    for (n, what) in [
        (stats.binary_skipped, "binary files left out"),
        (stats.empty_skipped, "empty files or rows left out"),
        (stats.bad_rows_skipped, "rows left out that cannot be read"),
        (stats.damaged_skipped, "damaged files left out behind the damage"),
        (stats.test_documents, "examples held out for the test"),
        (stats.test_overlaps_skipped, "examples left out because the test has their prompt"),
        (stats.lossy_files, "files had invalid UTF-8 replaced by U+FFFD"),
    ] {
        if n > 0 {
            texts.push(format!("{} {what}", count(n as u64)));
        }
    }
    for step in cleaning {
        let what = match step.step {
            CleaningStep::Newlines => "had line ends turned into \\n",
            CleaningStep::Nfc => "were composed (NFC)",
            CleaningStep::Redact => "were redacted",
            CleaningStep::StopWords => "lost stop words",
            CleaningStep::Length => "were dropped by their length",
            CleaningStep::Exact => "were dropped because another has the same text",
            CleaningStep::Near => "were dropped because another is nearly the same",
        };
        let n_documents = step.documents_dropped + step.documents_changed;
        if n_documents > 0 {
            let n_bytes = step.bytes_changed - step.bytes_dropped as i64;
            let sign = if n_bytes < 0 { "-" } else { "+" };
            let of_kinds: Vec<_> = step.redacted.iter().filter(|(_, n)| **n > 0).map(|(kind, n)| format!("{} {kind}", count(*n))).collect();
            let of_kinds = if of_kinds.is_empty() { String::new() } else { format!(": {}", of_kinds.join(", ")) };
            texts.push(format!("{} documents {what}, {sign}{} bytes{of_kinds}", count(n_documents as u64), count(n_bytes.unsigned_abs())));
        }
    }
    texts
}

/// Text set off from messages.
pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
