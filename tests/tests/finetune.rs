//! Fine-tuning: what a run begins with, what it learns and forgets, and what it needs of its base.

use kindling_tests::Lab;
use serde_json::Value;

/// A lab with a run `old`, and another text with other words.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.run("TRAIN --name old --set train.steps=150").ok();
    let other: String =
        lab.read("text.txt").chars().map(|c| if c.is_ascii_lowercase() { (b'a' + b'z' - c as u8) as char } else { c }).collect();
    lab.write("other.txt", other);
    lab
}

const TUNE: &str =
    "finetune --base old --data other.txt --threads 1 --runs-dir runs --data-dir data --set train.steps=80 --set train.lr=0.005";

fn change(value: &Value, text: &str) -> (f64, f64) {
    let number = |key: &str| value["summary"]["forgetting"][text][key].as_f64().unwrap_or_else(|| panic!("{text} {key}: {value}"));
    (number("before"), number("after"))
}

#[test]
fn it_begins_where_the_base_ended() {
    let lab = lab();
    let value = lab.run(&format!("{TUNE} --name new --json")).json();
    let (before, after) = change(&value, "new");
    assert!(after < before - 0.5, "the new text is learned: {before} to {after}");
    let (before, after) = change(&value, "old");
    assert!((before - lab.summary("old")["best"][0].as_f64().expect("a loss")).abs() < 1e-9, "before is as the base ended");
    assert!(after > before + 0.1, "the old text is forgotten: {before} to {after}");
    // It has its own copy of what it began with, and goes on without the base.
    assert!(lab.path("runs/new/base.safetensors").is_file());
    std::fs::remove_dir_all(lab.path("runs/old")).expect("a run");
    let said = lab.run("train --resume new --set train.steps=90").ok();
    assert!(said.out.contains("the base's prepared data are gone"), "{said}");
    lab.run("generate new").ok();
    // It comes to its end also where what it began with is gone.
    std::fs::remove_file(lab.path("runs/new/base.safetensors")).expect("a file");
    let said = lab.run("train --resume new --set train.steps=95").ok();
    assert!(said.out.contains("what the run began with cannot be read"), "{said}");
    assert_eq!(lab.summary("new")["steps"], 95);
}

#[test]
fn learning_without_forgetting_forgets_less() {
    let lab = lab();
    let old = |options: &str| change(&lab.run(&format!("{TUNE} --json {options}")).json(), "old").1;
    let (plain, held) = (old("--name plain"), old("--name held --lwf 3"));
    assert!(held < plain - 0.05, "{held}, without {plain}");
    // Both are told side by side, and kept.
    let said = lab.run("train --resume held").ok();
    let row = |run: &str| said.out.lines().find(|line| line.starts_with(run)).unwrap_or_else(|| panic!("`{run}` in {said}")).to_owned();
    assert!(row("plain").ends_with(&format!("{plain:.4}")) && row("plain").contains(" plain "), "{said}");
    assert!(row("held").ends_with(&format!("{held:.4}")) && row("held").contains(" LwF 3 "), "{said}");
    assert!(lab.run("runs show held").ok().out.contains(&format!("{held:.4} after")));
    // Blocks that are computed again, and micro-batches, change nothing.
    let again = "--set train.gradient_checkpointing=true --set train.micro_batch_size=3";
    lab.run(&format!("{TUNE} --name again --lwf 3 {again}")).ok();
    let (a, b) = (lab.loss_values("held"), lab.loss_values("again"));
    let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-3, "{worst}");
}

#[test]
fn a_fine_tuning_that_is_cut_goes_on_as_if_it_was_not() {
    let lab = lab();
    lab.run(&format!("{TUNE} --name whole --lwf 1 --set train.steps=60 --set train.schedule=constant")).ok();
    lab.run(&format!("{TUNE} --name cut --lwf 1 --set train.steps=30 --set train.schedule=constant --set train.eval_every=6 --set train.checkpoint_every=12")).ok();
    lab.run("train --resume cut --threads 1 --set train.steps=60").ok();
    assert_eq!(lab.losses("cut", "train"), lab.losses("whole", "train"));
}

/// Questions whose answer follows from their first word, behind words that say nothing.
fn write_examples(lab: &Lab) {
    const WORDS: [&str; 7] = ["the", "stone", "river", "walked", "slowly", "past", "a"];
    let row = |i: usize| {
        let (ask, answer) = [("who", "she"), ("where", "home"), ("when", "now")][i % 3];
        let words: Vec<_> = (0..2).map(|n| WORDS[(i * 5 + n * 3 + i / 7) % 7]).collect();
        format!("{{\"q\":\"{ask} {}\",\"a\":\"{answer}\"}}\n", words.join(" "))
    };
    lab.write("rows.jsonl", (0..120).map(row).collect::<String>());
}

const EXAMPLES: &str = "finetune --base old --data rows.jsonl --examples --prompt-template '{{q}}?' --completion-template ' {{a}}' --threads 1 \
                        --runs-dir runs --data-dir data --set train.steps=150 --set train.lr=0.01";

