//! Runs that stopped and go on: interrupted, killed, finished, or changed in what may change.

use std::fs;

use kindling_tests::Lab;

#[test]
fn a_finished_run_says_so_again() {
    let lab = Lab::with_run();
    let before = lab.snapshot("runs/old");
    let speed = lab.summary("old")["tokens_per_s"].clone();
    let said = lab.run("train --resume old --threads 1").ok();
    assert!(said.out.contains("finished") || said.err.contains("finished"), "it says why nothing happens: {said}");
    assert!(said.out.contains("validation loss"), "{said}");
    assert!(!said.out.contains("sample after 20 steps:\n\n"), "an empty sample is none: {said}");
    let after = lab.snapshot("runs/old");
    let changed: Vec<_> = before.iter().filter(|(path, bytes)| after.get(*path) != Some(*bytes)).collect();
    assert!(changed.is_empty(), "files that were changed: {:?}", changed.iter().map(|(path, _)| path).collect::<Vec<_>>());
    assert_eq!(lab.summary("old")["tokens_per_s"], speed, "how fast it was trained is still known");
    // The default is the newest run.
    lab.run("train --resume").ok();
}

#[test]
fn more_steps_may_be_taken() {
    let lab = Lab::with_run();
    let first = lab.losses("old", "train");
    let said = lab.run("train --resume old --set train.steps=30 --set train.eval_every=5 --set train.micro_batch_size=2").ok();
    assert!(said.out.contains("sample after 30 steps"), "{said}");
    let losses = lab.losses("old", "train");
    assert_eq!(losses.len(), 30);
    assert_eq!(losses[..20], first[..], "the steps before are in the log as they were");
    let steps: Vec<_> = lab.losses("old", "validation").into_iter().map(|(step, _)| step).collect();
    assert_eq!(steps, [10, 20, 25, 30]);
    assert_eq!(lab.summary("old")["steps"], 30);
    assert!(lab.read("runs/old/config.toml").contains("steps = 30"));
    assert_eq!(lab.run("runs show old --json").json()["status"], "finished");
}

#[test]
fn what_would_change_the_mathematics_is_refused() {
    let lab = Lab::with_run();
    lab.check_errors(&[
        ("train --resume old --set train.lr=0.5", &["cannot resume", "`train.lr = 0.5`", "`train.lr = 0.01`"]),
        ("train --resume old --set train.steps=40 --set train.batch_size=8", &["`train.batch_size = 8`", "`train.batch_size = 4`"]),
        ("train --resume old --set model.n_layers=2", &["`model.n_layers = 2`", "`model.n_layers = 1`"]),
        ("train --resume old --set seed=2", &["`seed = 2`", "`seed = 1`"]),
        ("train --resume old --set tokenizer.kind=char", &["`tokenizer.kind = \"char\"`", "`tokenizer.kind = \"bpe\"`"]),
        ("train --resume old --set train.optimizer=muon", &["`train.optimizer = \"muon\"`", "missing"]),
        ("train --resume old --set train.schedule=wsd", &["`train.schedule = \"wsd\"`", "missing"]),
        ("train --resume old --set train.ema=0.9", &["`train.ema = 0.9`", "missing"]),
        ("train --resume old --set data.order=epoch", &["`data.order = \"epoch\"`", "missing"]),
        ("train --resume old --set data.document_mask=true", &["`data.document_mask = true`", "missing"]),
        // Twenty steps have been taken; the run cannot have taken ten.
        ("train --resume old --set train.steps=10", &["10", "20"]),
        ("train --resume old --set train.steps=0", &["`train.steps` is 0"]),
    ]);
}

#[test]
fn a_configuration_that_was_edited_is_compared_with_the_checkpoints() {
    let lab = Lab::with_run();
    let config = lab.read("runs/old/config.toml");
    lab.write("runs/old/config.toml", config.replace("lr = 0.01", "lr = 0.5"));
    lab.run("train --resume old --set train.steps=40").fails(&["cannot resume", "`train.lr = 0.5`", "`train.lr = 0.01`"]);
    lab.write("runs/old/config.toml", config);
    lab.run("train --resume old --set train.steps=40").ok();
}

