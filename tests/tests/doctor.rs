//! `kindling doctor`: what it says of a config and a text, and that it leaves no run behind.

use kindling_tests::Lab;

const DOCTOR: &str = "doctor --threads 1 --runs-dir runs --data-dir data --config tiny.toml --data text.txt";
const CHECKS: [&str; 12] = [
    "fresh-loss",
    "next-tokens",
    "past",
    "future",
    "rows",
    "masked-targets",
    "accumulation",
    "finite-differences",
    "gradients",
    "updates",
    "overfitting",
    "validation",
];

#[test]
fn every_check_passes_and_no_run_is_made() {
    let lab = Lab::new();
    let said = lab.run(DOCTOR).ok();
    let rows: Vec<_> = said.out.lines().filter_map(|line| line.split_once("  passed  ")).map(|(name, _)| name.trim()).collect();
    assert_eq!(rows, CHECKS, "{said}");
    // More rows in a batch, so that it can be cut unevenly.
    assert!(said.out.starts_with("checked with train.batch_size 4 -> 6\n"), "{said}");
    assert!(!lab.path("runs").exists(), "a folder of runs");
}

#[test]
fn checks_are_numbers_in_json() {
    let lab = Lab::new();
    let value = lab.run(&format!("{DOCTOR} --quiet --json --set data.order=epoch --set data.document_mask=true")).json();
    assert_eq!((&value["passed"], &value["changed"][0]), (&true.into(), &"train.batch_size 4 -> 6".into()));
    let checks = value["checks"].as_array().expect("a list");
    let names: Vec<_> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(names, CHECKS);
    for check in checks {
        assert!(check["passed"] == true && check["measured"].as_f64() <= check["bound"].as_f64(), "{check}");
        assert!(check["claim"].is_string() && check["figure"].is_string(), "{check}");
    }
}

#[test]
fn every_recipe_is_checked_as_it_is() {
    let lab = Lab::new();
    for options in [
        "train.optimizer=muon --set train.z_loss=1e-3",
        "train.optimizer=lion --set train.lr=0.003 --set train.label_smoothing=0.05",
        "train.optimizer=sgd --set train.lr=0.3 --set train.gradient_checkpointing=true",
    ] {
        lab.run(&format!("{DOCTOR} --set {options}")).ok();
    }
}

#[test]
fn a_check_that_fails_is_named() {
    let lab = Lab::new();
    // No step that small is one in f32.
    let said = lab.run(&format!("{DOCTOR} --set train.lr=1e-30 --set train.min_lr=0"));
    let said = said.fails(&["2 of 12 checks failed: `updates`, `overfitting`"]);
    assert_eq!(said.out.lines().filter(|line| line.contains("  FAILED  ")).count(), 2, "{said}");
}

#[test]
fn a_config_that_cannot_train_is_refused_as_train_refuses_it() {
    let lab = Lab::new();
    lab.check_errors(&[
        ("doctor --config none.toml", &["none.toml"]),
        ("doctor --config tiny.toml", &["data.paths", "--data PATH"]),
        ("doctor --config tiny.toml --data none.txt", &["none.txt"]),
        ("doctor --config tiny.toml --data text.txt --set model.n_head=2", &["n_head", "n_heads"]),
        ("doctor --config tiny.toml --data text.txt --set model.context_len=100000", &["training", "100001"]),
        ("doctor --config tiny.toml --data text.txt --set model.vocab_size=7", &["model.vocab_size", "300"]),
    ]);
    assert!(!lab.path("runs").exists(), "a folder of runs");
}
