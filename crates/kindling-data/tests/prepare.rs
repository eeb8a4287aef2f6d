//! From text files to a prepared folder and back: splits, reuse, damage, order.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::Path;

use kindling_config::{Redaction, RunConfig};
use std::sync::atomic::AtomicBool;

use kindling_data::{DataError, Preparation, PrepareEvent, Prepared, encode_document, prepare, read_document};

/// Spark's config on `paths` with some changes.
fn config(paths: &[&Path], overrides: &[&str]) -> RunConfig {
    let paths: Vec<_> = paths.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let mut all = vec![format!("data.paths=[{}]", paths.join(",")), "model.context_len=8".into(), "tokenizer.vocab_size=300".into()];
    all.extend(overrides.iter().map(|o| (*o).to_owned()));
    RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &all).unwrap()
}

fn prepared(dir: &Path, config: &RunConfig) -> Result<Prepared, DataError> {
    prepared_in(dir, dir, config, &mut |_| {})
}

fn prepared_in(
    dir: &Path,
    workspace: &Path,
    config: &RunConfig,
    progress: &mut dyn FnMut(PrepareEvent<'_>),
) -> Result<Prepared, DataError> {
    let stop = AtomicBool::new(false);
    prepare(&Preparation { config, data_dir: &dir.join("data"), workspace, stop: &stop }, progress)
}

/// Decodes a split back to text, special tokens included.
fn text(data: &Prepared, validation: bool) -> String {
    let split = if validation { &data.validation } else { &data.training };
    data.tokenizer.decode_lossy(&split.read(0, split.n_tokens())).unwrap()
}

fn poem() -> String {
    (0..200).map(|i| format!("line {i} of a poem, größer as {}\n", i * i)).collect()
}

#[test]
fn one_file_is_split_at_its_tail_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("poem.txt");
    std::fs::write(&file, poem()).unwrap();
    for kind in ["bpe", "char"] {
        let data = prepared(dir.path(), &config(&[&file], &[&format!("tokenizer.kind={kind}")])).unwrap();
        let whole = text(&data, false).replace("<|endoftext|>", "") + &text(&data, true);
        assert_eq!(whole, poem(), "{kind}");
        let share = data.manifest.validation.n_bytes as f64 / poem().len() as f64;
        assert!((share - 0.05).abs() < 0.01, "{kind}: {share}");
        assert_eq!(data.manifest.vocab_size, data.tokenizer.vocab_size());
    }
}

#[test]
fn a_folder_is_split_by_whole_documents_each_begun_by_end_of_text() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("texts");
    std::fs::create_dir_all(folder.join("deep")).unwrap();
    for i in 0..30 {
        std::fs::write(folder.join(if i % 2 == 0 { format!("{i}.txt") } else { format!("deep/{i}.md") }), format!("<{i}>\n{}", poem()))
            .unwrap();
    }
    std::fs::write(folder.join("picture.bin"), [1u8, 0, 2]).unwrap();
    std::fs::write(folder.join("empty.txt"), "").unwrap();
    let data = prepared(dir.path(), &config(&[&folder], &["data.validation_fraction=0.2"])).unwrap();
    let stats = &data.manifest.corpus;
    assert_eq!((stats.n_documents, stats.binary_skipped, stats.empty_skipped), (30, 1, 1));
    let documents = |validation| -> Vec<String> { text(&data, validation).split("<|endoftext|>").skip(1).map(str::to_owned).collect() };
    let (training, validation) = (documents(false), documents(true));
    assert_eq!((training.len() + validation.len(), data.manifest.validation.n_documents), (30, validation.len()));
    assert!((1..15).contains(&validation.len()) && training.iter().chain(&validation).all(|document| document.ends_with(&poem())));

    // The same text by another way is the same corpus, and is not prepared again.
    let glob = folder.join("**/*.{txt,md}");
    let again = prepared(dir.path(), &config(&[&folder], &["data.validation_fraction=0.2"])).unwrap();
    assert!(again.reused && !data.reused);
    let by_glob = prepared(dir.path(), &config(&[&glob], &["data.validation_fraction=0.2"])).unwrap();
    assert_eq!(by_glob.manifest.corpus.n_documents, 30);
    let other = prepared(dir.path(), &config(&[&folder], &["data.validation_fraction=0.3"])).unwrap();
    assert!(!other.reused);
}

