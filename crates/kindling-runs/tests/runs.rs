//! Runs on disk: creation, locks, names, logs, checkpoints that verify, and those that do not.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::Path;

use kindling_config::RunConfig;
use kindling_runs::{Checkpoint, CheckpointKind, DataRef, Manifest, Registry, Run, RunStatus, RunsError, Summary};
use serde_json::json;
use xxhash_rust::xxh3::xxh3_128;

fn create(root: &Path, name: &str, created_unix_ms: i64) -> Result<Run, RunsError> {
    let config = RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &[]).unwrap();
    std::fs::create_dir_all(root).unwrap();
    let tokenizer = root.join(".tokenizer.json");
    std::fs::write(&tokenizer, "{}").unwrap();
    let text = String::new;
    let manifest = Manifest {
        format: text(),
        version: 0,
        name: text(),
        created_unix_ms,
        kindling: text(),
        burn: text(),
        code_hash: text(),
        lock_hash: text(),
        device: "flex".into(),
        threads: 1,
        precision: "f32".into(),
        n_params: 7,
        data: DataRef { dir: text(), data_hash: text(), corpus_hash: text(), tokenizer_hash: format!("{:032x}", xxh3_128(b"{}")) },
    };
    Run::create(root, name, &config, manifest, &tokenizer, None)
}

fn checkpoint(run: &Run, step: u64, keep: usize) -> std::path::PathBuf {
    run.write_checkpoint::<RunsError>(
        CheckpointKind::Last,
        step,
        keep,
        |_| false,
        |dir| Ok(std::fs::write(dir.join("a.bin"), step.to_le_bytes())?),
    )
    .unwrap()
}

#[test]
fn a_run_is_found_by_name_path_and_latest() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::new(root.path());
    assert!(matches!(registry.resolve("latest"), Err(RunsError::Unknown { .. })));
    assert_eq!(registry.next_name("a"), "a-1");
    // Created in the order b, a.
    let dirs = [create(root.path(), "a-1", 2000).unwrap().dir().to_owned(), create(root.path(), "b", 1000).unwrap().dir().to_owned()];
    assert_eq!(registry.next_name("a"), "a-2");
    assert_eq!(registry.resolve("b").unwrap(), dirs[1]);
    assert_eq!(registry.resolve("latest").unwrap(), dirs[0]);
    assert_eq!(registry.resolve(&dirs[1].display().to_string()).unwrap(), dirs[1]);
    let error = registry.resolve("c").unwrap_err().to_string();
    assert!(error.ends_with("which has `a-1`, `b`"), "{error}");
    // A folder that is no run does not hide the others.
    std::fs::create_dir(root.path().join("notes")).unwrap();
    assert_eq!(registry.list().unwrap().iter().map(|info| info.manifest.name.as_str()).collect::<Vec<_>>(), ["b", "a-1"]);
}

#[test]
fn names_are_checked_and_never_taken_twice() {
    let root = tempfile::tempdir().unwrap();
    create(root.path(), "a", 1).unwrap();
    assert!(matches!(create(root.path(), "a", 1), Err(RunsError::Exists(_))));
    for name in ["", ".", "..", "a/b", "latest", ".hidden", "-x", "ü"] {
        assert!(matches!(create(root.path(), name, 1), Err(RunsError::Name(_))), "{name}");
    }
    let left: Vec<_> = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing but the run and the test's tokenizer: {left:?}");
}

