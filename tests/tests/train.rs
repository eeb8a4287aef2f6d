//! `kindling train` from text to a run: corpora, tokenizers, what a run folder holds, and what the numbers depend on.

use std::fs;

use kindling_tests::{Lab, check_usage};
use serde_json::Value;

/// How many documents the corpus had, as training says it.
fn documents(said: &kindling_tests::Said) -> usize {
    let (_, rest) = said.err.split_once("corpus ").unwrap_or_else(|| panic!("no line about the corpus: {said}"));
    rest.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no count of documents: {said}"))
}

/// The commands that the final table gives as next ones. A prompt can run over several lines.
fn next_commands(out: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in out.lines().skip_while(|line| !line.starts_with("next ")) {
        match (line.strip_prefix("next ").or_else(|| line.strip_prefix("     ")), commands.last_mut()) {
            (None, Some(command)) => *command += &format!("\n{line}"),
            (start, _) => commands.push(start.unwrap_or(line).trim_start().to_owned()),
        }
    }
    commands
}

#[test]
fn one_file_gives_a_complete_run() {
    let lab = Lab::new();
    let said = lab.run("TRAIN --name one --set train.sample_every=10").ok();
    assert_eq!(documents(&said), 1);
    let (events, names): (Vec<_>, Vec<_>) = lab.names("runs/one").into_iter().partition(|name| name.starts_with("events.out.tfevents."));
    assert_eq!(events.len(), 1);
    assert_eq!(
        names,
        ["best", "checkpoints", "config.toml", "lock", "manifest.json", "metrics.jsonl", "samples.md", "summary.json", "tokenizer.json"]
    );
    assert_eq!(lab.names("runs/one/checkpoints"), ["step-00000010", "step-00000020"]);
    assert_eq!(
        lab.names("runs/one/checkpoints/step-00000020"),
        ["checkpoint.json", "config.toml", "model.safetensors", "optimizer.safetensors", "state.json"]
    );
    assert_eq!(lab.names("runs/one/best").len(), 1);
    assert_eq!(lab.names(&lab.prepared()), ["manifest.json", "tokenizer.json", "train-00000.bin", "validation-00000.bin"]);

    let losses = lab.loss_values("one");
    assert_eq!(losses.len(), 20);
    assert!(losses[19] < losses[0] - 1.0, "it learns: {losses:?}");
    let validations = lab.losses("one", "validation");
    assert_eq!(validations.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [10, 20]);
    let summary = lab.summary("one");
    assert_eq!(summary["steps"], 20);
    assert_eq!(summary["validation_loss"].to_string(), validations[1].1);
    assert_eq!(summary["tokens"], 20 * 4 * 16);
    let samples = lab.read("runs/one/samples.md");
    assert!(samples.contains("## Step 10\n") && samples.contains("## Step 20\n") && samples.contains("\nthe "), "{samples}");

    // What the user is told is what was written.
    for label in [
        "validation loss",
        "perplexity",
        "bits per byte",
        "next-token accuracy",
        "verdict",
        "gap",
        "memorised",
        "tokens/s",
        "peak memory",
        "run ",
        "next ",
    ] {
        assert!(said.out.lines().any(|line| line.starts_with(label)), "`{label}`: {said}");
    }
    assert!(said.out.contains(&format!("{:.4}", summary["validation_loss"].as_f64().expect("a number"))), "{said}");
    assert!(said.out.contains("sample after 20 steps:\n  | the "), "{said}");
}

#[test]
fn a_folder_is_split_by_whole_documents() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    for i in 1..=8 {
        lab.write(&format!("folder/sub{}/{i}.txt", i % 2), &text[..text.floor_char_boundary(700 * i)]);
    }
    // None of these is a document.
    lab.write("folder/empty.txt", "");
    lab.write("folder/binary.bin", b"a\0b");
    lab.write("folder/.hidden", "hidden");
    let said = lab.run("TRAIN_ON folder --name folder").ok();
    assert_eq!(documents(&said), 8);
    assert!(said.err.contains("1 binary file") && said.err.contains("1 empty file"), "{said}");
    let manifest: Value = serde_json::from_str(&lab.read(&format!("{}/manifest.json", lab.prepared()))).expect("JSON");
    let split = |name: &str| (manifest[name]["n_documents"].as_u64(), manifest[name]["n_bytes"].as_u64());
    let ((Some(train), Some(train_bytes)), (Some(validation), Some(validation_bytes))) = (split("training"), split("validation")) else {
        panic!("{manifest}");
    };
    assert_eq!((train + validation, train_bytes + validation_bytes), (8, manifest["corpus"]["n_bytes"].as_u64().expect("bytes")));
    assert!(validation >= 1 && validation_bytes * 10 >= train_bytes + validation_bytes, "{manifest}");
}

