//! Runs and prepared data of every version so far still load, and the runs score, generate and train on.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use kindling_data::{Prepared, RowsOf, encode_document, read_rows};
use kindling_eval::{Predictor, Test, validate};
use kindling_infer::{generate, open};
use kindling_runs::Run;
use kindling_train::{Outcome, Training, train};

const RUNS: [&str; 3] = ["run-v1", "run-v2", "run-v3"];
const DATA: [&str; 3] = ["data-v1", "data-v2", "data-v3"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() { copy(&from, &to) } else { assert!(std::fs::copy(&from, &to).is_ok()) }
    }
}

#[test]
fn old_runs_are_opened_scored_and_sampled() {
    for name in RUNS {
        let opened = open(&fixture(name), &Device::flex()).unwrap();
        assert_eq!(opened.step, 200);
        let data = Prepared::open(&fixture("data-v1")).unwrap();
        let summary = opened.run.summary().unwrap().unwrap();
        let loss = validate(&opened.model, &data, None, &mut |_, _| {}).nll.loss();
        // Processors round differently; a wrong weight or shard would be off by far more.
        assert!((loss - summary.validation_loss).abs() < 1e-4, "{name}: {loss}, expected {}", summary.validation_loss);

        let config = &opened.run.config().sample;
        let text: String = generate(&opened.model, &opened.tokenizer, config, 0).unwrap().map(Result::unwrap).collect();
        let recorded = std::fs::read_to_string(fixture(name).join("samples.md")).unwrap();
        assert!(recorded.contains(&format!("{}{text}", config.prompt)), "{name}: greedy text {text:?} is not that of {recorded:?}");
    }
}

#[test]
fn old_shards_hold_the_text() {
    for name in DATA {
        let data = Prepared::open(&fixture(name)).unwrap();
        let text = std::fs::read_to_string(fixture("kindling.txt")).unwrap();
        let whole = [data.training.read(0, data.training.n_tokens()), data.validation.read(0, data.validation.n_tokens())].concat();
        assert_eq!(data.tokenizer.decode_lossy(&whole[1..]).unwrap(), text);
        assert_eq!(
            whole[..data.training.n_tokens() as usize],
            encode_document(&data.tokenizer, &text[..data.manifest.training.n_bytes as usize], true).unwrap()
        );
    }
}

#[test]
fn an_old_adapter_and_old_examples_are_used_and_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let (run, data) = (dir.path().join("run"), dir.path().join("data"));
    copy(&fixture("run-v3-lora"), &run);
    copy(&fixture("data-v4"), &data);
    let data = Prepared::open(&data).unwrap();
    let opened = open(&run, &Device::flex()).unwrap();
    let best = opened.run.summary().unwrap().unwrap().best;
    let loss = validate(&opened.model, &data, None, &mut |_, _| {}).nll.loss();
    assert!((loss - best.0).abs() < 1e-4 && opened.step == best.1, "{loss}, expected {best:?}");
    let config = &opened.run.config().sample;
    let text: String = generate(&opened.model, &opened.tokenizer, config, 0).unwrap().map(Result::unwrap).collect();
    let recorded = std::fs::read_to_string(fixture("run-v3-lora").join("samples.md")).unwrap();
    assert!(recorded.contains(&format!("{}{text}", config.prompt)), "greedy text {text:?} is not that of {recorded:?}");

    // What is learned of each row is what the rows say.
    let learned: usize = [&data.training, &data.validation]
        .map(|split| split.read_marked(0..split.n_tokens()).into_iter().filter(|token| token.is_learned()).count())
        .into_iter()
        .sum();
    let rows = std::fs::read_to_string(fixture("rows.jsonl")).unwrap();
    let of_row = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        data.tokenizer.encode(row["completion"].as_str().unwrap()).unwrap().len() + 1
    };
    assert_eq!(learned, rows.lines().map(of_row).sum::<usize>());

    let run = Run::open_for_writing(&run).unwrap();
    let mut config = run.config().clone();
    config.train.steps += 3;
    let stop = AtomicBool::new(false);
    let outcome = train(&Training { run: &run, config: &config, data: &data, device: &Device::flex(), stop: &stop }, &mut []).unwrap();
    let Outcome::Finished(summary) = outcome else { panic!("{outcome:?}") };
    assert_eq!(summary.steps, 63);
}

#[test]
fn old_runs_go_on_training() {
    for name in RUNS {
        let dir = tempfile::tempdir().unwrap();
        let (run, data) = (dir.path().join("run"), dir.path().join("data"));
        copy(&fixture(name), &run);
        copy(&fixture("data-v1"), &data);
        let run = Run::open_for_writing(&run).unwrap();
        let mut config = run.config().clone();
        config.train.steps += 3;
        let data = Prepared::open(&data).unwrap();
        let stop = AtomicBool::new(false);
        let outcome = train(&Training { run: &run, config: &config, data: &data, device: &Device::flex(), stop: &stop }, &mut []).unwrap();
        let Outcome::Finished(summary) = outcome else { panic!("{outcome:?}") };
        assert_eq!((summary.steps, summary.tokens), (203, 203 * 8 * 16));
        assert!(summary.validation_loss < 1.5, "{name}: {}", summary.validation_loss);
    }
}

#[test]
fn an_old_head_and_old_tests_are_used_and_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let (run, data) = (dir.path().join("run"), dir.path().join("data"));
    copy(&fixture("run-v3-head"), &run);
    copy(&fixture("data-v5"), &data);
    let data = Prepared::open(&data).unwrap();
    assert_eq!(data.manifest.corpus.test_documents, 17);
    let opened = open(&run, &Device::flex()).unwrap();
    let best = opened.run.summary().unwrap().unwrap().best;
    let loss = validate(&opened.model, &data, None, &mut |_, _| {}).nll.loss();
    assert!((loss - best.0).abs() < 1e-4 && opened.step == best.1, "{loss}, expected {best:?}");

    // The same rows are held out, and answered as they were.
    let mut config = opened.run.config().data.clone();
    config.paths = vec![fixture("rows.jsonl")];
    let rows = read_rows(&config, RowsOf::Test, dir.path()).unwrap();
    let task = opened.run.config().task.clone().unwrap();
    let predictor = Predictor { model: &opened.model, tokenizer: &opened.tokenizer, task: &task, batch_size: 4 };
    let test = Test::new(&task, &opened.tokenizer, rows, false).unwrap();
    let answers = predictor.answer(&test.questions, &mut |_, _| {}).unwrap();
    let report = test.report(&task, &answers, &[]);
    let recorded = std::fs::read_to_string(fixture("run-v3-head").join("tasks/letter/predictions.jsonl")).unwrap();
    let recorded: Vec<serde_json::Value> = recorded.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |prompt: &str, said: &str| format!("{prompt}{said}");
    let found: Vec<_> = report.predictions.iter().map(|one| said(&one.prompt, &one.prediction)).collect();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    assert_eq!(found, recorded.iter().map(|one| said(&text(&one["prompt"]), &text(&one["prediction"]))).collect::<Vec<_>>());

    let run = Run::open_for_writing(&run).unwrap();
    let mut config = run.config().clone();
    config.train.steps += 3;
    let stop = AtomicBool::new(false);
    let outcome = train(&Training { run: &run, config: &config, data: &data, device: &Device::flex(), stop: &stop }, &mut []).unwrap();
    let Outcome::Finished(summary) = outcome else { panic!("{outcome:?}") };
    assert_eq!(summary.steps, 63);
}
