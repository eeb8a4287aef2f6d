//! What the dashboard shows of each event of a training. Knows nothing of terminals.

use kindling_config::RunConfig;
use kindling_train::{Speed, TrainEvent, mfu, resident_memory_bytes};

use crate::output::{count, mebibytes};
use crate::progress::TimeLeft;

const LOSS: &str = "Loss";
const SPEED: &str = "Tokens/s";
const MFU: &str = "MFU";
const LR: &str = "Learning rate";
const GRAD_NORM: &str = "Gradient norm";
const MEMORY: &str = "Memory";
/// The curves, in the order of their tabs.
pub(super) const CURVES: [&str; 6] = [LOSS, SPEED, MFU, LR, GRAD_NORM, MEMORY];

/// How far the training has come.
pub(super) const STEP: &str = "Step";
const WARNING: &str = "Warning";
const SAMPLE: &str = "Sample";
/// What has no curve.
pub(super) const TEXTS: [&str; 3] = [STEP, WARNING, SAMPLE];

/// Seconds of steps between two points of a curve at first: to tell the renderer of one takes as long as a step of a tiny model.
const POINT_S: f64 = 0.1;
/// Points after which that time doubles. The renderer shows no more at once, and what waits for a terminal that takes nothing more
/// must not fill the memory.
const POINTS_TO_DOUBLE: i32 = 1000;
/// Characters of a sample that are shown.
const SHOWN: usize = 600;

/// Which of the two splits something is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    Train,
    Validation,
}

impl Split {
    /// As burn-train names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "valid",
        }
    }
}

