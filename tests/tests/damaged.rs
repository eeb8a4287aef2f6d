//! Files of ours that were cut short, edited or deleted: each is noticed, named, and costs no more than itself.

use std::fs;

use kindling_tests::{Harm, Lab};

/// The commands that need the prepared data of the run `old`.
const NEED_DATA: [&str; 2] = ["TRAIN --name new", "train --resume old --set train.steps=40"];

#[test]
fn shards_are_written_again() {
    for file in ["train-00000.bin", "validation-00000.bin"] {
        for harm in Harm::ALL {
            for line in NEED_DATA {
                let lab = Lab::with_run();
                let data = lab.snapshot("data");
                lab.harm(&format!("{}/{file}", lab.prepared()), harm);
                let said = lab.run(line).ok();
                assert!(said.err.contains("warning: ") && said.err.contains(file), "{said}");
                assert_eq!(lab.snapshot("data"), data, "{said}");
            }
        }
    }
}

#[test]
fn shards_of_a_text_that_is_another_now() {
    let lab = Lab::with_run();
    lab.harm(&format!("{}/train-00000.bin", lab.prepared()), Harm::Edited);
    lab.write("text.txt", lab.read("text.txt").replace("river", "brook"));
    lab.run(NEED_DATA[1]).fails(&["train-00000.bin", "damaged"]);
}

#[test]
fn tokenizer_of_prepared_data() {
    for harm in Harm::ALL {
        let lab = Lab::with_run();
        lab.harm(&format!("{}/tokenizer.json", lab.prepared()), harm);
        let config = lab.read("runs/old/config.toml");
        for line in NEED_DATA {
            lab.check_errors(&[(line, &["tokenizer.json", "delete", "prepared"])]);
        }
        assert_eq!(lab.read("runs/old/config.toml"), config, "a refused run keeps its config");
    }
}

#[test]
fn manifest_of_prepared_data() {
    let edits: [fn(&str) -> String; 4] = [
        |text| text[..text.len() / 2].to_owned(),
        |_| String::new(),
        |text| text.replacen("\"version\": 3", "\"version\": 999", 1),
        // Still JSON: the last shard's checksum.
        |text| text.replace("validation-00000.bin\",\n        \"sum\": \"", "validation-00000.bin\",\n        \"sum\": \"0"),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let lab = Lab::with_run();
        let manifest = format!("{}/manifest.json", lab.prepared());
        let text = lab.read(&manifest);
        assert_ne!(edit(&text), text, "edit {i} does something");
        lab.write(&manifest, edit(&text));
        let file = if i == 3 { "validation-00000.bin" } else { "manifest.json" };
        for line in NEED_DATA {
            lab.check_errors(&[(line, &[file, "expected", "delete", "prepared"])]);
        }
    }
}

#[test]
fn prepared_data_that_was_deleted_is_prepared_anew() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name whole --set train.steps=40").ok();
    let folder = lab.prepared();
    let data = lab.snapshot("data");
    // A folder without its manifest is as good as none.
    lab.harm(&format!("{folder}/manifest.json"), Harm::Missing);
    lab.run("TRAIN --name new").ok();
    assert_eq!(lab.snapshot("data"), data);
    fs::remove_dir_all(lab.path(&folder)).expect("a folder of ours");
    let said = lab.run("train --resume old --set train.steps=40").ok();
    assert!(said.err.contains("warning: ") && said.err.contains(&folder), "{said}");
    assert_eq!(lab.snapshot("data"), data);
    assert_eq!(lab.losses("old", "train").len(), 40);
}

#[test]
fn a_run_does_not_go_on_with_another_text() {
    let lab = Lab::with_run();
    fs::remove_dir_all(lab.path("data")).expect("a folder of ours");
    lab.write("text.txt", lab.read("text.txt").replace("river", "brook"));
    lab.check_errors(&[("train --resume old --set train.steps=40", &["cannot resume", "hash"])]);
}

#[test]
fn the_best_checkpoint() {
    for file in ["model.safetensors", "checkpoint.json", "state.json"] {
        for harm in Harm::ALL {
            let lab = Lab::with_run();
            let path = format!("runs/old/best/step-00000020/{file}");
            lab.harm(&path, harm);
            for line in ["generate old", "eval old --text text.txt"] {
                // The run has others, which are as good to use.
                let said = lab.run(line).ok();
                assert!(said.err.contains("warning: ") && said.err.contains(&path), "{said}");
            }
            lab.run("train --resume old --set train.steps=40").ok();
        }
    }
}

