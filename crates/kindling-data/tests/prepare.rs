//! From text files to a prepared folder and back: splits, reuse, damage, order.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::path::Path;

use kindling_config::RunConfig;
use kindling_data::{DataError, Prepared, encode_document, prepare, read_document};

/// Spark's config on `paths` with some changes.
fn config(paths: &[&Path], overrides: &[&str]) -> RunConfig {
    let paths: Vec<_> = paths.iter().map(|path| format!("{:?}", path.display().to_string())).collect();
    let mut all = vec![format!("data.paths=[{}]", paths.join(",")), "model.context_len=8".into(), "tokenizer.vocab_size=300".into()];
    all.extend(overrides.iter().map(|o| (*o).to_owned()));
    RunConfig::from_toml(include_str!("../../../configs/spark.toml"), "spark.toml", &all).unwrap()
}

fn prepared(dir: &Path, config: &RunConfig) -> Result<Prepared, DataError> {
    prepare(config, &dir.join("data"), dir, &mut |_| {})
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
    assert!(validation.len() >= 6 && training.iter().chain(&validation).all(|document| document.ends_with(&poem())));

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

#[test]
fn every_damaged_file_of_a_prepared_folder_is_named() {
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
        for bad in [&good[..good.len() / 2], &edited] {
            std::fs::write(&path, bad).unwrap();
            // An edited manifest may still be one, of another tokenizer or other shards: then those do not fit it.
            let error = prepared(dir.path(), &config).expect_err(&path.display().to_string());
            assert!(matches!(error, DataError::Damaged { .. } | DataError::Version { .. }), "{}: {error}", path.display());
            assert!(error.hint().is_some());
        }
        std::fs::write(&path, good).unwrap();
        assert!(prepared(dir.path(), &config).unwrap().reused);
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
    let data = prepare(&config, &dir.path().join("data"), &workspace, &mut |_| {}).unwrap();
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
    let error = prepare(&unknown, &dir.path().join("data"), &workspace, &mut |_| {}).unwrap_err();
    assert!(matches!(&error, DataError::Package(name) if name == "no-such"), "{error}");
}
