//! `kindling prepare` and `kindling data audit`: corpora from pipes, held out, cleaned, and preparations that were killed.

use std::io::Write;
use std::process::Stdio;

use kindling_tests::{Lab, Said};
use serde_json::Value;

const PREPARE: &str = "prepare --data-dir data --config tiny.toml";

fn manifest(lab: &Lab) -> Value {
    serde_json::from_str(&lab.read(&format!("{}/manifest.json", lab.prepared()))).expect("JSON")
}

fn json_lines<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.map(|text| format!("{}\n", serde_json::json!({ "text": text }))).collect()
}

/// Runs a command with this on its standard input.
fn piped(lab: &Lab, line: &str, input: &str) -> Said {
    let mut command = lab.command(line);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kindling starts");
    child.stdin.take().expect("stdin is a pipe").write_all(input.as_bytes()).expect("it reads");
    Said::new(line, child.wait_with_output().expect("it ends"))
}

#[test]
fn standard_input_is_a_corpus() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    piped(&lab, &format!("{PREPARE} --data -"), &text).ok();
    assert_eq!(manifest(&lab)["corpus"]["n_bytes"], text.len());
    assert!(piped(&lab, &format!("{PREPARE} --data -"), &text).ok().out.contains("it was there"));
    let lines = json_lines(text.lines().filter(|line| !line.is_empty()));
    let report = piped(&lab, &format!("{PREPARE} --data=-.jsonl --json"), &lines).json();
    assert_eq!(report["manifest"]["corpus"]["n_documents"], lines.lines().count());
    piped(&lab, &format!("{PREPARE} --data -"), "").fails(&["holds no text"]);
    assert!(lab.names("data").iter().all(|name| !name.starts_with('.')), "{:?}", lab.names("data"));
    // A pipe by another name.
    let said = lab.shell("cat text.txt | $KINDLING prepare --data-dir data --config tiny.toml --data /dev/stdin --json").ok();
    assert_eq!(serde_json::from_str::<Value>(&said.out).expect("JSON")["manifest"]["corpus"]["n_bytes"], text.len());
}

#[test]
fn what_validates_can_be_named() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    let (train, valid) = text.split_at(text.floor_char_boundary(text.len() / 2));
    lab.write("texts/train.txt", train);
    lab.write("texts/valid.txt", valid);
    let line = "--data texts --validation-data texts/valid.txt";
    lab.run(&format!("{PREPARE} {line}")).ok();
    let prepared = manifest(&lab);
    assert_eq!([&prepared["training"]["n_bytes"], &prepared["validation"]["n_bytes"]], [train.len(), valid.len()]);
    let said = lab.run(&format!("train --threads 1 --runs-dir runs --data-dir data --config tiny.toml --name held {line}")).ok();
    assert!(said.err.contains("reused in"), "{said}");
    lab.run("train --threads 1 --resume held --set train.steps=21").ok();
}

#[test]
fn a_mixture_trains() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    lab.write("a.jsonl", json_lines(text.lines().filter(|line| !line.is_empty())));
    lab.write("b.jsonl", json_lines(text.lines().filter(|line| line.len() > 40)));
    let sources = "data.sources=[{name='a',paths=['a.jsonl'],weight=3},{name='b',paths=['b.jsonl'],weight=1}]".replace('\'', "\"");
    let said = lab.run(&format!("{PREPARE} --set '{sources}'")).ok();
    assert!(said.out.contains("75.0 % of the windows") && said.out.contains("25.0 % of the windows"), "{said}");
    lab.run(&format!("train --threads 1 --runs-dir runs --data-dir data --config tiny.toml --name mixed --set '{sources}'")).ok();
    let bad = sources.replace("weight=1", "weight=0");
    lab.run(&format!("{PREPARE} --set '{bad}'")).fails(&["data.sources.weight", "0", "above 0"]);
}

