//! What can be done with a finished run: `generate`, `eval`, `runs`, and `devices`, which needs none.

use kindling_tests::Lab;
use serde_json::Value;

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap_or_else(|| panic!("an object: {value}")).keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn generated(lab: &Lab, options: &str) -> String {
    let value = lab.run(&format!("generate old --json {options}")).json();
    value["text"].as_str().expect("text").to_owned()
}

#[test]
fn generate_follows_the_seed() {
    let lab = Lab::with_run();
    let texts: Vec<_> = (0..4).map(|seed| generated(&lab, &format!("--seed {seed}"))).collect();
    for (seed, text) in texts.iter().enumerate() {
        assert_eq!(generated(&lab, &format!("--seed {seed}")), *text, "the same seed");
        assert_eq!(generated(&lab, &format!("--seed {seed} --threads 2")), *text, "on other threads");
        assert!(texts[..seed].iter().all(|other| other != text), "another seed: {texts:?}");
    }
    assert_eq!(generated(&lab, ""), texts[0], "0 unless another is given");
}

#[test]
fn generate_is_greedy_at_temperature_0() {
    let lab = Lab::with_run();
    let greedy = generated(&lab, "--temperature 0");
    for options in ["--temperature 0 --seed 7", "--top-k 1 --seed 8", "--top-p 0.000001 --seed 9", "--temperature 0 --top-k 5 --top-p 0.5"]
    {
        assert_eq!(generated(&lab, options), greedy, "{options}");
    }
    assert_ne!(generated(&lab, "--temperature 2"), greedy);
}

#[test]
fn generate_goes_on_beyond_the_context() {
    let lab = Lab::new();
    // One document of characters: no token ends the text, so exactly as many come as are asked for.
    lab.run("TRAIN --name old --set tokenizer.kind=char").ok();
    for (options, n) in [
        ("--max-new-tokens 1", 1),
        ("--max-new-tokens 100", 100),
        ("--max-new-tokens 17 --prompt 'the old river walks over the stone house'", 17),
    ] {
        let value = lab.run(&format!("generate old --json {options}")).json();
        assert_eq!((&value["new_tokens"], &value["stop_reason"]), (&n.into(), &"max_new_tokens".into()), "{options}");
        assert_eq!(value["text"].as_str().map(|text| text.chars().count()), Some(n), "{options}");
    }
}

#[test]
fn generate_writes_the_prompt_and_then_the_text() {
    let lab = Lab::with_run();
    for (options, prompt) in
        [("", "the "), ("--prompt 'a naïve '", "a naïve "), ("--prompt ''", ""), ("--prompt '☃ '", "☃ "), ("--prompt '- a'", "- a")]
    {
        let said = lab.run(&format!("generate old {options}")).ok();
        let value = lab.run(&format!("generate old --json {options}")).json();
        assert_eq!(keys(&value), ["new_tokens", "prompt", "run", "seed", "step", "stop_reason", "text"]);
        assert_eq!(
            (&value["run"], &value["prompt"], &value["step"], &value["seed"]),
            (&"old".into(), &prompt.into(), &20.into(), &0.into())
        );
        assert_eq!(said.out, format!("{prompt}{}\n", value["text"].as_str().expect("text")));
        assert_eq!(said.err, "");
    }
}

#[test]
fn eval_counts_every_byte_once() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    lab.write("eval.txt", format!("é{text}"));
    lab.write("folder/a.txt", format!("é{text}"));
    lab.write("folder/b.txt", &text);
    let len = text.len() as u64 + 2;
    for (name, line, expected) in [
        ("bpe", "TRAIN", Some(len)),
        // One document needs no token that begins it, so its first character is only looked at.
        ("char", "TRAIN --set tokenizer.kind=char", Some(len - 2)),
        ("chars", "TRAIN_ON folder --set tokenizer.kind=char", Some(len)),
        ("word", "TRAIN --set tokenizer.kind=word --set tokenizer.vocab_size=12", None),
    ] {
        lab.run(&format!("{line} --name {name}")).ok();
        let value = lab.run(&format!("eval {name} --text eval.txt --json")).json();
        assert_eq!(
            keys(&value),
            [
                "accuracy",
                "bits_per_byte",
                "bits_per_character",
                "loss",
                "n_bytes",
                "n_characters",
                "n_targets",
                "perplexity",
                "run",
                "standard_error",
                "step",
                "text",
                "top_5_accuracy"
            ]
        );
        assert_eq!(value["n_bytes"].as_u64(), expected, "{name}: {value}");
        let n_characters = text.chars().count() as u64 + u64::from(name != "char");
        assert_eq!(value["n_characters"].as_u64(), expected.map(|_| n_characters), "{name}: {value}");
        assert!(value["top_5_accuracy"].as_f64() >= value["accuracy"].as_f64(), "{value}");
        assert_eq!(value["bits_per_byte"].as_f64().is_some(), expected.is_some(), "{name}: {value}");
        let number = |key: &str| value[key].as_f64().unwrap_or_else(|| panic!("{key}: {value}"));
        assert!((number("perplexity") - number("loss").exp()).abs() < 1e-9 * number("perplexity"), "{value}");
        assert!((0.0..1.0).contains(&number("accuracy")), "{value}");
        if let Some(bytes) = expected {
            // No token but those of text is a target here.
            let bits = number("loss") * number("n_targets") / std::f64::consts::LN_2 / bytes as f64;
            assert!((number("bits_per_byte") - bits).abs() < 1e-9, "{bits}: {value}");
        }
        let said = lab.run(&format!("eval {name} --text eval.txt")).ok();
        assert!(said.out.contains(&format!("{:.4} nats a token", number("loss"))), "{said}");
    }
}