#[test]
fn globs_mean_what_they_mean_to_a_shell() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    for name in ["a1.txt", "a2.txt", "b1.txt", "a1.md", "sub/a3.txt", "sub/sub/a4.txt"] {
        lab.write(&format!("[texts]/{name}"), &text);
        lab.write(&format!("texts/{name}"), &text);
    }
    let in_folder = |folder: &str, data: &str| {
        let line = format!("train --threads 1 --config {} {data}", lab.path("tiny.toml").display());
        let output = lab.command(&line).current_dir(lab.path(folder)).output().expect("kindling starts");
        let said = kindling_tests::Said::new(&line, output);
        if said.code == 0 { Ok(documents(&said)) } else { Err(said.err) }
    };
    let rows = [
        (".", "--data 'texts/*.txt'", 3),
        (".", "--data 'texts/a?.txt'", 2),
        (".", "--data 'texts/{a,b}1.*'", 3),
        (".", "--data 'texts/**/*.txt'", 5),
        (".", "--data 'texts/a*.txt' --data texts/b1.txt --data texts/a1.txt", 3),
        // A folder's own name is no pattern. First the whole folder: a run in it leaves files there.
        (".", "--data '[texts]'", 6),
        ("[texts]", "--data '*.txt'", 3),
        ("texts", "--data '*.txt'", 3),
    ];
    let found = rows.map(|(folder, data, _)| (folder, data, in_folder(folder, data)));
    assert_eq!(found, rows.map(|(folder, data, expected)| (folder, data, Ok(expected))));
}

#[test]
fn a_second_run_reuses_what_the_first_prepared() {
    let lab = Lab::new();
    assert!(lab.run("TRAIN").ok().err.contains("; written in data/tiny-"));
    let data = lab.snapshot("data");
    // Neither the model nor the training changes the data.
    let said = lab.run("TRAIN --set model.n_layers=2 --set train.steps=10").ok();
    assert!(said.err.contains("; reused in data/tiny-"), "{said}");
    assert_eq!(lab.snapshot("data"), data);
    assert_eq!(lab.names("runs"), ["tiny-1", "tiny-2"]);
    // Each of these does.
    lab.write("other.txt", lab.read("text.txt").replace("river", "brook"));
    for (i, line) in
        ["TRAIN_ON other.txt", "TRAIN --set tokenizer.vocab_size=280", "TRAIN --set data.validation_fraction=0.2"].iter().enumerate()
    {
        assert!(lab.run(line).ok().err.contains("; written in data/tiny-"), "{line}");
        assert_eq!(lab.names("data").len(), i + 2);
    }
}

#[test]
fn runs_at_the_same_time_share_the_prepared_data() {
    let lab = Lab::new();
    let children: Vec<_> = (0..4).map(|i| lab.spawn(&format!("TRAIN --name at-once-{i}"))).collect();
    for child in children {
        kindling_tests::Said::new("TRAIN", child.wait_with_output().expect("it ends")).ok();
    }
    lab.prepared();
    assert_eq!(lab.names("runs").len(), 4);
    for i in 1..4 {
        assert_eq!(lab.losses(&format!("at-once-{i}"), "train"), lab.losses("at-once-0", "train"));
    }
}

#[test]
fn every_kind_of_tokenizer() {
    let lab = Lab::new();
    for (kind, options, has_bits_per_byte) in [
        ("bpe", "", true),
        ("char", "", true),
        ("word", "--set tokenizer.vocab_size=12", false),
        ("file", "--set tokenizer.path=runs/bpe/tokenizer.json", true),
    ] {
        let said = lab.run(&format!("TRAIN --name {kind} --set tokenizer.kind={kind} {options}")).ok();
        let summary = lab.summary(kind);
        assert_eq!(summary["bits_per_byte"].is_number(), has_bits_per_byte, "{kind}: {summary}");
        assert_eq!(summary["bits_per_byte"].is_null(), !has_bits_per_byte, "{kind}: {summary}");
        assert!(has_bits_per_byte || said.out.contains("bits per byte        unknown"), "{said}");
        let tokenizer: Value = serde_json::from_str(&lab.read(&format!("runs/{kind}/tokenizer.json"))).expect("JSON");
        let model = if ["bpe", "file"].contains(&kind) { "BPE" } else { "WordLevel" };
        assert_eq!(tokenizer["model"]["type"], model, "{kind}");
        lab.run(&format!("generate {kind}")).ok();
    }
    assert_eq!(lab.read("runs/file/tokenizer.json"), lab.read("runs/bpe/tokenizer.json"));
    assert_eq!(lab.losses("file", "train"), lab.losses("bpe", "train"));
}