#[test]
fn a_tokenizer_never_learns_from_what_validates() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("two.txt");
    std::fs::write(&file, "ab ".repeat(1000) + &"xyz ".repeat(1000)).unwrap();
    let data = prepared(dir.path(), &config(&[&file], &["data.validation_fraction=0.572"])).unwrap();
    let known = |bytes: &[u8]| (0..data.tokenizer.vocab_size() as u32).any(|id| data.tokenizer.token_bytes(id) == Some(bytes));
    assert!(known(b" ab") && !known(b"xy") && !known(b" xyz"));
}

/// Not `expect_err`, which would print a whole vocabulary.
fn error_of(result: Result<Prepared, DataError>, what: &str) -> DataError {
    match result {
        Ok(_) => panic!("{what}: no error"),
        Err(error) => error,
    }
}

#[test]
fn every_damaged_file_of_a_prepared_folder_is_named_and_shards_are_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("poem.txt");
    std::fs::write(&file, poem()).unwrap();
    let config = config(&[&file], &[]);
    let folder = prepared(dir.path(), &config).unwrap().dir;
    let names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for path in names {
        let good = std::fs::read(&path).unwrap();
        let mut edited = good.clone();
        let at = good.len() / 2;
        edited[at] = if edited[at].is_ascii_digit() { b'0' + (edited[at] - b'0' + 1) % 10 } else { edited[at] ^ 1 };
        let is_shard = path.extension().is_some_and(|extension| extension == "bin");
        for bad in [Some(&good[..good.len() / 2]), Some(&edited), None] {
            match bad {
                Some(bad) => std::fs::write(&path, bad).unwrap(),
                // Without a manifest it is no prepared folder.
                None if path.ends_with("manifest.json") => continue,
                None => std::fs::remove_file(&path).unwrap(),
            }
            if is_shard {
                let error = error_of(Prepared::open(&folder), "opened");
                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                let mut rebuilt = Vec::new();
                let mut note = |event: PrepareEvent<'_>| {
                    if let PrepareEvent::Rebuilding { damage } = event {
                        rebuilt.push(damage.to_string());
                    }
                };
                assert!(prepared_in(dir.path(), dir.path(), &config, &mut note).unwrap().reused);
                assert!(rebuilt.len() == 1 && rebuilt[0].contains(path.to_str().unwrap()), "{rebuilt:?}");
                assert!(std::fs::read(&path).unwrap() == good);
                assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
                continue;
            }
            // An edited manifest may still be one, of another tokenizer or other shards: then those do not fit it.
            let error = error_of(prepared(dir.path(), &config), &path.display().to_string());
            assert!(matches!(error, DataError::Damaged { .. } | DataError::Version { .. }), "{}: {error}", path.display());
            assert!(error.hint().is_some());
        }
        std::fs::write(&path, good).unwrap();
        assert!(prepared(dir.path(), &config).unwrap().reused);
        assert_eq!(std::fs::read_dir(dir.path().join("data")).unwrap().count(), 1, "nothing hidden is left");
    }
}

