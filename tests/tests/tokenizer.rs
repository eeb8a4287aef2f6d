//! `kindling tokenizer`, and corpora in other formats than plain text.

use kindling_tests::Lab;
use serde_json::Value;

/// Lines of JSON, each a document with this text in this field.
fn json_lines(field: &str, texts: &[&str]) -> String {
    texts.iter().map(|text| format!("{}\n", serde_json::json!({ "id": 1, field: text }))).collect()
}

#[test]
fn a_trained_vocabulary_encodes_and_decodes() {
    let lab = Lab::new();
    let report = lab.run("tokenizer train --data text.txt --vocab-size 280 --out own.json --json").json();
    assert_eq!((&report["vocab_size"], &report["n_documents"]), (&280.into(), &1.into()), "{report}");
    let text = "the old river, naïve ☃ <|endoftext|>";
    let ids = lab.run(&format!("tokenizer encode own.json '{text}'")).ok().out;
    assert!(ids.split_whitespace().all(|id| id.parse::<u32>().is_ok_and(|id| id < 279)), "no special id: {ids}");
    assert_eq!(lab.run(&format!("tokenizer decode own.json {}", ids.trim_end())).ok().out, text);
    let allowed = lab.run(&format!("tokenizer encode own.json '{text}' --allow-special '<|endoftext|>'")).ok().out;
    assert!(allowed.trim_end().ends_with(" 279"), "{allowed}");
    let json = lab.run(&format!("tokenizer encode own.json '{text}' --json")).ok().out;
    assert_eq!(json.trim_end().trim_matches(['[', ']']).replace(',', " "), ids.trim_end());
    // Bytes that are no text pass through pipes.
    lab.write("bytes", b"a\xff\0\xc3 b\n");
    let said =
        lab.shell("\"$KINDLING\" tokenizer encode own.json --file bytes | \"$KINDLING\" tokenizer decode own.json | cmp - bytes").ok();
    assert_eq!(said.out, "");
}

#[test]
fn threads_and_files_make_the_same_vocabulary() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    let (head, tail) = text.split_at(text.find("\n").map_or(text.len(), |at| at + 1));
    lab.write("parts/a.txt", head);
    lab.write("parts/b.txt", tail);
    for (name, options) in [("one", "--data text.txt --threads 1"), ("two", "--data text.txt --threads 2"), ("parts", "--data parts")] {
        lab.run(&format!("tokenizer train --vocab-size 300 --out {name}.json {options}")).ok();
    }
    assert_eq!(lab.read("one.json"), lab.read("two.json"));
    assert_eq!(lab.read("one.json"), lab.read("parts.json"));
}

#[test]
fn published_vocabularies_are_there_by_name() {
    let lab = Lab::new();
    let ids = |name: &str| lab.run(&format!("tokenizer encode {name} 'Hello, world'")).ok().out;
    // As tiktoken gives them.
    for (name, expected) in [("gpt2", "15496 11 995\n"), ("cl100k_base", "9906 11 1917\n"), ("o200k_base", "13225 11 2375\n")] {
        assert_eq!(ids(name), expected);
    }
    let info = lab.run("tokenizer info gpt2 p50k_base --data text.txt --top 3 --json").json();
    assert_eq!((&info[0]["vocab_size"], &info[1]["vocab_size"]), (&50_257.into(), &50_281.into()));
    for info in info.as_array().expect("a list") {
        assert_eq!(info["longest_tokens"].as_array().map(Vec::len), Some(3));
        assert_eq!(info["text"]["n_bytes"], lab.read("text.txt").len());
        let ratio = info["text"]["bytes_per_token"].as_f64().expect("a number");
        assert!((2.0..8.0).contains(&ratio), "{ratio}");
    }
    let table = lab.run("tokenizer info gpt2 --data text.txt").ok();
    assert!(table.out.contains("bytes a token") && table.out.contains("50,257"), "{table}");
}

#[test]
fn a_run_can_have_a_published_vocabulary() {
    let lab = Lab::new();
    lab.run("TRAIN --name gpt2 --set tokenizer.kind=file --set tokenizer.path=gpt2 --set train.steps=1").ok();
    let tokenizer: Value = serde_json::from_str(&lab.read("runs/gpt2/tokenizer.json")).expect("JSON");
    assert_eq!(tokenizer["model"]["vocab"].as_object().map(serde_json::Map::len), Some(50_257));
    lab.run("generate gpt2").ok();
}

