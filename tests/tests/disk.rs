//! Disks that are full and readers that have gone: the error is clear, and what was there before is still there.
//!
//! `ulimit -f` counts blocks of 512 or 1024 bytes, depending on the shell; every limit here does its work with both.

use std::io::Read;
use std::process::Stdio;

use kindling_tests::Lab;

/// One byte is read of what the command writes, then the pipe is closed.
fn check_closed_pipe(lab: &Lab, line: &str) {
    let mut child = lab.spawn(line);
    let mut out = child.stdout.take().expect("stdout is a pipe");
    out.read_exact(&mut [0]).expect("at least one byte");
    drop(out);
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!err.contains("panicked") && !err.contains("error"), "`{line}`: {err}");
    assert_eq!(output.status.code(), Some(0), "`{line}`: {err}");
}

#[test]
fn a_reader_that_has_enough() {
    let lab = Lab::with_run();
    for line in ["generate old --max-new-tokens 3000", "runs list", "runs show old --json", "devices", "eval old --text text.txt --json"] {
        check_closed_pipe(&lab, line);
    }
}

#[test]
#[cfg(unix)]
fn a_disk_that_is_too_small_is_said_before_anything_is_made() {
    let lab = Lab::with_run();
    let much = "--set train.steps=1000000000000 --set train.checkpoint_every=1 --set train.keep_every=1";
    lab.check_errors(&[
        (&format!("TRAIN --name new {much}"), &["the checkpoints of this run take", "GiB are free", "train.keep_checkpoints"]),
        (&format!("train --resume old {much}"), &["the checkpoints of this run take", "GiB are free"]),
    ]);
    assert!(!lab.path("runs/new").exists());
}

#[cfg(target_os = "linux")]
mod full {
    use std::fs::{File, OpenOptions, remove_file};
    use std::os::unix::fs::symlink;

    use super::*;

    fn full() -> File {
        OpenOptions::new().write(true).open("/dev/full").expect("Linux has /dev/full")
    }

    #[test]
    fn stdout() {
        let lab = Lab::with_run();
        for line in [
            "generate old",
            "generate old --json",
            "eval old --text text.txt",
            "runs list",
            "runs list --json",
            "runs show old",
            "devices",
            "TRAIN --name new",
            "TRAIN --name newer --json",
            "--help",
        ] {
            let child = lab.command(line).stdout(full()).stderr(Stdio::piped()).spawn().expect("kindling starts");
            let said = kindling_tests::Said::new(line, child.wait_with_output().expect("it ends"));
            if line == "--help" {
                assert!(!said.err.contains("panicked"), "{said}");
            } else {
                said.fails(&["stdout", "No space left"]);
            }
        }
        // What was trained is there, though nobody could be told.
        for run in ["new", "newer"] {
            assert_eq!(lab.summary(run)["steps"], 20);
            lab.run(&format!("generate {run}")).ok();
        }
    }

    #[test]
    fn stderr_does_not_end_a_training() {
        let lab = Lab::new();
        let status = lab.command("TRAIN --name deaf").stdout(Stdio::null()).stderr(full()).status().expect("kindling starts");
        assert_eq!(status.code(), Some(0));
        assert_eq!(lab.summary("deaf")["steps"], 20);
    }

    #[test]
    fn log_of_samples() {
        let lab = Lab::with_run();
        let samples = lab.path("runs/old/samples.md");
        remove_file(&samples).expect("the samples of the first 20 steps");
        symlink("/dev/full", &samples).expect("a link in the lab");
        lab.run("train --resume old --set train.steps=40 --set train.sample_every=25").fails(&[
            "samples.md",
            "No space left",
            "free some space",
        ]);
        lab.run("generate old").ok();
        remove_file(&samples).expect("the link");
        lab.run("train --resume old").ok();
        assert_eq!(lab.losses("old", "train").len(), 40);
    }

    #[test]
    fn checkpoint() {
        let lab = Lab::with_run();
        let before = lab.snapshot("runs/old/checkpoints");
        // Weights of 31 kB and moments of 63 kB; every other file is below 8 kB.
        let said = lab.shell("ulimit -f 32; exec $KINDLING train --resume old --threads 1 --set train.steps=40");
        said.fails(&["runs/old/", ".safetensors", "File too large", "free some space"]);
        for (path, bytes) in &before {
            assert!(std::fs::read(path).is_ok_and(|now| now == *bytes), "{} is as it was", path.display());
        }
        let hidden = |name: &String| name.starts_with('.');
        assert!(!lab.names("runs/old/checkpoints").iter().any(hidden), "nothing half-written is left");
        lab.run("generate old").ok();
        lab.run("train --resume old --threads 1").ok();
        let steps: Vec<_> = lab.losses("old", "train").into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, (1..=40).collect::<Vec<_>>());
    }

    #[test]
    fn first_checkpoint() {
        let lab = Lab::with_run();
        let said = lab.shell("ulimit -f 32; exec $KINDLING TRAIN --name new");
        said.fails(&["runs/new/", ".safetensors", "File too large", "free some space"]);
        // Begun and not lost: without the limit it comes out as if nothing had happened.
        lab.run("train --resume new --threads 1").ok();
        assert_eq!(lab.losses("new", "train"), lab.losses("old", "train"));
    }

    #[test]
    fn shards() {
        let lab = Lab::with_run();
        let before = lab.snapshot("runs");
        // A shard of 20 kB; a tokenizer of one.
        let said = lab.shell("ulimit -f 16; exec $KINDLING TRAIN --name new --set tokenizer.kind=char");
        said.fails(&["train-00000.bin", "File too large", "--data-dir"]);
        // A tokenizer of 8 kB.
        let said = lab.shell("ulimit -f 4; exec $KINDLING TRAIN --name new --set data.validation_fraction=0.2");
        said.fails(&["tokenizer.json", "File too large", "--data-dir"]);
        // A config of 0.7 kB.
        let said = lab.shell("ulimit -f 0; exec $KINDLING TRAIN --name new");
        said.fails(&["config.toml", "File too large"]);
        assert_eq!(lab.snapshot("runs"), before);
        let prepared = lab.prepared();
        assert!(lab.run("TRAIN --name new").ok().err.contains(&format!("reused in {prepared}")));
        // With room on the disk, what was begun goes on.
        let said = lab.run("TRAIN --name char --set tokenizer.kind=char").ok();
        assert!(said.err.contains("going on behind 0 shards"), "{said}");
        assert!(lab.names("data").iter().all(|name| !name.starts_with('.')), "{:?}", lab.names("data"));
    }
}