#[test]
fn texts_that_cannot_be_read_are_placed() {
    let dir = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8], expected: &str| {
        let path = dir.path().join("bad.txt");
        std::fs::write(&path, bytes).unwrap();
        let error = prepared(dir.path(), &config(&[&path], &[])).unwrap_err();
        let message = error.to_string().replace(&path.display().to_string(), "bad.txt");
        assert_eq!(message, expected);
        assert!(error.hint().is_some(), "{message}");
    };
    check(b"", "`bad.txt` holds no text");
    check(b"ab\0c", "`bad.txt` is not text: byte 2 is NUL");
    check(b"one\ntwo \xffx", "`bad.txt` is not UTF-8: line 2, byte 8 of the file is 0xff");
    check(b"\xef\xbb\xbfab\0", "`bad.txt` is not text: byte 5 is NUL");
    check(b"abc", "the training split has 2 tokens, expected at least 9 (one context and its last target)");
    let missing = dir.path().join("none");
    assert!(prepared(dir.path(), &config(&[&missing], &[])).unwrap_err().to_string().contains("none"));
    let glob = dir.path().join("*.none");
    assert!(matches!(prepared(dir.path(), &config(&[&glob], &[])), Err(DataError::NotFound(_))));
}

#[test]
fn lossy_replaces_what_is_not_utf8() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("latin1.txt");
    std::fs::write(&path, [b"gr\xfc\xdfe ".repeat(100), b"\n".to_vec()].concat()).unwrap();
    assert!(matches!(read_document(&path, false), Err(DataError::Utf8 { line: 1, offset: 2, byte: 0xfc, .. })));
    assert_eq!(read_document(&path, true).unwrap(), "gr\u{fffd}\u{fffd}e ".repeat(100) + "\n");
    let data = prepared(dir.path(), &config(&[&path], &["data.lossy=true"])).unwrap();
    assert_eq!(data.manifest.corpus.lossy_files, 1);
}

#[test]
fn an_encoded_document_begins_with_end_of_text_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("poem.txt");
    std::fs::write(&file, poem()).unwrap();
    let data = prepared(dir.path(), &config(&[&file], &[])).unwrap();
    let ids = encode_document(&data.tokenizer, "poem", true).unwrap();
    assert_eq!(Some(ids[0]), data.tokenizer.end_of_text());
    assert_eq!(encode_document(&data.tokenizer, "poem", false).unwrap(), ids[1..]);
}

#[test]
fn the_default_corpus_comes_from_locked_packages() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = tempfile::tempdir().unwrap();
    // Packages that this crate itself is built with, so that they are on any machine that runs this test.
    let overrides = ["data.packages=[\"memmap2\",\"globset\",\"strsim\"]", "data.validation_packages=[\"strsim\"]", "data.paths=[]"];
    let config = config(&[dir.path()], &overrides);
    let data = prepared_in(dir.path(), &workspace, &config, &mut |_| {}).unwrap();
    let (training, validation) = (text(&data, false), text(&data, true));
    assert!(training.contains("pub struct MmapOptions") && training.contains("pub struct GlobSetBuilder") && !training.contains("damerau"));
    assert!(validation.contains("damerau_levenshtein") && data.manifest.validation.n_documents > 1);
    let documents: Vec<&str> = training.split("<|endoftext|>").chain(validation.split("<|endoftext|>")).skip(1).collect();
    let distinct: std::collections::HashSet<&str> = documents.iter().copied().collect();
    assert_eq!(distinct.len(), documents.len(), "identical files are dropped");
    let unknown = kindling_config::RunConfig {
        data: kindling_config::DataConfig { packages: vec!["no-such".into()], validation_packages: vec![], ..config.data.clone() },
        ..config
    };
    let error = prepared_in(dir.path(), &workspace, &unknown, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, DataError::Package(name) if name == "no-such"), "{error}");
}

/// 200 documents, a line each.
fn rows(n: usize) -> String {
    (0..n).map(|i| format!("{{\"text\":\"document {i}: {}\"}}\n", "größer ".repeat(1 + i * 7 % 23))).collect()
}

fn documents(data: &Prepared, validation: bool) -> Vec<String> {
    text(data, validation).split("<|endoftext|>").skip(1).map(str::to_owned).collect()
}

