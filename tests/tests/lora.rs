//! Adapters: trained, resumed, used beside their base, side by side, and merged.

use kindling_tests::Lab;
use serde_json::Value;

/// A lab with a run `old`, and another text with other words.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.run("TRAIN --name old --set train.steps=150").ok();
    let swapped = |c: char| if c.is_ascii_lowercase() { (b'a' + b'z' - c as u8) as char } else { c };
    lab.write("other.txt", lab.read("text.txt").chars().map(swapped).collect::<String>());
    lab
}

const TUNE: &str = "finetune --base old --data other.txt --threads 1 --runs-dir runs --data-dir data --set train.steps=60";

fn number(value: &Value, keys: &[&str]) -> f64 {
    keys.iter().fold(value, |value, key| &value[*key]).as_f64().unwrap_or_else(|| panic!("{keys:?}: {value}"))
}

fn bytes(lab: &Lab, name: &str) -> Vec<u8> {
    std::fs::read(lab.path(name)).unwrap_or_else(|error| panic!("cannot read `{name}`: {error}"))
}

/// The text that is likeliest.
fn likeliest(lab: &Lab, run: &str) -> String {
    let value = lab.run(&format!("generate {run} --temperature 0 --max-new-tokens 40 --json")).json();
    value["text"].as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

#[test]
fn an_adapter_is_trained_used_and_merged() {
    let lab = lab();
    let said = lab.run(&format!("{TUNE} --name new --lora 4")).ok();
    // 4 · (16 + 48 + 16 + 16 + 16 + 32 + 32 + 16) in one layer.
    assert!(said.err.contains("all frozen, and 768 in adapters of rank 4"), "{said}");
    assert!(said.out.contains("merge new"), "{said}");
    let value = lab.run("train --resume new --json").json();
    let change =
        |text| number(&value, &["summary", "forgetting", text, "after"]) - number(&value, &["summary", "forgetting", text, "before"]);
    assert!(change("new") < -0.3, "the new text is learned: {value}");
    // The learning rate is the base's, and nothing decays.
    let config = lab.read("runs/new/config.toml");
    assert!(config.contains("lr = 0.01\n") && config.contains("weight_decay = 0.0\n") && config.contains("[base.lora]"), "{config}");

    let files = lab.names("runs/new/checkpoints/step-00000060");
    assert_eq!(files, ["adapter.safetensors", "checkpoint.json", "config.toml", "optimizer.safetensors", "state.json"]);
    let best = format!("runs/new/best/{}", lab.names("runs/new/best")[0]);
    assert_eq!(lab.names(&best), ["adapter.safetensors", "checkpoint.json", "config.toml", "state.json"]);
    let (adapter, base) = (bytes(&lab, &format!("{best}/adapter.safetensors")), bytes(&lab, "runs/new/base.safetensors"));
    assert!(adapter.len() < 4 * 768 + 2000 && adapter.len() < base.len() / 4, "{} and {} bytes", adapter.len(), base.len());
    assert_eq!(base, bytes(&lab, &format!("runs/old/best/{}/model.safetensors", lab.names("runs/old/best")[0])), "no bit of the base");

    // Merged it says the same, also as a base, and without the runs that it is from.
    let merged = lab.run("merge new --name merged --json").json();
    assert_eq!(merged["run"], "merged");
    let (loss, best) = (number(&merged, &["validation_loss"]), lab.summary("new")["best"][0].as_f64().expect("a loss"));
    assert!((loss - best).abs() < 1e-5, "{loss} and {best}");
    let loss = |run: &str| number(&lab.run(&format!("eval {run} --text other.txt --json")).json(), &["loss"]);
    let (apart, folded, old) = (loss("new"), loss("merged"), loss("old"));
    // Measured 1e-7.
    assert!((apart - folded).abs() < 1e-5 && apart < old - 0.3, "{apart} apart, {folded} merged, {old} before");
    let text = likeliest(&lab, "new");
    assert_eq!(likeliest(&lab, "merged"), text);
    assert_ne!(likeliest(&lab, "old"), text);
    lab.run("merge new").ok();
    assert!(lab.path("runs/new-merged-1").is_dir());
    // A run with an adapter is a base like any other, and so is a merged one.
    let again = TUNE.replace("--base old", "--base new");
    lab.run(&format!("{again} --name again --lora 2 --set train.steps=5")).ok();
    assert_eq!(bytes(&lab, "runs/again/base.safetensors"), bytes(&lab, "runs/merged/base.safetensors"));
    std::fs::remove_dir_all(lab.path("runs/new")).expect("a run");
    std::fs::remove_dir_all(lab.path("runs/old")).expect("a run");
    assert_eq!(likeliest(&lab, "merged"), text);
    lab.run(&format!("{} --name on --set train.steps=5", TUNE.replace("--base old", "--base merged"))).ok();
    lab.run("train --resume merged --set train.steps=3").ok();
    lab.run("runs list").ok();
}

#[test]
fn what_is_cut_goes_on_as_if_it_was_not() {
    let lab = lab();
    let options = "--lora 4 --lora-targets qkv,down --lwf 1 --set train.schedule=constant --set train.ema=0.9 --set train.gradient_checkpointing=true";
    lab.run(&format!("{TUNE} --name whole {options} --set train.eval_every=20")).ok();
    lab.run(&format!("{TUNE} --name cut {options} --set train.eval_every=20 --set train.steps=30 --set train.checkpoint_every=10")).ok();
    lab.run("train --resume cut --threads 1 --set train.steps=60").ok();
    assert_eq!(lab.losses("cut", "train"), lab.losses("whole", "train"));
    for file in ["adapter", "optimizer", "ema"] {
        let file = format!("checkpoints/step-00000060/{file}.safetensors");
        assert_eq!(bytes(&lab, &format!("runs/cut/{file}")), bytes(&lab, &format!("runs/whole/{file}")), "{file}");
    }
    // Blocks that are computed at once say the same.
    lab.run(&format!("{TUNE} --name plain {options} --set train.eval_every=20 --set train.gradient_checkpointing=false")).ok();
    assert_eq!(lab.losses("plain", "train"), lab.losses("whole", "train"));
    // Held to the base, it forgets less.
    let forgotten =
        |run: &str| number(&lab.run(&format!("train --resume {run} --json")).json(), &["summary", "forgetting", "old", "after"]);
    lab.run(&format!("{TUNE} --name free {}", options.replace("--lwf 1", "").replace("--lora 4", "--lora=4"))).ok();
    assert!(forgotten("whole") < forgotten("free") - 0.02, "{} and {}", forgotten("whole"), forgotten("free"));
}

#[test]
fn several_stand_side_by_side() {
    let lab = lab();
    lab.run(&format!("{TUNE} --name one --lora 4")).ok();
    lab.run(&format!("{TUNE} --name two --lora 2 --lora-alpha 16 --set seed=2 --set train.steps=20")).ok();
    let file = format!("runs/two/best/{}/adapter.safetensors", lab.names("runs/two/best")[0]);
    let all = lab.run(&format!("generate old --adapter one --adapter {file} --temperature 0 --max-new-tokens 40 --json")).json();
    let texts: Vec<_> = all.as_array().expect("one for each").iter().map(|one| one["text"].as_str().expect("a text").to_owned()).collect();
    assert_eq!(texts, [likeliest(&lab, "old"), likeliest(&lab, "one"), likeliest(&lab, "two")]);
    let said = lab.run("generate old --adapter one --adapter two").ok();
    for title in ["== no adapter ==", "== one ==", "== two =="] {
        assert!(said.out.contains(title), "{said}");
    }
    let scores = lab.run("eval old --adapter one --text other.txt --json").json();
    let alone = |run: &str| number(&lab.run(&format!("eval {run} --text other.txt --json")).json(), &["loss"]);
    assert_eq!(number(&scores[1], &["loss"]).to_bits(), alone("one").to_bits());
    assert_eq!(number(&scores[0], &["loss"]).to_bits(), alone("old").to_bits());
    assert!(lab.run("eval old --adapter one --text other.txt").ok().out.contains("no adapter"));
}

#[test]
fn what_cannot_be() {
    let lab = lab();
    lab.run(&format!("{TUNE} --name new --lora 4 --set train.steps=4")).ok();
    lab.run("TRAIN --name stranger --set seed=9").ok();
    lab.check_errors(&[
        (&format!("{TUNE} --lora 0"), &["`base.lora.rank` is 0, expected a whole number from 1 to 16"]),
        (&format!("{TUNE} --lora 17"), &["`base.lora.rank` is 17"]),
        (&format!("{TUNE} --lora 2 --lora-alpha 0"), &["`base.lora.alpha` is 0"]),
        (&format!("{TUNE} --lora 2 --lora-targets qkv,qkv"), &["`base.lora.targets` is `qkv` twice"]),
        (&format!("{TUNE} --lora 2 --set base.lora.rank=3"), &["`old`", "model.dropout"]),
        ("generate stranger --adapter new", &["trained on weights with the hash", "expected those of this base"]),
        ("generate new --adapter new", &["run `new` has an adapter already"]),
        ("generate old --adapter stranger", &["run `stranger` has no adapter"]),
        ("generate old --adapter none", &["`none`"]),
        ("merge old", &["run `old` has no adapter"]),
        ("merge new --name old", &["`old` exists"]),
        ("train --resume new --set base.lora.alpha=3", &["base.lora.alpha"]),
    ]);
    lab.write("runs/new/base.safetensors", "damaged");
    lab.run("generate new").fails(&["base.safetensors", "checksum"]);
}