#[test]
fn names_paths_and_latest() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name new").ok();
    let absolute = lab.path("runs/new").display().to_string();
    for (i, run) in ["new", "latest", "runs/new", "./runs/new/", &absolute, ""].iter().enumerate() {
        let steps = 21 + i;
        lab.run(&format!("train --resume {run} --set train.steps={steps}")).ok();
        assert_eq!(lab.summary("new")["steps"], steps, "`{run}`");
    }
    assert_eq!(lab.summary("old")["steps"], 20);
}

/// Runs long enough that a signal meets them in the middle: a second or two.
#[cfg(unix)]
mod signals {
    use std::process::{Child, Command};

    use kindling_tests::Said;

    use super::*;

    const STEPS: u64 = 1500;

    fn long(name: &str, options: &str) -> String {
        format!(
            "TRAIN --name {name} --quiet --set train.steps={STEPS} --set train.checkpoint_every=100 --set train.eval_every=500 {options}"
        )
    }

    fn send(signal: &str, child: &Child) {
        let status = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().expect("a shell");
        assert!(status.success(), "the process was there to get SIG{signal}");
    }

    /// Everything that `cut` and `whole` have computed is equal, bit by bit.
    fn check_equal(lab: &Lab, cut: &str, whole: &str) {
        let losses = lab.losses(whole, "train");
        assert_eq!(losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
        for kind in ["train", "validation"] {
            let (cut, whole) = (lab.losses(cut, kind), lab.losses(whole, kind));
            let first = cut.iter().zip(&whole).find(|(a, b)| a != b);
            assert!(
                first.is_none() && cut.len() == whole.len(),
                "{kind}: {} rows, {} expected, first different: {first:?}",
                cut.len(),
                whole.len()
            );
        }
        let path = |run: &str, file: &str| lab.path(&format!("runs/{run}/checkpoints/step-{STEPS:08}/{file}"));
        for file in ["model.safetensors", "optimizer.safetensors", "config.toml"] {
            let read = |run: &str| fs::read(path(run, file)).expect("the last checkpoint");
            assert!(read(cut) == read(whole), "{file}");
        }
        // All but how long it took.
        let state = |run: &str| {
            let text = fs::read_to_string(path(run, "state.json")).expect("the last checkpoint");
            let mut state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert!(state.as_object_mut().expect("an object").remove("seconds").is_some_and(|seconds| seconds.as_f64() > Some(0.0)));
            state
        };
        assert_eq!(state(cut), state(whole));
        assert_eq!(lab.names(&format!("runs/{cut}/best")), lab.names(&format!("runs/{whole}/best")));
        assert_eq!(lab.summary(cut)["best"], lab.summary(whole)["best"]);
    }

    #[test]
    fn interrupted() {
        let lab = Lab::new();
        lab.run(&long("whole", "")).ok();
        for signal in ["INT", "TERM"] {
            let name = format!("cut-by-{signal}");
            let child = lab.spawn(&long(&name, ""));
            lab.wait_for_rows(&name, 50);
            send(signal, &child);
            let said = Said::new(signal, child.wait_with_output().expect("it ends"));
            assert_eq!(said.code, 130, "{said}");
            // Everything up to the step that it ended with is saved.
            let step = lab.losses(&name, "train").last().expect("rows").0;
            assert!(said.out.contains(&format!("stopped after step {step}")), "{said}");
            assert!(lab.path(&format!("runs/{name}/checkpoints/step-{step:08}/checkpoint.json")).is_file());
            assert!((50..STEPS).contains(&step), "in the middle: {step}");
            assert_eq!(lab.run(&format!("runs show {name} --json")).json()["status"], "interrupted");

            let (_, command) = said.out.split_once("go on with: ").unwrap_or_else(|| panic!("no command: {said}"));
            let said = lab.shell(command.trim()).ok();
            assert!(said.out.contains(&format!("sample after {STEPS} steps")), "{said}");
            check_equal(&lab, &name, "whole");
        }
    }

    #[test]
    fn interrupted_where_it_goes_back_from_spikes() {
        let lab = Lab::new();
        // What is saved because of the interrupt is not gone back to.
        let guard = "--set train.spike_guard.action=rollback --set train.spike_guard.sigmas=3.2 --set train.keep_checkpoints=1 --set train.checkpoint_every=500";
        lab.run(&long("whole", guard)).ok();
        assert!(lab.read("runs/whole/metrics.jsonl").contains("\"kind\":\"rollback\""), "it goes back at all");
        let child = lab.spawn(&long("cut", guard));
        lab.wait_for_rows("cut", 520);
        send("INT", &child);
        let said = Said::new("INT", child.wait_with_output().expect("it ends"));
        assert_eq!(said.code, 130, "{said}");
        lab.run("train --resume cut --threads 1 --quiet").ok();
        check_equal(&lab, "cut", "whole");
    }

    #[test]
    fn interrupted_with_json() {
        let lab = Lab::new();
        let child = lab.spawn(&long("cut", "--json"));
        lab.wait_for_rows("cut", 20);
        send("INT", &child);
        let said = Said::new("train --json", child.wait_with_output().expect("it ends"));
        assert_eq!(said.code, 130, "{said}");
        let value: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
        assert_eq!(value.as_object().expect("an object").keys().collect::<Vec<_>>(), ["run", "dir", "stopped_at_step", "resume"]);
        let step = lab.losses("cut", "train").last().expect("rows").0;
        assert_eq!((&value["run"], &value["stopped_at_step"]), (&"cut".into(), &step.into()));
        lab.shell(value["resume"].as_str().expect("a command")).ok();
    }

    #[test]
    fn killed() {
        let lab = Lab::new();
        // Batches that are not made as by default go on as well.
        let batches = "--set data.order=epoch --set data.document_mask=true";
        lab.run(&long("whole", batches)).ok();
        let mut child = lab.spawn(&long("cut", batches));
        lab.wait_for_rows("cut", 250);
        send("KILL", &child);
        assert_eq!(child.wait().expect("it ends").code(), None);
        // A log that ends within a row, as a crash of the system can leave it.
        let log = lab.read("runs/cut/metrics.jsonl");
        lab.write("runs/cut/metrics.jsonl", &log[..log.len() - 20]);
        // What it leaves if it dies while it writes.
        lab.write("runs/cut/checkpoints/.writing-x1y2z3/model.safetensors", "half");
        // The lock was the process's own, and went with it.
        lab.run("train --resume cut --quiet").ok();
        check_equal(&lab, "cut", "whole");
        let hidden = |name: &String| name.starts_with('.');
        assert!(!lab.names("runs/cut/checkpoints").iter().any(hidden), "nothing half-written is left");
    }

    #[test]
    fn killed_before_the_first_checkpoint() {
        let lab = Lab::with_run();
        let rare = "--set train.checkpoint_every=1000000 --set train.eval_every=1000000";
        lab.run(&long("whole", rare)).ok();
        let mut child = lab.spawn(&long("cut", rare));
        lab.wait_for_rows("cut", 20);
        send("KILL", &child);
        assert_eq!(child.wait().expect("it ends").code(), None);
        lab.check_errors(&[("generate cut", &["`cut`", "checkpoint", "--resume"]), ("eval cut --text text.txt", &["`cut`", "checkpoint"])]);
        lab.run("runs show cut").ok();
        lab.run("train --resume cut --quiet").ok();
        check_equal(&lab, "cut", "whole");
    }

    #[test]
    fn a_second_interrupt_ends_it_at_once() {
        let lab = Lab::new();
        let mut child = lab.spawn("TRAIN --name cut --quiet --set train.steps=1000000 --set train.checkpoint_every=1000000");
        lab.wait_for_rows("cut", 20);
        // Where the first has ended it before the second comes, there is nobody to send it to.
        let script = format!("kill -INT {0}; kill -INT {0} 2>&1 || true", child.id());
        Command::new("sh").args(["-c", &script]).status().expect("a shell");
        assert_eq!(child.wait().expect("it ends").code(), Some(130));
        let steps = lab.losses("cut", "train").len() + 5;
        lab.run(&format!("train --resume cut --set train.steps={steps} --quiet")).ok();
        assert_eq!(lab.losses("cut", "train").len(), steps);
    }
}
