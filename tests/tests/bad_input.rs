//! Input that no run can come of: each gets a clear error, a hint, and exit code 1, or 2 where the command itself is wrong.
//! What is damaged after it was written is in `damaged.rs`; disks that are full are in `disk.rs`.

use std::fs::{self, File};

use kindling_tests::{Lab, check_usage, is_root, line_of};

#[test]
fn files_that_hold_no_text() {
    let lab = Lab::with_run();
    lab.write("empty.txt", "");
    lab.write("bom.txt", b"\xef\xbb\xbf");
    lab.write("folder/.hidden", "text that does not count");
    lab.write("binary.txt", b"abc\0def");
    lab.write("small.txt", "few words");
    lab.check_errors(&[
        ("TRAIN_ON missing.txt", &["missing.txt", "No such file"]),
        // A file where the path needs a folder: unreadable to everyone, root included.
        ("TRAIN_ON text.txt/x", &["text.txt/x", "Not a directory"]),
        ("TRAIN_ON empty.txt", &["`", "empty.txt`", "no text"]),
        ("TRAIN_ON bom.txt", &["bom.txt`", "no text"]),
        ("TRAIN_ON folder", &["folder`", "no text", "hidden"]),
        ("TRAIN_ON binary.txt", &["binary.txt`", "byte 3", "NUL"]),
        ("TRAIN_ON small.txt", &["training split", "tokens", "expected at least 17", "model.context_len"]),
        ("TRAIN_ON 'none/*.txt'", &["none/*.txt", "no file"]),
        ("TRAIN_ON 'non*.txt'", &["non*.txt", "no file"]),
        ("TRAIN_ON '[.txt'", &["[.txt", "not a glob"]),
        (
            "TRAIN --set data.validation_fraction=0.00001",
            &["validation split", "1 token", "expected at least 2", "data.validation_fraction"],
        ),
        ("TRAIN --set data.split=document", &["1 document", "at least 2", "data.split=tail"]),
        ("TRAIN --data missing.txt", &["missing.txt"]),
        ("eval old --text missing.txt", &["missing.txt", "No such file"]),
        ("eval old --text text.txt/x", &["text.txt/x", "Not a directory"]),
        ("eval old --text folder", &["folder", "directory"]),
        ("eval old --text empty.txt", &["empty.txt`", "no text"]),
        ("eval old --text binary.txt", &["binary.txt`", "byte 3", "NUL"]),
    ]);
}

#[test]
fn files_that_may_not_be_read() {
    let lab = Lab::with_run();
    if is_root(&lab) {
        // Root reads everything; a file in the place of a folder is refused to it too, and checked above.
        return;
    }
    lab.check_errors(&[
        ("TRAIN_ON secret", &["secret", "ermission denied", "permissions"]),
        ("eval old --text secret", &["secret", "ermission denied", "permissions"]),
        ("train --config secret --data text.txt", &["secret", "ermission denied"]),
    ]);
}

#[test]
fn invalid_utf8_is_located() {
    let lab = Lab::with_run();
    lab.write("latin.txt", b"first\nna\xefve\n");
    // The mark at its beginning is no text, but the three bytes are in the file.
    lab.write("marked.txt", b"\xef\xbb\xbffirst\nna\xefve\n");
    lab.write("marked-binary.txt", b"\xef\xbb\xbfab\0");
    lab.write("folder/good.txt", "good");
    lab.write("folder/latin.txt", b"\n\n\xe9");
    lab.check_errors(&[
        ("TRAIN_ON latin.txt", &["latin.txt`", "UTF-8", "line 2", "byte 8 ", "0xef", "--lossy"]),
        ("TRAIN_ON marked.txt", &["marked.txt`", "line 2", "byte 11 ", "0xef"]),
        ("TRAIN_ON marked-binary.txt", &["marked-binary.txt`", "byte 5 ", "NUL"]),
        ("TRAIN_ON folder", &["folder/latin.txt`", "line 3", "byte 2 ", "0xe9", "--lossy"]),
        ("eval old --text latin.txt", &["latin.txt`", "line 2", "byte 8 ", "0xef", "--lossy"]),
    ]);
}