#[test]
fn eval_of_the_validation_split_is_the_validation_loss() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    // The last tenth, from a border that does not split a character.
    let border = text.floor_char_boundary((0.9 * text.len() as f64) as usize);
    lab.write("tail.txt", &text[border..]);
    // Training may round; what validates does not.
    for precision in ["f32", "bf16-emulated"] {
        lab.run(&format!("TRAIN --name {precision} --set tokenizer.kind=char --precision {precision}")).ok();
        let loss = lab.run(&format!("eval {precision} --text tail.txt --json")).json()["loss"].as_f64().expect("a number");
        let expected = lab.summary(precision)["validation_loss"].as_f64().expect("a number");
        assert!((loss - expected).abs() < 1e-12, "{precision}: {loss}, expected {expected}");
    }
}

#[test]
fn a_run_is_a_name_a_path_or_latest() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name new").ok();
    // What is done with a run does not make it the newest.
    lab.run("train --resume old --set train.steps=21").ok();
    let absolute = lab.path("runs/old").display().to_string();
    for (run, expected) in
        [("old", "old"), ("new", "new"), ("latest", "new"), ("", "new"), ("runs/old", "old"), ("./runs/old/", "old"), (&absolute, "old")]
    {
        assert_eq!(lab.run(&format!("generate --json {run}")).json()["run"], expected, "generate {run}");
        assert_eq!(lab.run(&format!("eval --json --text text.txt {run}")).json()["run"], expected, "eval {run}");
        assert_eq!(lab.run(&format!("runs show --json {run}")).json()["name"], expected, "runs show {run}");
    }
    // A path needs no folder of runs.
    assert_eq!(lab.run(&format!("--runs-dir elsewhere generate --json {absolute}")).json()["run"], "old");
}

#[test]
fn runs_are_listed_oldest_first() {
    let lab = Lab::new();
    let said = lab.run("runs list").ok();
    assert!(said.out.contains("no runs in `runs`"), "{said}");
    assert_eq!(lab.run("runs list --json").json(), Value::Array(Vec::new()));
    lab.run("TRAIN --name zebra").ok();
    lab.run("TRAIN --name ant --set model.n_layers=2").ok();
    // Neither is a run.
    lab.write("runs/notes.txt", "x");
    lab.write("runs/folder/notes.txt", "x");
    let said = lab.run("runs list").ok();
    let first: Vec<_> = said.out.lines().map(|line| line.split_whitespace().next().unwrap_or_default()).collect();
    assert_eq!(first, ["run", "zebra", "ant"]);
    let list = lab.run("runs list --json").json();
    for (value, name) in list.as_array().expect("a list").iter().zip(["zebra", "ant"]) {
        assert_eq!(keys(value), ["config", "dir", "manifest", "name", "status", "step", "summary"]);
        assert_eq!((&value["name"], &value["status"], &value["step"]), (&name.into(), &"finished".into(), &20.into()));
        assert_eq!(value["summary"], lab.summary(name));
    }
    assert_eq!(list[1]["config"]["model"]["n_layers"], 2);
}

#[test]
fn a_run_is_shown_whole() {
    let lab = Lab::with_run();
    let value = lab.run("runs show old --json").json();
    assert_eq!(keys(&value), ["config", "dir", "manifest", "metrics", "name", "status", "step", "summary"]);
    assert_eq!(value["metrics"].as_array().map(Vec::len), Some(22), "20 steps and 2 validations");
    assert_eq!(
        keys(&value["manifest"]),
        [
            "burn",
            "code_hash",
            "created_unix_ms",
            "data",
            "device",
            "format",
            "kindling",
            "lock_hash",
            "n_params",
            "name",
            "precision",
            "threads",
            "version"
        ]
    );
    assert_eq!(keys(&value["manifest"]["data"]), ["corpus_hash", "data_hash", "dir", "tokenizer_hash"]);
    assert_eq!(value["config"]["model"]["vocab_size"], 300, "the tokenizer's, as the config left it open");
    let said = lab.run("runs show old").ok();
    for fragment in ["finished, step 20 of 20", "validation loss", "bits per byte", "corpus hash", "seed"] {
        assert!(said.out.contains(fragment), "`{fragment}`: {said}");
    }
}

#[test]
fn devices_are_listed() {
    let lab = Lab::new();
    let list = lab.run("devices --json").json();
    let list = list.as_array().expect("a list");
    let names: Vec<_> = list.iter().filter_map(|device| device["name"].as_str()).collect();
    assert_eq!(names, ["flex", "ndarray", "wgpu", "vulkan", "metal", "cuda", "rocm"]);
    for device in list {
        assert_eq!(keys(device), ["build", "compiled", "found", "name"]);
    }
    let said = lab.run("devices").ok();
    assert!(names.iter().all(|name| said.out.lines().any(|line| line.starts_with(name))), "{said}");
}

#[test]
fn devices_agree() {
    let value = Lab::new().run("devices --check --json").json();
    assert_eq!(keys(&value), ["devices", "reference", "tolerance"]);
    for device in value["devices"].as_array().expect("a list") {
        assert_eq!(device["passed"], true, "{device}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let lab = Lab::new();
    for line in
        ["--help", "--version", "train --help", "generate --help", "eval --help", "runs --help", "runs list --help", "devices --help"]
    {
        let said = lab.run(line).ok();
        assert!(!said.out.is_empty() && said.err.is_empty(), "{said}");
    }
}