#[test]
fn cleaning_is_told() {
    let lab = Lab::new();
    let mut texts: Vec<String> = (0..40).map(|i| format!("document {i} of some words that are its own, {}", i * i)).collect();
    texts.push(texts[3].clone());
    texts.push("mail ada@example.org about it, or call her at the office".into());
    lab.write("a.jsonl", json_lines(texts.iter().map(String::as_str)));
    let clean = "--set 'data.clean.redact=[\"email\"]' --set 'data.clean.dedup=\"exact\"'";
    let said = lab.run(&format!("{PREPARE} --data a.jsonl {clean}")).ok();
    for expected in ["1 documents were redacted, -8 bytes: 1 email", "1 documents were dropped because another has the same text"] {
        assert!(said.out.contains(expected) && said.err.contains(expected), "{expected}: {said}");
    }
    let audited = lab.run("data audit --config tiny.toml --data a.jsonl").ok();
    for expected in [
        "exact      1 documents repeat",
        "a.jsonl#000000041 repeats a.jsonl#000000004",
        "1 of kind `email` in 1 documents",
        "ada",
        "overlap",
    ] {
        assert!(audited.out.contains(expected), "{expected}: {audited}");
    }
    assert!(!audited.out.contains("ada@example.org"), "{audited}");
    let report = lab.run(&format!("data audit --config tiny.toml --data a.jsonl --json {clean}")).json();
    assert_eq!((&report["exact"]["n_documents"], &report["personal"]), (&0.into(), &Value::Array(Vec::new())));
    lab.check_errors(&[
        ("data audit --config tiny.toml --data missing.txt", &["missing.txt"]),
        ("prepare --config tiny.toml --data a.jsonl --set data.clean.stop_words=[\"klingon\"]", &["klingon", "en"]),
        ("prepare --config tiny.toml --data a.jsonl --set data.clean.dedupe=\"near\"", &["dedupe", "dedup"]),
    ]);
}

#[test]
fn what_is_damaged_can_be_skipped() {
    let lab = Lab::new();
    let text = lab.read("text.txt").repeat(20);
    lab.write("all.jsonl", json_lines(text.lines().filter(|line| !line.is_empty())));
    lab.shell("gzip -9 all.jsonl && head -c $(($(wc -c < all.jsonl.gz) / 2)) all.jsonl.gz > half.jsonl.gz").ok();
    lab.run(&format!("{PREPARE} --data half.jsonl.gz")).fails(&["half.jsonl.gz` cannot be read", "--skip-bad"]);
    let said = lab.run(&format!("{PREPARE} --data half.jsonl.gz --skip-bad")).ok();
    assert!(said.out.contains("1 damaged files left out behind the damage"), "{said}");
}

#[cfg(unix)]
#[test]
fn a_preparation_that_was_interrupted_or_killed_goes_on() {
    let lab = Lab::new();
    let line = |i: usize| format!("line {i} of a text that takes a moment, {}\n", i * i % 7919);
    lab.write("long.txt", (0..400_000).map(line).collect::<String>());
    let prepare = format!("{PREPARE} --data long.txt --threads 1 --set 'tokenizer.vocab_size=1000'");
    lab.run(&prepare.replace("--data-dir data", "--data-dir whole")).ok();
    std::fs::create_dir(lab.path("data")).expect("a folder in the lab");
    for (signal, code) in [("INT", 130), ("KILL", -1)] {
        let child = lab.spawn(&prepare);
        // At the end of its work, if it was so fast.
        lab.wait_until("progress", || lab.names("data").iter().any(|name| lab.path(&format!("data/{name}/tokenizer.json")).exists()));
        let sent = lab.shell(&format!("kill -{signal} {}", child.id()));
        let said = Said::new(&prepare, child.wait_with_output().expect("it ends"));
        assert!(sent.code != 0 || said.code == 0 || said.code == code, "{said}");
        if said.code == 130 {
            assert!(said.err.contains("the same command goes on"), "{said}");
        }
    }
    lab.run(&prepare).ok();
    let files = |folder| lab.snapshot(folder).into_values().collect::<Vec<_>>();
    assert_eq!(files("data"), files("whole"));
}