#[test]
fn invalid_utf8_goes_through_with_lossy() {
    let lab = Lab::new();
    let mut bytes = fs::read(lab.path("text.txt")).expect("the lab's text");
    bytes[6000] = 0xff;
    lab.write("latin.txt", bytes);
    lab.run("TRAIN_ON latin.txt --name strict").fails(&["latin.txt`", "byte 6000 "]);
    let said = lab.run("TRAIN_ON latin.txt --name lossy --lossy").ok();
    assert!(said.err.contains("1 file"), "how many files were changed is said: {said}");
    lab.run("eval lossy --text latin.txt").fails(&["--lossy"]);
    lab.run("eval lossy --text latin.txt --lossy").ok();
    assert_eq!(lab.names("runs"), ["lossy"]);
}

#[test]
fn texts_that_a_vocabulary_cannot_express() {
    let lab = Lab::new();
    lab.run("TRAIN --name old --set tokenizer.kind=char").ok();
    lab.write("snow.txt", "the ☃");
    lab.write("one.txt", "t");
    lab.check_errors(&[
        ("eval old --text snow.txt", &["`☃`", "byte 4", "not in the vocabulary"]),
        ("eval old --text one.txt", &["1 token", "at least 2"]),
        ("generate old --prompt ☃", &["`☃`", "byte 0", "not in the vocabulary"]),
        ("generate old --prompt ''", &["prompt is empty", "--prompt"]),
        // Said before anything is trained, and not when the first sample is due.
        ("TRAIN --set tokenizer.kind=char --set sample.prompt=☃", &["`☃`", "not in the vocabulary", "sample.prompt"]),
        ("TRAIN --set tokenizer.kind=char --set sample.prompt=", &["prompt", "empty", "sample.prompt"]),
        ("TRAIN --set tokenizer.kind=char --set data.document_mask=true", &["`data.document_mask`", "end-of-text", "`<|endoftext|>`"]),
        ("train --resume old --set train.steps=40 --set sample.prompt=☃", &["`☃`", "not in the vocabulary"]),
    ]);
}

