//! The commands of `docs/guide.md`, as they stand there.

use std::path::Path;

use kindling_tests::Lab;

#[test]
fn the_guides_commands_do_what_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let guide = std::fs::read_to_string(root.join("docs/guide.md")).expect("the guide");
    let lab = Lab::new();
    std::fs::create_dir(lab.path("configs")).expect("a folder");
    // Smaller, and for fewer steps, than one that has something to learn.
    let mut config = std::fs::read_to_string(root.join("configs/task.toml")).expect("the config");
    for (of_config, of_test) in [("steps = 1000", "steps = 60"), ("d_model = 128", "d_model = 32"), ("d_ff = 512", "d_ff = 64")] {
        assert!(config.contains(of_config), "{of_config}");
        config = config.replacen(of_config, of_test, 1);
    }
    lab.write("configs/task.toml", config);
    let (good, bad) = (["kind", "warm", "fresh"], ["rude", "cold", "stale"]);
    let rows = (0..240).map(|i| {
        let (word, label) = if i % 2 == 0 { (good[i % 3], "good") } else { (bad[i % 3], "bad") };
        format!("visit {i}: the {} was {word}\t{label}\n", ["waiter", "soup", "bread", "tea"][i / 2 % 4])
    });
    lab.write("reviews.tsv", rows.collect::<String>());
    let script: String = guide.split("```sh\n").skip(1).filter_map(|block| block.split_once("```")).map(|(commands, _)| commands).collect();
    let n_commands = script.lines().filter(|line| line.contains("kindling ")).count();
    assert!(n_commands >= 13, "{n_commands} commands are found");
    let task = script.split("END\n").next().unwrap_or_default().lines().count();
    assert!(task <= 10, "the task is made in {task} lines");
    // By its name, as a user has it, on one thread beside the other tests.
    let said = lab.shell(&format!("set -e\nkindling() {{ \"$KINDLING\" \"$@\" --threads 1; }}\n{script}")).ok();
    assert!(said.out.contains("naive Bayes on words") && said.out.contains("mood, classification, "), "{said}");
    assert!(said.out.lines().any(|line| line.starts_with("bad\tbad ")), "{said}");
    assert_eq!(lab.read("answers.jsonl").lines().count(), 240);
    let scores: serde_json::Value = serde_json::from_str(&lab.read("scores.json")).expect("JSON");
    assert!(scores["systems"][0]["scores"][0]["value"].as_f64().is_some_and(|accuracy| accuracy > 0.9), "{scores}");
    assert!(lab.names("runs").iter().any(|name| name == "tuned-head"));
    // NumPy's format, version 1: a matrix of 240 rows of 32 values.
    let npy = std::fs::read(lab.path("reviews.npy")).expect("a file");
    assert!(npy.starts_with(b"\x93NUMPY\x01\x00") && npy.len().is_multiple_of(64), "aligned");
    let header = String::from_utf8_lossy(&npy[10..128]).into_owned();
    assert!(header.contains("'descr': '<f4'") && header.contains("(240, 32"), "{header}");
    assert!(lab.read("runs/mood/tasks/mood/predictions.jsonl").lines().count() > 5);
}