#[test]
fn the_newest_checkpoint() {
    for file in ["model.safetensors", "optimizer.safetensors", "checkpoint.json", "state.json"] {
        for harm in Harm::ALL {
            let lab = Lab::with_run();
            let losses = lab.losses("old", "train");
            let path = format!("runs/old/checkpoints/step-00000020/{file}");
            let whole = fs::read(lab.path(&path)).expect("a checkpoint");
            lab.harm(&path, harm);
            let said = lab.run("train --resume old --threads 1").ok();
            let warning = said.err.lines().find(|line| line.starts_with("warning: ")).unwrap_or_else(|| panic!("no warning: {said}"));
            assert!(warning.contains(&path) && warning.contains("damaged"), "{warning}");
            // From the one before, the same steps are taken again.
            assert_eq!(lab.losses("old", "train"), losses);
            let again = fs::read(lab.path(&path)).expect("it was written again");
            // How long the steps took, which the index has the hash of, is another time's.
            assert!(again == whole || file.ends_with("json"), "{path} is as it was");
        }
    }
}

#[test]
fn every_checkpoint() {
    let lab = Lab::with_run();
    for step in ["00000010", "00000020"] {
        lab.harm(&format!("runs/old/checkpoints/step-{step}/model.safetensors"), Harm::Edited);
    }
    let named: &[&str] =
        &["`old`", "no usable checkpoint", "step-00000010/model.safetensors", "step-00000020/model.safetensors", "checksum"];
    lab.check_errors(&[("train --resume old", named), ("train --resume old --set train.steps=40", named)]);
    lab.harm("runs/old/best/step-00000020/model.safetensors", Harm::Truncated);
    for line in ["generate old", "eval old --text text.txt"] {
        lab.run(line).fails(&["`old`", "no usable checkpoint", "best/step-00000020/model.safetensors"]);
    }
    // What can still be read is still shown.
    lab.run("runs show old").ok();
}

#[test]
fn the_tokenizer_of_a_run() {
    for harm in Harm::ALL {
        let lab = Lab::with_run();
        lab.harm("runs/old/tokenizer.json", harm);
        for line in ["generate old", "eval old --text text.txt", "train --resume old --set train.steps=40"] {
            lab.run(line).fails(&["runs/old/tokenizer.json"]);
        }
        assert_eq!(lab.losses("old", "train").len(), 20, "said before anything is trained");
    }
}

#[test]
fn another_tokenizer_in_a_run() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name char --set tokenizer.kind=char").ok();
    fs::copy(lab.path("runs/old/tokenizer.json"), lab.path("runs/char/tokenizer.json")).expect("files of ours");
    lab.check_errors(&[("generate char", &["runs/char/tokenizer.json", "checksum"])]);
}

#[test]
fn a_vocabulary_that_does_not_fit_the_model() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name small").ok();
    let config = lab.read("runs/small/config.toml");
    assert_eq!(config.matches("vocab_size = 300").count(), 2, "the model's and the tokenizer's");
    lab.write("runs/small/config.toml", config.replacen("vocab_size = 300", "vocab_size = 128", 1));
    lab.check_errors(&[
        ("generate small", &["300", "128", "vocab_size"]),
        ("eval small --text text.txt", &["300", "128", "vocab_size"]),
        ("train --resume small --set train.steps=40", &["300", "128"]),
    ]);
}

#[test]
fn config_and_manifest_of_a_run() {
    for file in ["config.toml", "manifest.json"] {
        for harm in Harm::ALL {
            let lab = Lab::with_run();
            lab.run("TRAIN --name bad").ok();
            let path = format!("runs/bad/{file}");
            lab.harm(&path, harm);
            for line in ["generate bad", "runs show bad", "train --resume bad", "eval bad --text text.txt"] {
                lab.check_errors(&[(line, &[&path])]);
            }
            let said = lab.run("runs list").ok();
            assert!(said.out.contains("old"), "a damaged run hides no other: {said}");
        }
    }
}

#[test]
fn a_run_of_a_later_version() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name later").ok();
    let manifest = lab.read("runs/later/manifest.json");
    lab.write("runs/later/manifest.json", manifest.replacen("\"version\": 3", "\"version\": 999", 1));
    lab.check_errors(&[("generate later", &["runs/later/manifest.json", "version 999, expected 1 to 3"])]);
}

#[test]
fn the_summary_of_a_run() {
    for harm in [Harm::Truncated, Harm::Missing] {
        let lab = Lab::with_run();
        lab.run("TRAIN --name bad").ok();
        lab.harm("runs/bad/summary.json", harm);
        let said = lab.run("runs list").ok();
        assert!(said.out.contains("old"), "a damaged run hides no other: {said}");
        lab.run("generate bad").ok();
        // It is written anew at the end.
        lab.run("train --resume bad").ok();
        assert_eq!(lab.run("runs show bad --json").json()["status"], "finished");
    }
}

#[test]
fn the_log_of_a_run() {
    for harm in Harm::ALL {
        let lab = Lab::with_run();
        lab.harm("runs/old/metrics.jsonl", harm);
        lab.run("runs show old").ok();
        lab.run("generate old").ok();
        lab.run("train --resume old --set train.steps=40").ok();
        let rows = lab.losses("old", "train");
        assert_eq!(rows.last().map(|(step, _)| *step), Some(40));
    }
}