#[test]
fn a_document_keeps_its_side_when_the_corpus_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (dir.path().join("small.jsonl"), dir.path().join("large.jsonl"));
    std::fs::write(&small, rows(200)).unwrap();
    // Another name, another order, more documents.
    std::fs::write(&large, rows(1000).lines().rev().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let before = prepared(dir.path(), &config(&[&small], &["data.validation_fraction=0.2"])).unwrap();
    let after = prepared(dir.path(), &config(&[&large], &["data.validation_fraction=0.2", "seed=7"])).unwrap();
    let (held_out, held_out_after) = (documents(&before, true), documents(&after, true));
    let share = held_out_after.len() as f64 / 1000.0;
    // A standard deviation of 0.013.
    assert!((0.15..0.25).contains(&share), "{share}");
    assert!((20..60).contains(&held_out.len()) && held_out.iter().all(|document| held_out_after.contains(document)));
    let trained = documents(&before, false);
    assert!(trained.iter().all(|document| !held_out_after.contains(document)));
}

#[test]
fn two_documents_leave_one_on_each_side() {
    let dir = tempfile::tempdir().unwrap();
    for fraction in ["0.001", "0.999"] {
        let file = dir.path().join("two.jsonl");
        std::fs::write(&file, rows(2)).unwrap();
        let overrides = [&*format!("data.validation_fraction={fraction}"), "model.context_len=2"];
        let data = prepared(dir.path(), &config(&[&file], &overrides)).unwrap();
        assert_eq!((data.manifest.training.n_documents, data.manifest.validation.n_documents), (1, 1), "{fraction}");
    }
}

#[test]
fn files_can_be_held_out_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("a.txt", "one ".repeat(50)), ("b.txt", "two ".repeat(50)), ("held.txt", "three ".repeat(50))] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let held = format!("data.validation_paths=[{:?}]", dir.path().join("held.txt").display().to_string());
    // The glob of training files matches it too.
    let data = prepared(dir.path(), &config(&[&dir.path().join("*.txt")], &[&held])).unwrap();
    assert_eq!(documents(&data, true), ["three ".repeat(50)]);
    assert_eq!(documents(&data, false), ["one ".repeat(50), "two ".repeat(50)]);
    assert_eq!(data.manifest.corpus.n_documents, 3);
}

#[test]
fn sources_keep_apart_and_are_counted_apart() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("z.jsonl"), rows(60)).unwrap();
    std::fs::write(dir.path().join("a.jsonl"), rows(300).replace("document", "text")).unwrap();
    let source = |name: &str, weight: f64| {
        format!("{{name=\"{name}\",paths=[{:?}],weight={weight}}}", dir.path().join(format!("{name}.jsonl")).display().to_string())
    };
    let sources = format!("data.sources=[{},{}]", source("z", 3.0), source("a", 1.0));
    let mut config = config(&[], &["data.packages=[]", "data.validation_packages=[]", &sources]);
    let data = prepared(dir.path(), &config).unwrap();
    let (parts, of) = (data.manifest.training.parts(), &data.manifest.training.sources);
    assert_eq!((parts.len(), parts[0].start, parts[0].end, parts[1].end), (2, 0, of[0].n_tokens, data.training.n_tokens()));
    assert_eq!([parts[0].weight, parts[1].weight], [3.0, 1.0]);
    let decoded = |part: usize| data.tokenizer.decode_lossy(&data.training.read(parts[part].start, parts[part].end)).unwrap();
    assert!(!decoded(0).contains("text ") && !decoded(1).contains("document "));
    assert_eq!(of.iter().map(|source| source.n_documents).sum::<usize>(), data.manifest.training.n_documents);
    assert_eq!(of.iter().map(|source| source.n_bytes).sum::<u64>(), data.manifest.training.n_bytes);
    let weights = config.data.sources.clone();
    config.data.sources[0].weight = 1.0;
    assert!(!prepared(dir.path(), &config).unwrap().reused, "other weights, another mixture");

    // The same documents in the same order, of which other ones are of the first source.
    for name in ["m1.jsonl", "m2.jsonl", "m3.jsonl"] {
        std::fs::write(dir.path().join(name), rows(60).replace("document", name)).unwrap();
    }
    let of = |first: &[&str], second: &[&str]| {
        let mut config = config.clone();
        config.data.sources = weights.clone();
        for (source, names) in config.data.sources.iter_mut().zip([first, second]) {
            source.paths = names.iter().map(|name| dir.path().join(name)).collect();
        }
        prepared(dir.path(), &config).unwrap()
    };
    let (one, two) = (of(&["m1.jsonl"], &["m2.jsonl", "m3.jsonl"]), of(&["m1.jsonl", "m2.jsonl"], &["m3.jsonl"]));
    assert_eq!(one.manifest.corpus.hash, two.manifest.corpus.hash);
    assert!(!two.reused && one.dir != two.dir);
}