#[test]
fn keys_that_no_config_has() {
    let lab = Lab::with_run();
    let typo = lab.config("d_model = 16", "d_modle = 16");
    let line = format!("line {}", line_of(&typo, "d_modle"));
    lab.write("typo.toml", &typo);
    lab.write("section.toml", lab.config("[model]", "[modell]"));
    lab.write("stray.toml", lab.config("[model]", "[model]\nqwertz = 1"));
    lab.check_errors(&[
        ("train --config typo.toml", &["typo.toml", &line, "`d_modle`", "did you mean `d_model`?"]),
        ("train --config typo.toml --data text.txt", &["typo.toml", &line, "`d_modle`", "did you mean `d_model`?"]),
        ("train --config section.toml --data text.txt", &["section.toml", "`modell`", "did you mean `model`?"]),
        ("train --config stray.toml --data text.txt", &["stray.toml", "`qwertz`", "`d_model`"]),
        ("TRAIN --set model.d_modle=32", &["--set", "`d_modle`", "did you mean `d_model`?"]),
        ("TRAIN --set modell.d_model=32", &["--set", "`modell`", "did you mean `model`?"]),
        ("TRAIN --set model.qwertz=32", &["--set", "`qwertz`", "`d_model`"]),
        ("TRAIN --set train.steps", &["`train.steps`", "section.key=value"]),
        ("TRAIN --set =5", &["`=5`", "section.key=value"]),
        ("TRAIN --set train..steps=5", &["`train..steps=5`", "section.key=value"]),
        ("TRAIN --set train.steps.more=5", &["`train.steps.more=5`", "section.key=value"]),
        ("train --resume old --set train.stepps=40", &["`stepps`", "did you mean `steps`?"]),
    ]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_training_that_no_memory_holds() {
    let lab = Lab::with_run();
    lab.check_errors(&[
        ("TRAIN --set train.batch_size=1048576 --set model.d_model=16384", &["GiB", "available", "`train.micro_batch_size`"]),
        ("TRAIN --set model.n_layers=16777216", &["GiB", "available", "`model.n_layers`"]),
    ]);
}

#[test]
fn values_that_are_impossible() {
    let lab = Lab::with_run();
    lab.check_errors(&[
        ("TRAIN --set model.n_heads=3", &["`model.n_heads` is 3", "divisor", "16"]),
        ("TRAIN --set model.d_model=15", &["`model.n_heads` is 2", "divisor", "15"]),
        ("TRAIN --set model.n_layers=0", &["`model.n_layers` is 0", "from 1"]),
        ("TRAIN --set model.n_heads=0", &["`model.n_heads` is 0", "from 1"]),
        ("TRAIN --set model.d_model=0", &["`model.d_model` is 0", "from 1"]),
        ("TRAIN --set model.d_ff=0", &["`model.d_ff` is 0", "from 1"]),
        ("TRAIN --set model.context_len=0", &["`model.context_len` is 0", "from 1"]),
        ("TRAIN --set train.steps=0", &["`train.steps` is 0", "from 1"]),
        ("TRAIN --set train.batch_size=0", &["`train.batch_size` is 0", "from 1"]),
        ("TRAIN --set train.eval_every=0", &["`train.eval_every` is 0", "from 1"]),
        ("TRAIN --set model.d_model=99999999999", &["`model.d_model` is 99999999999", "16777216"]),
        ("TRAIN --set model.vocab_size=16777216 --set model.d_model=16777216", &["`model.d_model`", "parameters", "1.1e12"]),
        ("TRAIN --set train.beta_2=0.9999999999", &["`train.beta_2`", "below 1"]),
        ("TRAIN --set model.n_layers=-1", &["model.n_layers", "-1", "!usize"]),
        ("TRAIN --set seed=-5", &["seed", "-5", "!u64"]),
        ("TRAIN --set train.lr=-1", &["`train.lr` is -1", "above 0"]),
        ("TRAIN --set train.lr=nan", &["`train.lr` is NaN", "above 0"]),
        ("TRAIN --set train.min_lr=1", &["`train.min_lr` is 1", "0.01"]),
        ("TRAIN --set train.beta_1=1", &["`train.beta_1` is 1", "below 1"]),
        ("TRAIN --set train.grad_clip=-1", &["`train.grad_clip` is -1"]),
        ("TRAIN --set model.norm_eps=0", &["`model.norm_eps` is 0", "above 0"]),
        ("TRAIN --set model.dropout.attention=1", &["`model.dropout.attention` is 1", "below 1"]),
        ("TRAIN --set data.validation_fraction=1", &["`data.validation_fraction` is 1", "below 1"]),
        ("TRAIN --set data.validation_fraction=0", &["`data.validation_fraction` is 0", "above 0"]),
        ("TRAIN --set tokenizer.vocab_size=100", &["`tokenizer.vocab_size` is 100", "257"]),
        ("TRAIN --set model.vocab_size=100", &["`model.vocab_size` is 100", "300", "leave `model.vocab_size` out"]),
        ("TRAIN --set tokenizer.kind=file", &["`tokenizer.path` is missing", "tokenizer.json"]),
        ("TRAIN --set tokenizer.kind=file --set tokenizer.path=none.json", &["none.json", "No such file"]),
        ("TRAIN --set tokenizer.kind=file --set tokenizer.path=text.txt", &["text.txt", "not a tokenizer.json"]),
        ("TRAIN --set sample.top_p=0", &["`sample.top_p` is 0", "above 0"]),
        ("TRAIN --set sample.temperature=-1", &["`sample.temperature` is -1"]),
        ("generate old --temperature=-1", &["temperature", "-1"]),
        ("generate old --top-p 0", &["top_p", "above 0"]),
        ("generate old --max-new-tokens 0", &["max_new_tokens", "from 1"]),
    ]);
}

#[test]
fn values_of_another_type() {
    let lab = Lab::with_run();
    let typed = lab.config("n_layers = 1", "n_layers = \"one\"");
    let line = format!("line {}", line_of(&typed, "n_layers"));
    lab.write("typed.toml", &typed);
    lab.write("broken.toml", lab.config("n_layers = 1", "n_layers = 1]"));
    lab.write("missing.toml", lab.config("n_layers = 1\n", ""));
    lab.write("latin.toml", b"name = \"na\xefve\"");
    lab.check_errors(&[
        ("train --config typed.toml", &["typed.toml", &line, "n_layers", "\"one\"", "!usize"]),
        ("train --config typed.toml --data text.txt", &["typed.toml", &line, "n_layers", "\"one\"", "!usize"]),
        ("train --config broken.toml --data text.txt", &["broken.toml", &line]),
        ("train --config missing.toml --data text.txt", &["missing.toml", "`n_layers`"]),
        ("train --config latin.toml --data text.txt", &["latin.toml", "UTF-8"]),
        ("train --config none.toml --data text.txt", &["none.toml", "No such file", "--config"]),
        ("train --config runs --data text.txt", &["`runs`", "directory"]),
        ("TRAIN --set model.n_layers=two", &["--set", "n_layers", "\"two\"", "!usize"]),
        ("TRAIN --set model.n_layers=1.5", &["--set", "n_layers", "1.5", "!usize"]),
        ("TRAIN --set model=two", &["--set", "model", "\"two\"", "!struct"]),
        ("TRAIN --set model.bias=1", &["--set", "bias"]),
        ("TRAIN --set tokenizer.kind=wrod", &["--set", "`wrod`", "`word`"]),
    ]);
}

#[test]
fn devices_that_are_not_there() {
    let lab = Lab::with_run();
    lab.check_errors(&[
        ("TRAIN --device warp", &["`warp`", "`flex`", "`cuda`", "kindling devices"]),
        ("generate old --device warp", &["`warp`", "`flex`"]),
        ("eval old --text text.txt --device warp", &["`warp`", "`flex`"]),
        ("TRAIN --device flex:one", &["`flex:one`"]),
        ("TRAIN --device flex:1", &["`flex:1`", "flex:0"]),
    ]);
    // Whichever this binary lacks. No binary has both: one is for Macs, the other for Linux.
    let devices = lab.run("devices --json").json();
    let devices = devices.as_array().expect("a list of devices");
    let lacking: Vec<_> =
        devices.iter().filter(|device| device["compiled"] == false).filter_map(|device| device["name"].as_str()).collect();
    assert!(lacking.contains(&"metal") || lacking.contains(&"rocm"), "{lacking:?}");
    for name in lacking {
        let expected = [&format!("`{name}`"), "not compiled", "cargo build --release", &format!("--features {name}")];
        lab.check_errors(&[(&format!("TRAIN --device {name}"), &expected), (&format!("generate old --device {name}"), &expected)]);
    }
}

#[test]
fn names_that_no_run_can_have() {
    let lab = Lab::with_run();
    lab.write("slash.toml", lab.config("name = \"tiny\"", "name = \"a/b\""));
    lab.check_errors(&[
        ("TRAIN --name old", &["`old` exists", "--name", "--resume old"]),
        ("TRAIN --name a/b", &["`a/b`", "letters, digits"]),
        ("TRAIN --name ..", &["`..`", "!exists"]),
        ("TRAIN --name /etc", &["`/etc`", "letters, digits", "!exists"]),
        ("TRAIN --name .hidden", &["`.hidden`"]),
        ("TRAIN --name ''", &["name", "!exists"]),
        ("TRAIN --name schön", &["`schön`", "letters, digits"]),
        // It stands for the newest run; its letters are not what is wrong with it.
        ("TRAIN --name latest", &["`latest`", "!is not made of"]),
        // The commands that are printed for it would take it for an option.
        ("TRAIN --name=-x", &["`-x`"]),
        ("train --config slash.toml --data text.txt", &["`name`", "`a/b`", "letters, digits"]),
    ]);
    // Said before the corpus is read, so nothing was prepared for it.
    assert_eq!(lab.names("data").len(), 1);
}

#[test]
fn a_name_is_checked_before_minutes_of_work() {
    let lab = Lab::new();
    for name in ["a/b", "latest", ".."] {
        lab.run(&format!("TRAIN --name {name}")).fails(&[&format!("`{name}`")]);
    }
    assert!(!lab.path("data").exists() && !lab.path("runs").exists(), "nothing was written");
}

#[test]
fn runs_that_are_not_there() {
    let lab = Lab::with_run();
    lab.run("TRAIN --name new").ok();
    lab.write("runs/notes/readme.txt", "no run");
    let expected: &[&str] = &["`none`", "`runs`", "`new`, `old`", "kindling runs list"];
    lab.check_errors(&[
        ("generate none", expected),
        ("eval none --text text.txt", expected),
        ("runs show none", expected),
        ("train --resume none", expected),
        ("generate ''", &["no run ``", "`old`"]),
        ("generate runs/none", &["`runs/none`", "`old`"]),
        ("generate notes", &["notes"]),
        ("--runs-dir nowhere generate", &["`latest`", "`nowhere`"]),
        ("--runs-dir nowhere train --resume", &["`latest`", "`nowhere`"]),
    ]);
}

#[test]
fn a_run_that_another_process_is_writing() {
    let lab = Lab::with_run();
    let lock = File::open(lab.path("runs/old/lock")).expect("the run's lock");
    lock.try_lock().expect("nobody writes a finished run");
    lab.check_errors(&[
        ("train --resume old", &["`old`", "another process"]),
        ("train --resume old --set train.steps=40", &["`old`", "another process"]),
        ("TRAIN --name old", &["`old` exists"]),
    ]);
    // Readers need no lock.
    lab.run("eval old --text text.txt").ok();
    assert_eq!(lab.run("runs show old --json").json()["status"], "running");
    drop(lock);
    lab.run("train --resume old --set train.steps=40").ok();
}

#[test]
fn places_that_cannot_be_written() {
    let lab = Lab::with_run();
    lab.check_errors(&[
        // A file is in the folder's place.
        ("train --runs-dir text.txt --config tiny.toml --data text.txt", &["`text.txt", "--runs-dir"]),
        ("train --runs-dir text.txt/x --config tiny.toml --data text.txt", &["text.txt/x", "--runs-dir"]),
        ("train --data-dir text.txt --config tiny.toml --data text.txt", &["`text.txt", "--data-dir"]),
        ("train --data-dir text.txt/x --config tiny.toml --data text.txt", &["text.txt/x", "--data-dir"]),
    ]);
    if !is_root(&lab) {
        lab.shell("mkdir closed && chmod 555 closed").ok();
        lab.check_errors(&[
            ("train --runs-dir closed --config tiny.toml --data text.txt", &["closed", "ermission denied", "--runs-dir"]),
            ("train --data-dir closed --config tiny.toml --data text.txt", &["closed", "ermission denied", "--data-dir"]),
        ]);
    }
    if cfg!(target_os = "linux") {
        // Nobody can make folders there, root included.
        lab.check_errors(&[
            ("train --runs-dir /proc/kindling --config tiny.toml --data text.txt", &["/proc/kindling", "--runs-dir"]),
            ("train --data-dir /proc/kindling --config tiny.toml --data text.txt", &["/proc/kindling", "--data-dir"]),
        ]);
    }
}

#[test]
fn commands_that_are_wrong() {
    let lab = Lab::with_run();
    let before = lab.snapshot("runs");
    for (line, expected) in [
        ("train --no-such-flag", "--no-such-flag"),
        ("train --config", "--config"),
        ("train --config tiny.toml --resume old", "--resume"),
        ("train --data text.txt --resume old", "--resume"),
        ("train --name x --resume old", "--resume"),
        ("train --lossy --resume old", "--resume"),
        ("TRAIN --threads 0", "--threads"),
        ("TRAIN --threads many", "--threads"),
        ("generate old --seed x", "--seed"),
        ("generate old --seed -1", "-1"),
        ("generate old --temperature warm", "--temperature"),
        ("generate old older", "older"),
        ("apply", "<RUN>"),
        ("runs remove old", "remove"),
        ("trian", "trian"),
        ("", "Usage"),
    ] {
        check_usage(&lab.run(line), expected);
    }
    assert_eq!(lab.snapshot("runs"), before);
}