#[test]
fn of_examples_the_completion_is_learned() {
    let lab = lab();
    write_examples(&lab);
    let said = lab.run(&format!("{EXAMPLES} --preview 2")).ok();
    assert!(
        said.out.contains("example 2: ") && said.out.contains("  given   │<|endoftext|>│") && said.out.contains("\n  learned │"),
        "{said}"
    );
    let shown = lab.run(&format!("{EXAMPLES} --preview 1 --json --quiet")).json();
    let tokens = shown["examples"][0]["tokens"].as_array().expect("tokens");
    let text = |learned: bool| {
        tokens.iter().filter(|token| token["learned"] == learned).map(|token| token["token"].as_str().expect("a text")).collect::<String>()
    };
    assert_eq!((text(false).as_str(), text(true).as_str()), ("<|endoftext|>who the walked?", " she<|endoftext|>"));
    assert!(!lab.path("runs/old-finetuned-1").exists(), "a preview trains nothing");

    let value = lab.run(&format!("{EXAMPLES} --name asked --json")).json();
    let (before, after) = change(&value, "new");
    // Three answers, which follow from the question: what is asked could not be foretold so well.
    assert!(before > 2.0 && after < 0.2, "{before} to {after}");
    // The sample asks what an example asks.
    let (sample, config) = (value["sample"].as_str().expect("a text"), lab.read("runs/asked/config.toml"));
    assert!(
        sample.contains("? ") && config.contains(&format!("prompt = {:?}", sample.split_inclusive('?').next().expect("a question"))),
        "{sample}: {config}"
    );
    for (question, answer) in [("who past a?", " she"), ("where the river?", " home"), ("when slowly stone?", " now")] {
        let said = lab.run(&format!("generate asked --prompt '{question}' --temperature 0 --quiet")).ok();
        assert_eq!(said.out.trim_end_matches('\n'), format!("{question}{answer}"), "it answers and stops");
    }
    // It goes on as if it had not been cut.
    let constant = "--set train.schedule=constant --set train.eval_every=6 --set train.checkpoint_every=12";
    lab.run(&format!("{EXAMPLES} --name whole {constant} --lwf 0.5 --set train.steps=60")).ok();
    lab.run(&format!("{EXAMPLES} --name cut {constant} --lwf 0.5 --set train.steps=30")).ok();
    lab.run("train --resume cut --threads 1 --set train.steps=60").ok();
    assert_eq!(lab.losses("cut", "train"), lab.losses("whole", "train"));
    // A config's own templates stay, whatever is said beside.
    let own = lab.config("[data]\n", "[data]\norder = 'epoch'\nexamples = { prompt = 'Ask {{ q }}', completion = '{{ a }}' }\n");
    lab.write("own.toml", own);
    let said = lab.run(
        "train --config own.toml --data rows.jsonl --data-dir data --examples --completion-template ' {{a}}!' --preview 1 --json --quiet",
    );
    let (text, shown) = (|value: &Value| value["token"].as_str().expect("a text").to_owned(), said.json());
    let said: String = shown["examples"][0]["tokens"].as_array().expect("tokens").iter().map(text).collect();
    assert!(said.starts_with("<|endoftext|>Ask who ") && said.ends_with(" she!<|endoftext|>"), "{said}");
    // On a text that follows all of it is learned again.
    let again = "finetune --base asked --data other.txt --name again --threads 1 --runs-dir runs --data-dir data";
    lab.run(&format!("{again} --set train.steps=5")).ok();
    assert!(!lab.read("runs/again/config.toml").contains("[data.examples]"));
}

#[test]
fn what_cannot_be_fine_tuned() {
    let lab = lab();
    write_examples(&lab);
    lab.write("one.jsonl", "{\"prompt\":\"a\",\"completion\":\"b\"}\n");
    lab.check_errors(&[
        ("finetune --base none --data other.txt", &["`none`"]),
        ("finetune --base old --data none.txt", &["none.txt"]),
        ("finetune --base old --data other.txt --lwf 0", &["`base.distillation.weight` is 0"]),
        ("finetune --base old --data other.txt --lwf 1 --temperature 0", &["`base.distillation.temperature` is 0"]),
        ("finetune --base old --data rows.jsonl --examples", &["rows.jsonl`, line 1", "no field `prompt`, found `q, a`"]),
        ("finetune --base old --data other.txt --examples", &["other.txt` has no rows"]),
        ("finetune --base old --data rows.jsonl --examples --completion-template '{{'", &["`data.examples.completion`"]),
        ("finetune --base old --data rows.jsonl --examples --set data.order=random", &["`data.order` is `random`", "epoch"]),
        ("finetune --base old --data other.txt --prompt-template '{{ a }}'", &["`--prompt-template` is for examples", "--examples"]),
        ("train --config tiny.toml --data text.txt --completion-template '{{ a }}'", &["`--completion-template` is for examples"]),
        ("finetune --base old --data one.jsonl --examples", &["the corpus has 1 document", "examples cannot be cut"]),
        ("finetune --base old --data other.txt --preview", &["no examples", "--examples"]),
        ("finetune --base old --data other.txt --set model.n_layers=2", &["`old`", "model.dropout"]),
    ]);
    // The command line is wrong, and not the data.
    let said = lab.run("train --resume old --completion-template '{{'");
    assert!(said.code == 2 && said.err.contains("--completion-template"), "{said}");
    // What it is held to is needed.
    lab.run(&format!("{TUNE} --name new --lwf 1")).ok();
    lab.write("runs/new/base.safetensors", "damaged");
    lab.run("train --resume new --set train.steps=90").fails(&["base.safetensors", "checksum"]);
}