#[test]
fn cleaning_is_reported_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    let words = |i: usize| (0..60).map(|j| format!("word{}", i * 100 + j)).collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = (0..40).map(|i| format!("document {i}\r\n{}", words(i))).collect();
    lines.push(lines[3].clone());
    lines.push(lines[4].replace("\r\n", "\n"));
    // Nearly the same: one word of sixty.
    lines.push(lines[5].replacen("word", "ward", 1));
    lines.push(format!("write to ada@example.org or 192.168.17.4, e\u{301}te\u{301} {}", words(99)));
    lines.push("short".into());
    lines.push("x".repeat(5000));
    std::fs::write(&path, lines.iter().map(|line| format!("{}\n", serde_json::json!({ "text": line }))).collect::<String>()).unwrap();
    let clean = "data.clean={newlines=true,nfc=true,redact=[\"email\",\"ip\"],min_chars=10,max_chars=4000,dedup=\"near\"}";
    let data = prepared(dir.path(), &config(&[&path], &[clean, "data.validation_fraction=0.2"])).unwrap();
    let steps = &data.manifest.cleaning;
    let names = serde_json::json!(steps.iter().map(|step| step.step).collect::<Vec<_>>());
    assert_eq!(names, serde_json::json!(["newlines", "nfc", "redact", "length", "exact", "near"]));
    let n_bytes: usize = lines.iter().map(String::len).sum();
    assert_eq!((steps[0].n_documents, steps[0].n_bytes), (lines.len(), n_bytes as u64));
    for pair in steps.windows(2) {
        assert_eq!(pair[0].bytes_out(), pair[1].n_bytes, "{pair:?}");
        assert_eq!(pair[0].n_documents - pair[0].documents_dropped, pair[1].n_documents, "{pair:?}");
    }
    let manifest = &data.manifest;
    assert_eq!(steps[5].bytes_out(), manifest.training.n_bytes + manifest.validation.n_bytes);
    assert_eq!((steps[0].documents_changed, steps[0].bytes_changed), (42, -42));
    assert_eq!((steps[1].documents_changed, steps[1].bytes_changed), (1, -2));
    assert_eq!((steps[2].redacted[&Redaction::Email], steps[2].redacted[&Redaction::Ip], steps[2].documents_changed), (1, 1, 1));
    assert_eq!([3, 4, 5].map(|i: usize| steps[i].documents_dropped), [2, 2, 1]);
    assert_eq!(manifest.corpus.n_bytes, steps[5].bytes_out());
    let kept: Vec<String> = documents(&data, false).into_iter().chain(documents(&data, true)).collect();
    assert_eq!(kept.len(), 41);
    assert_eq!(kept.iter().map(String::len).sum::<usize>() as u64, manifest.corpus.n_bytes, "what is written is what is reported");
    assert!(kept.iter().any(|document| document.contains("write to <email> or <ip>, été")));
    assert!(kept.iter().all(|document| !document.contains('\r')));
    let error = error_of(prepared(dir.path(), &config(&[&path], &["data.clean.min_chars=9000"])), "nothing is as long");
    assert!(matches!(&error, DataError::AllDropped(46)) && error.hint().is_some(), "{error}");
    let error = error_of(prepared(dir.path(), &config(&[&path], &["data.clean.stop_words=[\"xx\"]"])), "a language that is none");
    assert!(matches!(&error, DataError::Language { found, .. } if found == "xx") && error.hint().is_some());
}
