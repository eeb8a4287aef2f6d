//! How a run is trained and when it ends, by the keys of its configuration.

use kindling_tests::Lab;
use serde_json::Value;

/// The rows of a run's log of a kind.
fn rows(lab: &Lab, run: &str, kind: &str) -> Vec<Value> {
    let log = lab.read(&format!("runs/{run}/metrics.jsonl"));
    let rows = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row is JSON"));
    rows.filter(|row| row["kind"] == kind).collect()
}

fn checkpoints(lab: &Lab, run: &str) -> Vec<String> {
    lab.names(&format!("runs/{run}/checkpoints")).into_iter().map(|name| name.trim_start_matches("step-0").to_owned()).collect()
}

#[test]
fn every_optimizer_and_schedule_learns() {
    let lab = Lab::new();
    for (optimizer, lr) in [("adamw", 0.01), ("muon", 0.01), ("lion", 0.001), ("sgd", 0.1)] {
        for schedule in ["cosine", "linear", "constant", "wsd"] {
            let name = format!("{optimizer}-{schedule}");
            let min = lr / 10.0;
            lab.run(&format!(
                "TRAIN --name {name} --set train.steps=60 --set train.optimizer={optimizer} --set train.schedule={schedule} --set train.lr={lr} --set train.min_lr={min}"
            ))
            .ok();
            let losses = lab.loss_values(&name);
            let (first, last) = (losses[0], losses[50..].iter().sum::<f64>() / 10.0);
            assert!(last < first - 0.3, "{name}: {first} to {last}");
            let lrs: Vec<f64> = rows(&lab, &name, "train").iter().map(|row| row["lr"].as_f64().expect("a rate")).collect();
            let end = if schedule == "constant" { lr } else { lr / 4.0 };
            assert!(
                lrs[2..].iter().all(|found| *found <= lr) && lrs[59] <= end && (lrs[40] == lr) == matches!(schedule, "constant" | "wsd"),
                "{name}: {lrs:?}"
            );
        }
    }
}

#[test]
fn budgets_end_a_run() {
    let lab = Lab::new();
    // A step has 4 sequences of 16 tokens.
    let said = lab.run("TRAIN --name tokens --set train.max_tokens=500").ok();
    assert!(said.out.contains("train.max_tokens=1000"), "how to go on: {said}");
    assert_eq!(lab.summary("tokens")["steps"], 8);
    assert_eq!(
        rows(&lab, "tokens", "train").last().expect("rows")["lr"].as_f64().map(|lr| lr < 0.002),
        Some(true),
        "the schedule ends there"
    );
    lab.run("train --resume tokens --set train.max_tokens=1000").ok();
    assert_eq!(lab.summary("tokens")["steps"], 16);

    lab.run("TRAIN --name flops --set train.max_flops=1e7").ok();
    let steps = lab.summary("flops")["steps"].as_u64().expect("a number");
    assert!((2..20).contains(&steps), "{steps}");
    assert_eq!(lab.summary("flops")["ended"], "steps");

    let said = lab.run("TRAIN --name hours --set train.steps=100000000 --set train.max_hours=0.00005").ok();
    assert!(said.out.contains("`train.max_hours` is over"), "{said}");
    assert_eq!(lab.summary("hours")["ended"], "hours");
    assert!(lab.run("train --resume hours").ok().err.contains("finished"));
    lab.check_errors(&[
        ("TRAIN --name new --set train.max_tokens=0", &["`train.max_tokens` is 0"]),
        ("TRAIN --name new --set train.max_flops=-1", &["`train.max_flops` is -1"]),
        ("TRAIN --name new --set train.max_hours=0", &["`train.max_hours` is 0"]),
    ]);
}

#[test]
fn a_run_that_becomes_no_better_ends() {
    let lab = Lab::new();
    // Weights that jump about learn nothing.
    let line = "TRAIN --name cut --set train.steps=400 --set train.eval_every=5 --set train.optimizer=sgd --set train.lr=20 --set train.patience=3";
    let said = lab.run(line).ok();
    assert!(said.out.contains("no better for `train.patience` evaluations"), "{said}");
    let summary = lab.summary("cut");
    let (steps, best) = (summary["steps"].as_u64().expect("steps"), summary["best"][1].as_u64().expect("a step"));
    assert_eq!(summary["ended"], "patience");
    assert_eq!(steps, best + 15);
    assert!(lab.run("train --resume cut").ok().err.contains("finished"));
    lab.run("train --resume cut --set train.patience=4").ok();
    assert_ne!(lab.summary("cut")["steps"], steps);
}

#[test]
fn checkpoints_are_kept_for_good_every_so_often() {
    let lab = Lab::new();
    lab.run("TRAIN --name a --set train.checkpoint_every=2 --set train.keep_checkpoints=2 --set train.keep_every=6").ok();
    assert_eq!(checkpoints(&lab, "a"), ["0000006", "0000012", "0000018", "0000020"]);
}

