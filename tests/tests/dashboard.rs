//! Training on a terminal: where there is a dashboard, how its keys end it, and that the terminal is given back.
#![cfg(unix)]

use kindling_tests::{Lab, OnTerminal};

// Commands to a terminal: to the other screen, the cursor is shown, back to the first screen.
const TAKEN: &str = "\x1b[?1049h";
const CURSOR: &str = "\x1b[?25h";
const GIVEN: &str = "\x1b[?1049l";
const SIZE: (u16, u16) = (24, 80);
/// Steps for longer than any test takes.
const LONG: &str = "TRAIN --name a --set train.steps=100000000 --set train.eval_every=1000000 --set train.checkpoint_every=1000000";

/// What stands on the first screen after the other one was there.
fn behind(written: &str) -> &str {
    assert!(written.contains(TAKEN), "there was a dashboard: {written:?}");
    let (_, behind) = written.rsplit_once(GIVEN).unwrap_or_else(|| panic!("the screen is given back: {written:?}"));
    assert!(behind.contains(CURSOR), "the cursor is there again: {behind:?}");
    assert!(!behind.contains("panic") && !behind.contains("internal error"), "{behind}");
    behind
}

#[test]
fn training_is_shown_and_then_told() {
    let lab = Lab::new();
    let (code, written) = OnTerminal::new(&lab, "TRAIN --name a", SIZE, "xterm").end();
    let told = behind(&written);
    assert_eq!(code, 0, "{told}");
    // What a bar would have stood under, and the results.
    for text in ["step     10  validation loss", "step     10  saved ", "validation loss ", "MFU ", "kindling generate a"] {
        assert!(told.contains(text), "{text}: {told}");
    }
    // It is the run that it would have been without.
    lab.run("TRAIN --name b").ok();
    assert_eq!(lab.losses("a", "train"), lab.losses("b", "train"));
}

#[test]
fn there_is_none_where_it_has_no_place() {
    for (size, term, options) in [
        ((10, 80), "xterm", ""),
        ((24, 20), "xterm", ""),
        (SIZE, "dumb", ""),
        (SIZE, "xterm", "--no-dashboard"),
        (SIZE, "xterm", "--json"),
        (SIZE, "xterm", "--quiet"),
    ] {
        let lab = Lab::new();
        let (code, written) = OnTerminal::new(&lab, &format!("TRAIN {options}"), size, term).end();
        assert!(code == 0 && !written.contains(TAKEN), "{size:?} {term} {options}: {written}");
        assert!(written.contains("validation"), "{written}");
    }
}

/// Stops a long run in some way, and looks at what is left.
fn check_stop(stop: impl FnOnce(&OnTerminal)) {
    let lab = Lab::new();
    let shown = OnTerminal::new(&lab, LONG, SIZE, "xterm");
    lab.wait_for_rows("a", 50);
    shown.wait_for(TAKEN);
    stop(&shown);
    let (code, written) = shown.end();
    let told = behind(&written);
    assert_eq!(code, 130, "{told}");
    assert!(told.contains("stopped after step ") && told.contains("--resume a"), "{told}");
    let saved = lab.names("runs/a/checkpoints");
    assert_eq!(saved.len(), 1, "{saved:?}");
    // It goes on from there.
    let step: u64 = saved[0].trim_start_matches("step-").parse().expect("a step");
    lab.run(&format!("train --threads 1 --runs-dir runs --resume a --set train.steps={}", step + 5)).ok();
}

#[test]
fn stopped_by_the_menu() {
    check_stop(|shown| {
        shown.press("q");
        shown.wait_for("Stop the training immediately.");
        shown.press("s");
    });
}

#[test]
fn killed_by_the_menu() {
    check_stop(|shown| {
        shown.press("q");
        shown.wait_for("Stop the training immediately.");
        shown.press("k");
    });
}

#[test]
fn stopped_by_ctrl_c() {
    check_stop(|shown| shown.press("\x03"));
}

#[test]
fn stopped_from_outside() {
    check_stop(|shown| {
        let status = std::process::Command::new("kill").arg(shown.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()));
    });
}

#[test]
fn a_window_that_is_closed_costs_nothing() {
    let lab = Lab::new();
    let shown = OnTerminal::new(&lab, LONG, SIZE, "xterm");
    lab.wait_for_rows("a", 50);
    shown.wait_for(TAKEN);
    // An exit, though not the one of a stop: the results could not be told to anybody.
    assert!(shown.hang_up().is_some(), "no signal ends it");
    assert_eq!(lab.names("runs/a/checkpoints").len(), 1);
}

#[test]
fn what_was_held_back_is_told_also_by_a_second_ctrl_c() {
    let lab = Lab::new();
    let shown = OnTerminal::new(&lab, &LONG.replace("eval_every=1000000", "eval_every=10"), SIZE, "xterm");
    lab.wait_for_rows("a", 50);
    shown.wait_for(TAKEN);
    // Whether the second comes in time or not, nothing is lost.
    shown.press("\x03\x03");
    let (code, written) = shown.end();
    assert_eq!(code, 130);
    assert!(behind(&written).contains("step     10  validation loss"), "{written:?}");
}

#[test]
fn stopped_on_a_terminal_that_has_become_tiny() {
    check_stop(|shown| {
        for size in [(1, 1), (3, 200), (60, 2), (50, 160), (5, 20)] {
            shown.resize(size);
            // The next curve, in the next kind of plot.
            shown.press("\x1b[C\x1b[B");
        }
        shown.press("\x03");
    });
}

#[test]
fn an_error_is_told_on_the_screen_that_was_there_before() {
    let lab = Lab::new();
    let line = "TRAIN --name a --set train.lr=1e6 --set train.grad_clip=0 --set train.warmup_steps=0 --set train.steps=1000";
    let (code, written) = OnTerminal::new(&lab, line, SIZE, "xterm").end();
    let told = behind(&written);
    assert!(code == 1 && told.contains("error: ") && told.contains("hint: "), "{told}");
}