#[test]
fn the_seed_decides_and_nothing_else_does() {
    let lab = Lab::new();
    lab.run("TRAIN --name a").ok();
    lab.run("TRAIN --name b --quiet").ok();
    lab.run("train --threads 2 --config tiny.toml --data text.txt --name threads").ok();
    lab.run("TRAIN --name seed --set seed=2").ok();
    lab.run("TRAIN --name looks --set train.eval_every=3 --set train.sample_every=2 --set train.checkpoint_every=4").ok();
    for other in ["b", "threads", "looks"] {
        assert_eq!(lab.losses(other, "train"), lab.losses("a", "train"), "{other}");
    }
    let weights = |run: &str| fs::read(lab.path(&format!("runs/{run}/checkpoints/step-00000020/model.safetensors"))).expect("weights");
    assert!(weights("a") == weights("b"), "the same weights, bit by bit");
    let (a, seed) = (lab.losses("a", "train"), lab.losses("seed", "train"));
    assert!(a.iter().zip(&seed).all(|(a, b)| a.1 != b.1), "another seed, other losses");
}

#[test]
fn micro_batches_give_the_gradients_of_the_whole_batch() {
    let lab = Lab::new();
    let dropout = "--set 'model.dropout={ embedding = 0.2, attention = 0.2, residual = 0.2 }'";
    let difference = |a: &str, b: &str| {
        let (a, b) = (lab.loss_values(a), lab.loss_values(b));
        assert_eq!((a.len(), b.len()), (40, 40));
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    for (name, options) in [("plain", ""), ("drop", dropout)] {
        // Four sequences at once; one by one; three and one.
        for micro in [0, 1, 3] {
            let line = format!("TRAIN --name {name}-{micro} --set train.steps=40 --set train.micro_batch_size={micro} {options}");
            lab.run(&line).ok();
        }
        for micro in [1, 3] {
            // Measured max |Δ| over 40 steps: 4e-7 without dropout, 6e-7 with it; bound 1e-4.
            let difference = difference(&format!("{name}-0"), &format!("{name}-{micro}"));
            assert!(difference < 1e-4, "{name}, {micro} at once: {difference:e}");
        }
    }
    // Measured 0.1: dropout does something, so that agreeing with it means something.
    assert!(difference("plain-0", "drop-0") > 0.01);
}

#[test]
fn blocks_that_are_computed_again_change_nothing() {
    let lab = Lab::new();
    let options = "--set model.n_layers=2 --set 'model.dropout={ embedding = 0.2, attention = 0.2, residual = 0.2 }'";
    lab.run(&format!("TRAIN --name plain {options}")).ok();
    lab.run(&format!("TRAIN --name same {options} --set train.gradient_checkpointing=true")).ok();
    assert_eq!(lab.losses("same", "train"), lab.losses("plain", "train"));
    // Measured: 124 and 46 MiB.
    let deep = "--set model.n_layers=8 --set model.d_model=64 --set model.d_ff=256 --set model.context_len=64 --set train.batch_size=64";
    let peak = |name: &str, checkpointing: bool| {
        lab.run(&format!("TRAIN --name {name} {deep} --set train.steps=2 --set train.gradient_checkpointing={checkpointing}")).ok();
        lab.summary(name)["peak_memory_bytes"].as_f64()
    };
    if let (Some(kept), Some(again)) = (peak("kept", false), peak("computed-again", true)) {
        assert!(again < 0.75 * kept, "{again} bytes of {kept}");
    }
    // So a run may begin with one and go on with the other.
    lab.run("train --resume plain --set train.steps=30 --set train.gradient_checkpointing=true").ok();
    lab.run("train --resume same --set train.steps=30 --set train.gradient_checkpointing=false").ok();
    assert_eq!(lab.losses("same", "train"), lab.losses("plain", "train"));
}

#[test]
fn the_precision_is_what_the_machine_has() {
    let lab = Lab::new();
    let precision = |run: &str| {
        let manifest: Value = serde_json::from_str(&lab.read(&format!("runs/{run}/manifest.json"))).expect("JSON");
        manifest["precision"].as_str().expect("a name").to_owned()
    };
    let differs = |run: &str| {
        let (losses, other) = (lab.loss_values(run), lab.loss_values("plain"));
        losses.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let said = lab.run("TRAIN --name plain").ok();
    assert!(precision("plain") == "f32" && said.err.contains("in f32") && !said.err.contains("warning"), "{said}");

    let said = lab.run("TRAIN --name emulated --precision bf16-emulated").ok();
    assert!(precision("emulated").starts_with("bf16") && said.err.contains("in bf16"), "{said}");
    // Measured at most 1.4e-3 in 20 steps on another text.
    assert!((1e-6..0.02).contains(&differs("emulated")), "{:e}", differs("emulated"));

    // With instructions for bf16 it is as the emulated one, without them it says so and is as f32.
    let said = lab.run("TRAIN --name bf16 --set train.precision=bf16").ok();
    if said.err.contains("warning: training in f32: this processor has no instructions for bf16") {
        assert!(precision("bf16") == "f32" && differs("bf16") == 0.0, "{said}");
    } else {
        assert!(precision("bf16") == "bf16" && (1e-6..0.02).contains(&differs("bf16")), "{said}");
    }
    let said = lab.run("TRAIN --name other --precision bf16 --device ndarray").ok();
    assert!(precision("other") == "f32" && said.err.contains("only the device flex computes in bf16"), "{said}");

    lab.run("train --resume plain --set train.steps=30 --set train.precision=bf16-emulated").fails(&["precision", "f32"]);
    check_usage(&lab.run("TRAIN --precision f16"), "f16");
}

#[test]
fn every_instruction_set_trains_the_same() {
    let lab = Lab::new();
    lab.run("TRAIN --name best").ok();
    let best = lab.loss_values("best");
    for isa in ["portable", "avx2", "avx512", "avx512bf16"] {
        let said = lab.run(&format!("TRAIN --name {isa} --isa {isa}"));
        if said.code != 0 && isa != "portable" {
            said.fails(&[&format!("this processor has no {isa}"), "--isa "]);
            continue;
        }
        said.ok();
        let worst = best.iter().zip(lab.loss_values(isa)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Measured: the losses agree in all digits, gradient norms in eight.
        assert!(worst < 1e-4, "{isa}: {worst:e}");
        assert!(lab.run(&format!("devices --isa {isa}")).ok().out.contains(&format!("ready, with {isa}")));
    }
    check_usage(&lab.run("devices --isa sse"), "avx512bf16");
}

/// Without weight decay the weights grow by 1e6 a step, with it by a factor of 1e5.
const DIVERGING: &str = "--set train.lr=1e6 --set train.grad_clip=0 --set train.warmup_steps=0 --set train.checkpoint_every=1";

#[test]
fn a_diverging_run_stops_and_keeps_what_was_before() {
    let lab = Lab::new();
    for (name, eval_every, expected) in
        [("evaluated", 1, "the validation loss is not finite at step "), ("trained", 1000, " is not finite at step ")]
    {
        let said = lab.run(&format!("TRAIN --name {name} {DIVERGING} --set train.eval_every={eval_every}")).fails(&[expected, "train.lr"]);
        let (_, rest) = said.err.split_once(" is not finite at step ").expect("checked above");
        let step: u64 =
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no step: {said}"));
        // The step that is named is the one after the last that was logged: counted as taken where the loss was still a number.
        let logged = lab.losses(name, "train").len() as u64;
        assert!(step == logged && step > 1, "step {step}, {logged} logged: {said}");
        // Its checkpoint verifies, and the same steps fail in the same way.
        let again = lab.run(&format!("train --resume {name}"));
        let error = |err: &str| err.lines().find(|line| line.starts_with("error: ")).map(str::to_owned);
        assert_eq!(error(&again.err), error(&said.err), "{again}");
        assert!(!again.err.contains("warning"), "{again}");
        assert!(!lab.path(&format!("runs/{name}/summary.json")).exists(), "it has not finished");
    }
    // The best weights are those of the first step.
    lab.run("generate evaluated").ok();
}

#[test]
fn a_perplexity_beyond_all_numbers_damages_nothing() {
    let lab = Lab::with_run();
    lab.run(&format!("TRAIN --name huge {DIVERGING} --set train.weight_decay=0")).ok();
    let loss = lab.summary("huge")["validation_loss"].as_f64().expect("a number");
    assert!(loss > 710.0, "exp({loss}) is no number");
    assert!(lab.run("runs list").ok().out.contains("old"));
    lab.run("runs show huge").ok();
    assert_eq!(lab.run("runs list --json").json().as_array().map(Vec::len), Some(2));
}

#[test]
fn as_json() {
    let lab = Lab::new();
    let value = lab.run("TRAIN --name json --json").json();
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(keys(&value), ["run", "dir", "summary", "verdict", "fine_tunings", "sample"].map(str::to_owned).into());
    assert_eq!((&value["run"], &value["dir"]), (&"json".into(), &"runs/json".into()));
    assert_eq!(value["summary"], lab.summary("json"));
    assert!(value["sample"].as_str().is_some_and(|sample| sample.starts_with("the ")));
    assert_eq!(
        keys(&value["summary"]),
        [
            "accuracy",
            "best",
            "bits_per_byte",
            "elapsed_s",
            "ended",
            "matmul_peak_flops_per_s",
            "memorised",
            "mfu",
            "peak_memory_bytes",
            "perplexity",
            "steps",
            "tokens",
            "tokens_per_s",
            "validation_loss"
        ]
        .map(str::to_owned)
        .into()
    );
}

#[test]
fn quiet_says_nothing_on_stderr() {
    let said = Lab::new().run("TRAIN --quiet").ok();
    assert_eq!(said.err, "");
    assert!(said.out.contains("validation loss"), "{said}");
}

/// Every command that the final table prints works when it is pasted where `kindling train` was called.
#[cfg(unix)]
mod next {
    use super::*;

    /// Trains, pastes every command, and gives back the commands and those that failed.
    fn paste(lab: &Lab, line: &str) -> (Vec<String>, Vec<String>) {
        let said = lab.run(line).ok();
        let commands = next_commands(&said.out);
        assert!(commands.len() >= 3, "{said}");
        let failed = commands.iter().map(|command| lab.shell(command)).filter(|said| said.code != 0);
        let failed = failed.map(|said| format!("after `{line}`: {said}")).collect();
        (commands, failed)
    }

    fn check(lab: &Lab, line: &str) {
        let (_, failed) = paste(lab, line);
        assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    }

    #[test]
    fn commands_work_when_pasted() {
        let (commands, failed) = paste(&Lab::new(), "TRAIN");
        assert!(failed.is_empty(), "{}", failed.join("\n\n"));
        for (command, expected) in commands.iter().zip([" generate ", " eval ", " runs show ", " train --resume "]) {
            assert!(command.contains(expected), "`{expected}`: {commands:?}");
        }
        assert_eq!(commands.len(), 4);
    }

    #[test]
    fn in_a_folder_of_runs_with_a_difficult_name() {
        let lab = Lab::new();
        let mut command = lab.command("train --config tiny.toml --data text.txt");
        let output = command.args(["--runs-dir", "my 'own' $runs"]).output().expect("kindling starts");
        let said = kindling_tests::Said::new("train", output).ok();
        for command in next_commands(&said.out) {
            lab.shell(&command).ok();
        }
        assert_eq!(lab.names("my 'own' $runs"), ["tiny-1"]);
    }

    #[test]
    fn with_difficult_prompts() {
        let mut all_failed = Vec::new();
        for prompt in ["it is \\\"$HOME\\\" `x` \\\\ ; ' ☃", "- item", "--help", "\\n", "a\\n\\n b", ""] {
            let lab = Lab::new();
            lab.write("prompt.toml", lab.config("prompt = \"the \"", &format!("prompt = \"{prompt}\"")));
            let (commands, failed) = paste(&lab, "train --config prompt.toml --data text.txt");
            assert_eq!(commands.len(), 4, "{commands:?}");
            all_failed.extend(failed);
        }
        assert!(all_failed.is_empty(), "{}", all_failed.join("\n\n"));
    }

    #[test]
    fn with_a_readme_that_the_vocabulary_cannot_express() {
        let lab = Lab::new();
        lab.write("README.md", "# ☃\n");
        lab.write("folder/a.txt", lab.read("text.txt"));
        lab.write("folder/b.txt", lab.read("text.txt"));
        check(&lab, "TRAIN_ON folder --set tokenizer.kind=char");
    }

    #[test]
    fn after_invalid_utf8() {
        let lab = Lab::new();
        let mut bytes = fs::read(lab.path("text.txt")).expect("the lab's text");
        bytes[6000] = 0xff;
        lab.write("latin.txt", bytes);
        check(&lab, "TRAIN_ON latin.txt --lossy");
    }

    #[test]
    fn on_another_device() {
        let (commands, failed) = paste(&Lab::new(), "TRAIN --device ndarray");
        assert!(failed.is_empty(), "{}", failed.join("\n\n"));
        let computing: Vec<_> = commands.iter().filter(|command| !command.contains(" runs show ")).collect();
        assert!(computing.iter().all(|command| command.contains("--device ndarray")), "they go on where it was: {computing:?}");
    }
}