#[test]
fn the_average_of_the_weights_is_what_is_used() {
    let lab = Lab::new();
    lab.run("TRAIN --name plain").ok();
    lab.run("TRAIN --name ema --set train.ema=0.9").ok();
    assert_eq!(lab.losses("plain", "train"), lab.losses("ema", "train"), "training itself is not changed");
    assert_ne!(lab.losses("plain", "validation"), lab.losses("ema", "validation"));
    let read = |path: &str| std::fs::read(lab.path(path)).expect("a checkpoint");
    let last = "checkpoints/step-00000020/model.safetensors";
    assert!(read(&format!("runs/plain/{last}")) == read(&format!("runs/ema/{last}")));
    assert!(read("runs/ema/checkpoints/step-00000020/ema.safetensors") == read("runs/ema/best/step-00000020/model.safetensors"));
}

#[test]
fn spikes_are_skipped_or_gone_back_from() {
    let lab = Lab::new();
    // Weights that hardly move, so that losses neither rise nor fall; and a little above the mean is a spike, so that there are some.
    let still = "--set train.steps=120 --set train.lr=1e-5 --set train.min_lr=1e-6";
    let guard = |action: &str, sigmas: f64| {
        format!("{still} --set train.checkpoint_every=10 --set train.spike_guard.action={action} --set train.spike_guard.sigmas={sigmas}")
    };
    let said = lab.run(&format!("TRAIN --name skip {}", guard("skip", 1.5))).ok();
    let skipped = rows(&lab, "skip", "skipped");
    assert!(!skipped.is_empty() && said.err.contains("a spike: the step is not taken"), "{said}");
    assert_eq!(skipped.len() + rows(&lab, "skip", "train").len(), 120, "every step is one or the other");

    let said = lab.run(&format!("TRAIN --name back {}", guard("rollback", 2.0))).ok();
    let back = rows(&lab, "back", "rollback");
    assert!(!back.is_empty() && said.err.contains("a spike: back to step"), "{said}");
    assert_eq!(
        rows(&lab, "back", "train").iter().map(|row| row["step"].as_u64()).collect::<Vec<_>>(),
        (1..=120).map(Some).collect::<Vec<_>>()
    );
    // Other batches than those of a run that never went back.
    lab.run(&format!("TRAIN --name plain {still}")).ok();
    let first = back[0]["step"].as_u64().expect("a step") as usize;
    let (back, plain) = (lab.losses("back", "train"), lab.losses("plain", "train"));
    assert_eq!(back[..first], plain[..first]);
    assert_ne!(back[first], plain[first]);
    lab.run(&format!("TRAIN --name never {}", guard("rollback", 0.01))).fails(&["neither skipping nor going back"]);
}

#[test]
fn what_is_added_to_the_loss_is_trained_on_and_not_validated() {
    let lab = Lab::new();
    let first = |name: &str, options: &str| {
        lab.run(&format!("TRAIN --name {name} {options}")).ok();
        lab.loss_values(name)[0]
    };
    let plain = first("plain", "");
    // A fresh model gives all 300 tokens about the same probability: ln Z is about ln 300, and smoothing changes next to nothing.
    let z = first("z", "--set train.z_loss=0.01");
    assert!((z - plain - 0.01 * 300f64.ln().powi(2)).abs() < 0.01, "{plain}, {z}");
    let smooth = first("smooth", "--set train.label_smoothing=0.1");
    assert!((smooth - plain).abs() < 0.02, "{plain}, {smooth}");
    assert!(lab.loss_values("smooth")[19] > lab.loss_values("plain")[19], "what is certain costs");
    for name in ["z", "smooth"] {
        assert_ne!(lab.losses(name, "validation"), lab.losses("plain", "validation"), "{name}");
    }
    lab.check_errors(&[
        ("TRAIN --name new --set train.label_smoothing=1", &["`train.label_smoothing` is 1"]),
        ("TRAIN --name new --set train.z_loss=-1", &["`train.z_loss` is -1"]),
    ]);
}

#[test]
fn a_learning_rate_is_found() {
    let lab = Lab::new();
    let value = lab.run("TRAIN --find-lr --json").json();
    let suggested = value["suggested"].as_f64().expect("a rate");
    assert!((1e-4..0.1).contains(&suggested), "{suggested}");
    assert!(value["points"].as_array().expect("points").len() > 50);
    let said = lab.run("TRAIN --find-lr").ok();
    assert!(said.out.contains("suggested") && said.out.contains("▇"), "{said}");
    assert!(!lab.path("runs").exists(), "no run is left");
    // And works.
    lab.run(&format!("TRAIN --name with --set train.lr={suggested} --set train.min_lr=0")).ok();
    let losses = lab.loss_values("with");
    assert!(losses[19] < losses[0] - 0.3, "{losses:?}");
}