#[test]
fn prepare_says_what_train_will_use() {
    let lab = Lab::new();
    let prepare = "prepare --data-dir data --config tiny.toml --data text.txt";
    let said = lab.run(prepare).ok();
    for expected in ["left out       nothing", "bytes a token", "MB/s", "vocabulary     300 tokens (bpe)"] {
        assert!(said.out.contains(expected), "{expected}: {said}");
    }
    let report = lab.run(&format!("{prepare} --json")).json();
    assert_eq!((&report["reused"], &report["manifest"]["corpus"]["n_documents"]), (&true.into(), &1.into()));
    let manifest: Value = serde_json::from_str(&lab.read(&format!("{}/manifest.json", lab.prepared()))).expect("JSON");
    assert_eq!(report["manifest"], manifest);
    let data = lab.snapshot("data");
    lab.run("TRAIN --name old").ok();
    assert_eq!(lab.snapshot("data"), data);
    lab.check_errors(&[
        ("prepare --config missing.toml", &["missing.toml", "--config"]),
        ("prepare --config tiny.toml --data missing.txt", &["missing.txt"]),
    ]);
}

#[test]
fn rows_are_documents() {
    let lab = Lab::new();
    let text = lab.read("text.txt");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    lab.write("rows/a.jsonl", json_lines("body", &lines));
    let said = lab.run("TRAIN_ON rows --text-field body --name rows").ok();
    assert!(said.err.contains("corpus ") && said.err.contains(" documents"), "{said}");
    let manifest: Value = serde_json::from_str(&lab.read(&format!("{}/manifest.json", lab.prepared()))).expect("JSON");
    assert_eq!(manifest["corpus"]["n_documents"], lines.len());
    assert_eq!(manifest["corpus"]["n_bytes"], lines.iter().map(|line| line.len()).sum::<usize>());
    lab.run("train --threads 1 --resume rows --set train.steps=21").ok();
}

#[test]
fn bad_rows_are_told_or_skipped_and_counted() {
    let lab = Lab::with_run();
    let text = lab.read("text.txt");
    let good = json_lines("text", &text.lines().filter(|line| !line.is_empty()).collect::<Vec<_>>());
    lab.write("bad.jsonl", format!("{good}{{\"txt\": 1}}\n{good}"));
    let line = good.lines().count() + 1;
    lab.write("bad.csv", "id,text\n1,a\n2\n");
    lab.write("bad.jsonl.gz", b"\x1f\x8b\x08\0\0\0\0\0");
    lab.write("other.csv", "id,content\n1,a\n");
    lab.check_errors(&[
        ("TRAIN_ON bad.jsonl", &["bad.jsonl`", &format!("line {line}"), "no field `text`", "`txt`", "--skip-bad"]),
        ("TRAIN_ON bad.csv", &["bad.csv`, line 3", "1 fields, expected 2"]),
        ("TRAIN_ON bad.jsonl.gz", &["bad.jsonl.gz` cannot be read"]),
        ("TRAIN_ON other.csv", &["other.csv` has no field `text`", "id, content", "--text-field"]),
        ("tokenizer train --data bad.jsonl --out x.json", &["bad.jsonl`", "no field `text`"]),
    ]);
    let said = lab.run("TRAIN_ON bad.jsonl --skip-bad --name skipped").ok();
    assert!(said.err.contains("1 rows left out"), "{said}");
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    let lab = Lab::with_run();
    lab.write("broken.json", "{");
    lab.write("own.tiktoken", "YQ== 0\n");
    lab.write("latin.txt", b"na\xefve");
    lab.check_errors(&[
        ("tokenizer encode gpt3 x", &["`gpt3`", "cl100k_base"]),
        ("tokenizer encode missing.json x", &["missing.json", "No such file"]),
        ("tokenizer encode broken.json x", &["broken.json`", "tokenizer.json", "cut short"]),
        ("tokenizer encode own.tiktoken x", &["own.tiktoken`", "how text is split"]),
        ("tokenizer encode gpt2 x --allow-special '<pad>'", &["no special token `<pad>`"]),
        ("tokenizer encode gpt2 --file latin.txt --allow-special '<|endoftext|>'", &["byte 2 is not UTF-8"]),
        ("tokenizer decode gpt2 50257", &["`50257`", "less than `50257`"]),
        ("tokenizer train --data missing.txt", &["missing.txt", "No such file"]),
        ("tokenizer train --data latin.txt", &["latin.txt`", "UTF-8", "line 1"]),
        ("tokenizer train --data text.txt --vocab-size 100", &["`100`", "at least `257`"]),
        ("tokenizer train --data text.txt --pattern '(a'", &["split pattern `(a`"]),
        ("tokenizer train --data text.txt --special the --out x.json", &["special token `the`"]),
        ("tokenizer train --data text.txt --out none/x.json", &["none/x.json"]),
        ("tokenizer info gpt2 --data missing.txt", &["missing.txt"]),
        ("TRAIN --set tokenizer.kind=file --set tokenizer.path=gpt3", &["`gpt3`", "o200k_base"]),
    ]);
}