#[test]
fn one_writer_at_a_time_and_readers_always() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    assert!(matches!(Run::open_for_writing(run.dir()), Err(RunsError::Locked(_))));
    assert_eq!(Run::open(run.dir()).unwrap().info().unwrap().status, RunStatus::Running);
    let dir = run.dir().to_owned();
    drop(run);
    assert_eq!(Run::open(&dir).unwrap().info().unwrap().status, RunStatus::Interrupted);
    let run = Run::open_for_writing(&dir).unwrap();
    run.finish(&Summary {
        steps: 1,
        tokens: 1,
        validation_loss: 1.0,
        perplexity: None,
        bits_per_byte: None,
        accuracy: 0.0,
        best: (1.0, 1),
        tokens_per_s: 1.0,
        mfu: None,
        matmul_peak_flops_per_s: None,
        elapsed_s: 1.0,
        peak_memory_bytes: None,
        ended: kindling_runs::Ended::Steps,
        memorised: None,
        forgetting: None,
    })
    .unwrap();
    drop(run);
    assert_eq!(Run::open(&dir).unwrap().info().unwrap().status, RunStatus::Finished);
}

#[test]
fn the_log_survives_a_torn_line_and_is_rewound() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    for step in 1..=4 {
        run.log(&json!({ "step": step })).unwrap();
    }
    let path = run.dir().join("metrics.jsonl");
    let torn = std::fs::read_to_string(&path).unwrap() + "{\"step\": 5, \"lo";
    std::fs::write(&path, torn).unwrap();
    assert_eq!(run.metrics().unwrap().len(), 4);
    run.rewind_log(2).unwrap();
    run.log(&json!({ "step": 3, "again": true })).unwrap();
    assert_eq!(run.metrics().unwrap(), [json!({ "step": 1 }), json!({ "step": 2 }), json!({ "step": 3, "again": true })]);
}

#[test]
fn samples_cannot_end_their_own_block() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    run.log_sample(5, "text with ```` in it").unwrap();
    assert_eq!(std::fs::read_to_string(run.dir().join("samples.md")).unwrap(), "## Step 5\n\n`````text\ntext with ```` in it\n`````\n\n");
}

#[test]
fn the_newest_checkpoint_that_verifies_is_the_one_that_loads() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    assert!(matches!(run.last_checkpoint(), Err(RunsError::NoCheckpoint { rejected, .. }) if rejected.is_empty()));
    let dirs: Vec<_> = [10, 20, 30].map(|step| checkpoint(&run, step, 2)).into();
    assert!(!dirs[0].exists(), "only the last two are kept");
    assert_eq!(run.last_checkpoint().unwrap().0, Checkpoint { dir: dirs[2].clone(), step: 30 });

    let file = dirs[2].join("a.bin");
    let good = std::fs::read(&file).unwrap();
    for bad in [&good[..3], &[9; 8][..], &[][..]] {
        std::fs::write(&file, bad).unwrap();
        let (checkpoint, rejected) = run.last_checkpoint().unwrap();
        assert_eq!(checkpoint.step, 20);
        assert!(rejected[0].to_string().contains("a.bin"), "{rejected:?}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run.last_checkpoint().unwrap().0.step, 20);
    std::fs::remove_file(dirs[1].join("checkpoint.json")).unwrap();
    let error = run.last_checkpoint().unwrap_err();
    assert!(matches!(&error, RunsError::NoCheckpoint { rejected, .. } if rejected.len() == 2), "{error}");
}

#[test]
fn a_damaged_later_checkpoint_does_not_push_out_a_good_one() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    let dirs: Vec<_> = [10, 100].map(|step| checkpoint(&run, step, 2)).into();
    std::fs::write(dirs[1].join("a.bin"), "damaged").unwrap();
    checkpoint(&run, 20, 2);
    assert!(dirs[0].exists() && !dirs[1].exists());
    assert_eq!(run.last_checkpoint().unwrap().0.step, 20);
}

#[test]
fn a_copied_run_is_called_by_its_folder() {
    let root = tempfile::tempdir().unwrap();
    let registry = Registry::new(root.path().join("runs"));
    let dir = create(registry.root(), "a", 1).unwrap().dir().to_owned();
    std::fs::rename(&dir, registry.root().join("b")).unwrap();
    let run = Run::open(&registry.resolve("b").unwrap()).unwrap();
    assert_eq!((run.name(), registry.handle(&run).as_str()), ("b", "b"));
    let elsewhere = root.path().join("c");
    std::fs::rename(registry.root().join("b"), &elsewhere).unwrap();
    let run = Run::open(&elsewhere).unwrap();
    assert_eq!(registry.resolve(&registry.handle(&run)).unwrap(), elsewhere);
}