/// One thing that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Drawn {
    /// Steps of training or windows of validation, with a line about it.
    Progress { split: Split, done: u64, total: u64, text: Option<String> },
    /// The next point of a curve, or a gap in it, and the figure in words.
    Point { split: Split, curve: &'static str, value: Option<f64>, text: String },
    /// A text in place of the last of its name.
    Text { name: &'static str, text: String },
    /// One more of something that is counted.
    Count(&'static str),
}

/// What is remembered between events.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// What is trained, and the best speed of matrix products where that is done, in FLOP/s.
    trained: Option<(RunConfig, f64)>,
    time: TimeLeft,
    /// Steps that were taken before this start.
    first_step: u64,
    /// The furthest that the steps of this start have come.
    done: u64,
    /// Points stand at multiples of so many steps.
    log_every: u64,
    /// Points up to now, and seconds of steps since the last.
    paced: (i32, f64),
    speed: Speed,
    /// Sum and count of the losses since the last point.
    losses: (f64, u64),
}

impl Figures {
    /// What is to be drawn of an event.
    pub(super) fn of(&mut self, event: &TrainEvent<'_>) -> Vec<Drawn> {
        match event {
            TrainEvent::Started { step, steps, config, matmul_peak } => {
                self.trained = Some(((*config).clone(), *matmul_peak));
                (self.time, self.first_step) = (TimeLeft::new(*step, *steps), *step);
                self.log_every = config.train.log_every as u64;
                // There is nothing to wait for before the first.
                self.paced = (0, f64::INFINITY);
                vec![self.steps(*step)]
            }
            TrainEvent::Step { step, loss, lr, grad_norm, tokens, step_s } => {
                self.speed.count(*tokens, *step_s);
                self.losses = (self.losses.0 + loss, self.losses.1 + 1);
                self.paced.1 += step_s;
                let mut drawn = Vec::new();
                let wait_s = POINT_S * 2_f64.powi(self.paced.0 / POINTS_TO_DOUBLE);
                if *step == self.time.steps || step.is_multiple_of(self.log_every) && self.paced.1 >= wait_s {
                    self.paced = (self.paced.0 + 1, 0.0);
                    drawn = self.points(*lr, *grad_norm);
                }
                drawn.push(self.steps(*step));
                drawn
            }
            TrainEvent::Skipped { step, loss, tokens, step_s } => {
                self.speed.count(*tokens, *step_s);
                let text = format!("the loss of step {step} is {loss:.4}, a spike: the step is not taken");
                vec![Drawn::Text { name: WARNING, text }, Drawn::Count("Warnings"), self.steps(*step)]
            }
            TrainEvent::RolledBack { from, to, loss } => {
                self.speed.go_back();
                self.time.go_back(*to);
                let text = format!("the loss after step {from} is {loss:.4}, a spike: back to step {to}");
                vec![Drawn::Text { name: WARNING, text }, Drawn::Count("Warnings"), self.steps(*to)]
            }
            TrainEvent::Validating { done, total } => {
                vec![Drawn::Progress { split: Split::Validation, done: *done, total: *total, text: None }]
            }
            TrainEvent::Validated { step, nll, is_best, .. } => {
                let best = if *is_best { ", the best so far" } else { "" };
                let text = format!("{:.4} at step {step}{best}", nll.loss());
                vec![Drawn::Point { split: Split::Validation, curve: LOSS, value: Some(nll.loss()), text }, self.steps(*step)]
            }
            TrainEvent::Sample { prompt, text, .. } => {
                // Control characters would be commands to the terminal.
                let text = format!("{prompt}{text}").chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
                vec![Drawn::Text { name: SAMPLE, text }]
            }
            TrainEvent::Saved { .. } => vec![Drawn::Count("Checkpoints")],
            _ => Vec::new(),
        }
    }

    /// The next point of every curve.
    fn points(&mut self, lr: f64, grad_norm: f64) -> Vec<Drawn> {
        let (sum, n) = std::mem::take(&mut self.losses);
        let loss = sum / n as f64;
        let speed = self.speed.take();
        let unknown = || "-".to_owned();
        let used = speed.zip(self.trained.as_ref()).map(|(speed, (config, peak))| (100.0 * mfu(config, speed, *peak), peak / 1e9));
        let memory = resident_memory_bytes();
        let point = |curve, value, text| Drawn::Point { split: Split::Train, curve, value, text };
        vec![
            point(LOSS, Some(loss), format!("{loss:.4}")),
            point(SPEED, speed, speed.map_or_else(unknown, |speed| count(speed.round() as u64))),
            point(MFU, used.map(|(mfu, _)| mfu), used.map_or_else(unknown, |(mfu, peak)| format!("{mfu:.1} % of {peak:.0} GFLOP/s"))),
            point(LR, Some(lr), format!("{lr:.2e}")),
            point(GRAD_NORM, Some(grad_norm), format!("{grad_norm:.3}")),
            point(MEMORY, memory.map(|bytes| bytes as f64 / f64::from(1 << 20)), memory.map_or_else(unknown, mebibytes)),
        ]
    }

    /// How far the steps have come. The renderer's estimate cannot bear that they become fewer, as when the run went back.
    fn steps(&mut self, step: u64) -> Drawn {
        let steps = self.time.steps;
        self.done = self.done.max(step.saturating_sub(self.first_step));
        let text = format!("{} of {}, {} left", count(step), count(steps), self.time.left(step));
        Drawn::Progress { split: Split::Train, done: self.done, total: steps.saturating_sub(self.first_step).max(1), text: Some(text) }
    }
}

#[cfg(test)]
mod tests {
    use kindling_config::RunConfig;
    use kindling_metrics::Nll;

    use super::*;

    const PEAK: f64 = 1e9;

    fn started(step: u64, steps: u64, log_every: usize) -> (Figures, Vec<Drawn>, RunConfig) {
        let overrides = ["model.vocab_size=512".to_owned(), format!("train.log_every={log_every}")];
        let config =
            RunConfig::from_toml(include_str!("../../../../configs/spark.toml"), "spark.toml", &overrides).expect("a valid config");
        let mut figures = Figures::default();
        let drawn = figures.of(&TrainEvent::Started { step, steps, config: &config, matmul_peak: PEAK });
        (figures, drawn, config)
    }

    fn step(step: u64, loss: f64) -> TrainEvent<'static> {
        TrainEvent::Step { step, loss, lr: 1e-3, grad_norm: 0.5, tokens: 100 * step, step_s: 0.5 }
    }

    fn progress(drawn: &[Drawn]) -> Vec<(Split, u64, u64)> {
        let of = |drawn: &Drawn| match drawn {
            Drawn::Progress { split, done, total, .. } => Some((*split, *done, *total)),
            _ => None,
        };
        drawn.iter().filter_map(of).collect()
    }

    /// The points of a curve, as they were drawn.
    fn points(drawn: &[Drawn], curve: &str) -> Vec<(Split, Option<f64>)> {
        let of = |drawn: &Drawn| match drawn {
            Drawn::Point { split, curve: name, value, .. } if *name == curve => Some((*split, *value)),
            _ => None,
        };
        drawn.iter().filter_map(of).collect()
    }

    #[test]
    fn a_point_stands_for_the_steps_since_the_last() {
        let (mut figures, _, config) = started(0, 100, 2);
        assert!(points(&figures.of(&step(1, 4.0)), LOSS).is_empty());
        let first = figures.of(&step(2, 2.0));
        assert_eq!(points(&first, LOSS), [(Split::Train, Some(3.0))]);
        assert_eq!(points(&first, SPEED), [(Split::Train, Some(200.0))]);
        let used = 100.0 * mfu(&config, 200.0, PEAK);
        assert_eq!(points(&first, MFU), [(Split::Train, Some(used))]);
        figures.of(&step(3, 1.0));
        let second = figures.of(&step(4, 2.0));
        assert_eq!(points(&second, LOSS), [(Split::Train, Some(1.5))]);
        for curve in CURVES {
            assert_eq!(points(&second, curve).len(), 1, "{curve}: all curves have the same points");
        }
    }

    #[test]
    fn what_is_not_known_yet_is_a_gap() {
        let (mut figures, ..) = started(0, 100, 1);
        let drawn = figures.of(&step(1, 4.0));
        assert_eq!((points(&drawn, SPEED), points(&drawn, MFU)), (vec![(Split::Train, None)], vec![(Split::Train, None)]));
        assert_eq!(points(&drawn, LOSS), [(Split::Train, Some(4.0))]);
    }

    #[test]
    fn points_come_with_time_however_many_steps_there_may_be() {
        let check = |n_steps: u64, step_s: f64, expected: std::ops::RangeInclusive<usize>| {
            let (mut figures, ..) = started(0, 1_000_000_000, 1);
            let step = |n| TrainEvent::Step { step: n, loss: 1.0, lr: 1e-3, grad_norm: 0.5, tokens: 100 * n, step_s };
            let n = (1..=n_steps).filter(|n| !points(&figures.of(&step(*n)), LOSS).is_empty()).count();
            assert!(expected.contains(&n), "{n_steps} steps of {step_s} s: {n}");
        };
        check(100, 10.0, 100..=100);
        // Ten a second, and the first.
        check(1000, 0.001, 10..=11);
        // 1000 in 100 s, the next in 200 s, and so on: 10 hours are between 8 and 9 doublings.
        check(360_000, 0.1, 8000..=9000);
    }

    #[test]
    fn the_last_step_has_a_point() {
        let (mut figures, ..) = started(0, 5, 2);
        figures.of(&step(4, 1.0));
        assert_eq!(points(&figures.of(&step(5, 1.0)), LOSS).len(), 1);
    }

    #[test]
    fn the_steps_of_a_resumed_run_count_from_where_it_goes_on() {
        let (mut figures, drawn, _) = started(40, 100, 1);
        assert_eq!(progress(&drawn), [(Split::Train, 0, 60)]);
        let drawn = figures.of(&step(43, 1.0));
        assert_eq!(progress(&drawn), [(Split::Train, 3, 60)]);
        let Some(Drawn::Progress { text: Some(text), .. }) = drawn.last() else { panic!("{drawn:?}") };
        assert!(text.starts_with("43 of 100, "), "{text}");
        // Going back takes nothing away, and what is left of a finished run is nothing.
        let drawn = figures.of(&TrainEvent::RolledBack { from: 43, to: 41, loss: f64::NAN });
        assert_eq!(progress(&drawn), [(Split::Train, 3, 60)]);
        assert!(drawn.contains(&Drawn::Count("Warnings")));
        assert_eq!(progress(&started(100, 100, 1).1), [(Split::Train, 0, 1)]);
    }

    #[test]
    fn validation_has_its_own_progress_and_its_own_curve_of_the_loss() {
        let (mut figures, ..) = started(0, 100, 1);
        figures.of(&step(10, 1.0));
        assert_eq!(progress(&figures.of(&TrainEvent::Validating { done: 3, total: 7 })), [(Split::Validation, 3, 7)]);
        let nll = Nll { nats: 20.0, tokens: 10, ..Nll::default() };
        let drawn = figures.of(&TrainEvent::Validated { step: 10, nll, standard_error: None, is_best: true });
        assert_eq!(points(&drawn, LOSS), [(Split::Validation, Some(2.0))]);
        assert_eq!(progress(&drawn), [(Split::Train, 10, 100)]);
    }

    #[test]
    fn a_sample_commands_no_terminal() {
        let (mut figures, ..) = started(0, 100, 1);
        let text = format!("a\n\x1b[2J{}", "x".repeat(10_000));
        let drawn = figures.of(&TrainEvent::Sample { step: 1, prompt: "> ", text: &text });
        let [Drawn::Text { name: SAMPLE, text }] = &drawn[..] else { panic!("{drawn:?}") };
        assert!(text.starts_with("> a  [2Jxx") && text.len() == SHOWN, "{text}");
    }
}
