//! What a run tells of itself: a trace, and a verdict with the results.

use kindling_tests::Lab;
use serde_json::Value;

#[test]
fn a_profile_is_a_trace_whose_spans_nest() {
    let lab = Lab::new();
    let said = lab.run("TRAIN --name a --profile --set train.micro_batch_size=3 --set train.sample_every=10").ok();
    assert!(said.err.contains("runs/a/trace.json"), "{said}");
    let trace: Value = serde_json::from_str(&lab.read("runs/a/trace.json")).expect("JSON");
    let events = trace.as_array().expect("a list of events");
    let number = |event: &Value, key: &str| event[key].as_f64().unwrap_or_else(|| panic!("{key} of {event}"));
    // Microseconds, to the nanosecond.
    let span = |event: &Value| ((1e3 * number(event, "ts")).round(), (1e3 * (number(event, "ts") + number(event, "dur"))).round());
    let mut spans: Vec<(f64, f64, &str)> = Vec::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let (start, end) = span(event);
        spans.push((start, end, event["name"].as_str().expect("a name")));
    }
    let count = |name: &str| spans.iter().filter(|(_, _, other)| *other == name).count();
    for (name, expected) in [
        ("step", 20),
        ("data", 20),
        ("forward", 40),
        ("backward", 40),
        ("optimizer", 20),
        ("evaluation", 2),
        ("checkpoint", 2),
        ("sample", 2),
    ] {
        assert_eq!(count(name), expected, "{name}");
    }
    spans.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut open: Vec<(f64, &str)> = Vec::new();
    for (start, end, name) in spans {
        while open.last().is_some_and(|(end, _)| *end <= start) {
            open.pop();
        }
        let parent = open.last();
        assert!(parent.is_none_or(|(outer, _)| end <= *outer), "{name} ends behind {parent:?}");
        let is_part = matches!(name, "data" | "forward" | "backward" | "optimizer");
        assert_eq!(parent.map(|(_, name)| *name), is_part.then_some("step"), "{name}");
        open.push((end, name));
    }
}

#[test]
fn what_is_used_of_the_machine_is_logged() {
    let lab = Lab::new();
    let said = lab.run("TRAIN --name a").ok();
    assert!(said.out.contains("\nMFU "), "{said}");
    assert!(lab.run("runs show a --runs-dir runs").ok().out.contains("\nMFU "));
    let log = lab.read("runs/a/metrics.jsonl");
    let last = log.lines().rfind(|row| row.contains("\"kind\":\"train\"")).expect("a row of a step");
    let row: Value = serde_json::from_str(last).expect("JSON");
    assert!(row["mfu"].as_f64() > Some(0.0), "{row}");
    assert!(row["memory_bytes"].as_u64() > Some(0) || !cfg!(target_os = "linux"), "{row}");
    // The share is that of the operations of so many tokens a second in the measured speed of matrix products.
    let summary = lab.summary("a");
    let number = |key: &str| summary[key].as_f64().unwrap_or_else(|| panic!("{key} of {summary}"));
    let flops_per_token = number("mfu") * number("matmul_peak_flops_per_s") / number("tokens_per_s");
    // 6 for each of the 7,100 or so parameters that multiply, and 12·1·16·16 for attention.
    assert!((40_000.0..50_000.0).contains(&flops_per_token), "{flops_per_token}");
}

#[test]
fn a_run_that_overfits_is_told_so() {
    let lab = Lab::new();
    // Few lines, which are soon known by heart.
    lab.write("few.txt", lab.read("text.txt").lines().take(40).map(|line| format!("{line}\n")).collect::<String>());
    let line = "TRAIN_ON few.txt --name over --json --set model.d_model=64 --set model.d_ff=256 --set model.n_layers=2 --set train.steps=400 \
                --set train.batch_size=16 --set train.eval_every=20 --set train.lr=0.01 --set train.weight_decay=0";
    let value = lab.run(line).json();
    let trend = &value["verdict"]["trend"];
    assert_eq!(trend["kind"], "overfitting", "{value}");
    let best = lab.summary("over")["best"][1].as_u64().expect("a step");
    assert_eq!(trend["since"].as_u64(), Some(best));
    assert!(value["verdict"]["gap"]["nats"].as_f64().expect("a gap") > 0.2, "{value}");
    // It has learned its text by heart, and says it again.
    let memorised = &lab.summary("over")["memorised"];
    assert!(memorised["n_tokens"].as_u64() >= Some(6), "{memorised}");
    let said = lab.run("train --resume over").ok();
    assert!(said.out.contains(&format!("overfitting since step {best}")), "{said}");
    // Early stopping would have ended it.
    let stopped = lab.run(&format!("{} --set train.patience=4", line.replace("--name over", "--name stopped"))).json();
    assert_eq!(stopped["summary"]["ended"], "patience");
    assert_eq!(stopped["summary"]["best"][1].as_u64(), Some(best));
}