#[test]
fn a_checkpoint_that_fails_half_way_leaves_no_trace() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    checkpoint(&run, 10, 1);
    let failed = run.write_checkpoint::<RunsError>(
        CheckpointKind::Last,
        20,
        1,
        |_| false,
        |dir| {
            std::fs::write(dir.join("a.bin"), "half")?;
            Err(std::io::Error::other("the disk is full").into())
        },
    );
    assert!(failed.unwrap_err().to_string().contains("the disk is full"));
    assert_eq!(run.last_checkpoint().unwrap().0.step, 10);
    assert_eq!(std::fs::read_dir(run.dir().join("checkpoints")).unwrap().count(), 1);
}

#[test]
fn an_edited_tokenizer_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    let path = run.tokenizer_path().unwrap();
    std::fs::write(path, "{ }").unwrap();
    assert!(matches!(run.tokenizer_path(), Err(RunsError::Damaged { .. })));
}

#[test]
fn what_a_killed_process_left_half_written_is_removed_by_the_next_writer() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    let whole = checkpoint(&run, 10, 1);
    let dir = run.dir().to_owned();
    drop(run);
    let left = [dir.join("checkpoints/.writing-x"), dir.join(".writing-y")];
    std::fs::create_dir(&left[0]).unwrap();
    std::fs::write(left[0].join("model.safetensors"), "half").unwrap();
    std::fs::write(&left[1], "half").unwrap();
    Run::open(&dir).unwrap();
    assert!(left.iter().all(|path| path.exists()), "a reader changes nothing");
    Run::open_for_writing(&dir).unwrap();
    assert!(whole.exists() && !left.iter().any(|path| path.exists()));
}

#[test]
fn each_start_has_an_event_file_behind_those_before_it() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1).unwrap();
    // As of a clock that has been set back since.
    std::fs::write(run.dir().join("events.out.tfevents.4000000000.kindling"), "").unwrap();
    for first_step in [1, 300] {
        run.tensorboard(first_step).unwrap().text("sample", first_step, "`a`\n```").unwrap();
    }
    let read = |second: u64| std::fs::read(run.dir().join(format!("events.out.tfevents.{second}.kindling"))).unwrap();
    for (second, start) in [(4_000_000_001, vec![16, 1, 58, 2, 8, 1]), (4_000_000_002, vec![16, 172, 2, 58, 2, 8, 1])] {
        let mut bytes = read(second);
        let mut contents = Vec::new();
        while !bytes.is_empty() {
            let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            contents.push(bytes[12..12 + len].to_vec());
            bytes.drain(..16 + len);
        }
        let [version, session, text] = contents.as_slice() else { panic!("{} records", contents.len()) };
        assert!(version.ends_with(b"brain.Event:2"));
        // Behind the nine bytes of the time: the step, and that a session starts.
        assert_eq!(session[9..], start);
        let text = String::from_utf8_lossy(text);
        assert!(text.contains("````text\n`a`\n```\n````\n"), "{text}");
    }
}

#[test]
fn a_checkpoint_that_was_being_replaced_gets_its_name_back() {
    let root = tempfile::tempdir().unwrap();
    let run = create(root.path(), "a", 1000).unwrap();
    let dir = checkpoint(&run, 10, 1);
    drop(run);
    // Killed behind the first of two renames.
    std::fs::rename(&dir, dir.parent().unwrap().join(".writing-old-step-00000010")).unwrap();
    let run = Run::open_for_writing(dir.parent().unwrap().parent().unwrap()).unwrap();
    assert_eq!(run.last_checkpoint().unwrap().0, Checkpoint { dir, step: 10 });
}
