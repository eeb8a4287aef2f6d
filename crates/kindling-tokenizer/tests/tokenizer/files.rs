//! Files: equal bytes when written again, and an error that says where for each way to break one.

use std::path::Path;

use kindling_tokenizer::{CharVocab, Tokenizer, TokenizerError};
use serde_json::{Value, json};

use crate::{BPE, CHARS, NASTY, WORDS, all_kinds};

#[test]
fn save_load_save_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for tokenizer in all_kinds() {
        let [first, second] = ["a.json", "b.json"].map(|name| folder.path().join(name));
        tokenizer.save(&first).unwrap();
        let loaded = Tokenizer::load(&first).unwrap();
        loaded.save(&second).unwrap();
        assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap());
        assert_eq!(loaded.kind(), tokenizer.kind());
        assert_eq!(loaded.vocab_size(), tokenizer.vocab_size());
        assert_eq!(loaded.end_of_text(), tokenizer.end_of_text());
        for text in NASTY {
            assert_eq!(loaded.encode(text).unwrap(), tokenizer.encode(text).unwrap());
        }
    }
    // Nothing is left beside.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_file_error_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.json");
    let error = Tokenizer::load(&missing).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot read `{}`", missing.display())), "{error}");
    assert!(error.hint().unwrap().contains("path"));

    let nowhere = folder.path().join("no/such/folder/tokenizer.json");
    let error = BPE.save(&nowhere).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot write `{}`", nowhere.display())), "{error}");

    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{").unwrap();
    let error = Tokenizer::load(&broken).unwrap_err();
    assert!(error.to_string().starts_with(&format!("`{}`: not a tokenizer.json", broken.display())), "{error}");
    assert!(error.hint().unwrap().contains("cut short"));
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::create_dir(&path).unwrap();
    assert!(BPE.save(&path).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_bare_file_name_has_a_folder() {
    assert!(matches!(Tokenizer::load(Path::new("no-such-tokenizer.json")), Err(TokenizerError::Io { .. })));
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let json = Tokenizer::from(CharVocab::build(&["añ\n\""], &["<|endoftext|>".to_owned()])).to_json();
    let whole = json.trim_end().len();
    for end in (0..whole).filter(|&end| json.is_char_boundary(end)) {
        assert!(matches!(Tokenizer::from_json(&json[..end]), Err(TokenizerError::Json(_))), "at {end}");
    }
    let json = BPE.to_json();
    for part in 1..20 {
        let end = (json.len() * part / 20..).find(|&end| json.is_char_boundary(end)).unwrap();
        assert!(Tokenizer::from_json(&json[..end]).unwrap_err().hint().unwrap().contains("cut short"));
    }
}

/// Edits the file and expects the message to begin so.
fn check(tokenizer: &Tokenizer, edit: impl FnOnce(&mut Value), message: &str) {
    let mut file: Value = serde_json::from_str(&tokenizer.to_json()).unwrap();
    edit(&mut file);
    // As compact as it is written here, all of the file is on its first line.
    let error = Tokenizer::from_json(&file.to_string()).unwrap_err();
    assert!(error.to_string().trim_start_matches("line 1: ").starts_with(message), "{error}");
    assert!(error.hint().is_some());
}

#[test]
fn damaged_vocabularies_are_refused() {
    check(&BPE, |file| file["model"]["vocab"]["a"] = json!(98), "id `98` belongs to both `");
    check(&BPE, |file| file["model"]["vocab"]["a"] = json!(1_000_000), "token `a` has id `1000000`, expected ids 0 to 1499");
    check(&BPE, |file| file["model"]["vocab"]["日"] = json!(1500), "token `日` with id `1500` is neither special");
    check(&CHARS, |file| file["model"]["vocab"]["ab"] = json!(7), "field `added_tokens[0].id` is");
    let n_chars = CHARS.vocab_size() - 2;
    let two = |file: &mut Value| {
        file["model"]["vocab"]["ab"] = json!(n_chars);
        file["added_tokens"] = json!([]);
    };
    check(&CHARS, two, "field `model.vocab` is `ab`, expected tokens of one character");
    check(&WORDS, |file| file["model"]["vocab"]["xyzzy"] = json!(3), "field `added_tokens[0].id` is");

    let twice = BPE.to_json().replacen("\"vocab\": {", "\"vocab\": { \"b\": 5,", 1);
    let error = Tokenizer::from_json(&twice).unwrap_err();
    let line = 1 + twice[..twice.rfind("\"b\": 98").unwrap()].matches('\n').count();
    assert_eq!(error.to_string(), format!("line {line}: token `b` is listed twice, with ids `5` and `98`"));
}

#[test]
fn a_missing_byte_is_refused() {
    let tokenizer = Tokenizer::from(kindling_tokenizer::BpeTrainer::new(256).train(&[]).unwrap());
    let last = |file: &mut Value| {
        file["model"]["vocab"].as_object_mut().unwrap().remove("ÿ");
    };
    check(&tokenizer, last, "byte `0xff` has no token, expected all 256 bytes in the vocabulary");
}

#[test]
fn damaged_merges_are_refused() {
    let push = |merge: Value| move |file: &mut Value| file["model"]["merges"].as_array_mut().unwrap().push(merge);
    let n = serde_json::from_str::<Value>(&BPE.to_json()).unwrap()["model"]["merges"].as_array().unwrap().len();
    check(&BPE, push(json!(["zq", "a"])), &format!("merge {n} needs the token `zq`, which is not in the vocabulary"));
    check(&BPE, push(json!(["z", "~"])), &format!("merge {n} needs the token `z~`"));
    check(&BPE, push(json!("z q x")), &format!("merge {n} is `\"z q x\"`, expected two tokens"));
    check(&BPE, push(json!(["a"])), &format!("merge {n} is `[\"a\"]`"));
    check(&BPE, push(json!(7)), &format!("merge {n} is `7`"));
    let repeat = |file: &mut Value| {
        let first = file["model"]["merges"][0].clone();
        file["model"]["merges"].as_array_mut().unwrap().push(first);
    };
    check(&BPE, repeat, &format!("merge {n} repeats merge 0"));
    // A special token is no part of a merge.
    check(&BPE, push(json!(["<|pad|>", "a"])), &format!("merge {n} needs the token `<|pad|>`"));
}

#[test]
fn settings_that_change_ids_are_refused_by_name() {
    let set = |path: &'static str, value: Value| move |file: &mut Value| *file.pointer_mut(path).unwrap() = value;
    let cases = [
        ("/version", json!("2.0"), "field `version` is `2.0`, expected `1.0`"),
        ("/normalizer", json!({"type": "NFC"}), "field `normalizer` is `NFC`, expected `null`"),
        ("/truncation", json!({"max_length": 5}), "field `truncation` is `{\"max_length\":5}`, expected `null`"),
        ("/padding", json!({"pad_id": 5}), "field `padding` is"),
        ("/pre_tokenizer/add_prefix_space", json!(true), "field `pre_tokenizer.add_prefix_space` is `true`, expected `false`"),
        ("/pre_tokenizer/use_regex", json!(false), "field `pre_tokenizer.use_regex` is `false`, expected `true`"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": []}),
            "field `pre_tokenizer.pretokenizers` is `[]`, expected a `Split` and a `ByteLevel`",
        ),
        ("/pre_tokenizer", json!(null), "field `pre_tokenizer.type` is `null`, expected `ByteLevel`"),
        ("/pre_tokenizer", json!({"type": "ByteLevel"}), "field `pre_tokenizer.add_prefix_space` is `null`"),
        ("/pre_tokenizer", json!({"type": "ByteLevel", "add_prefix_space": false, "new": 1}), "field `pre_tokenizer.new` is `1`"),
        ("/decoder", json!(null), "field `decoder.type` is `null`, expected `ByteLevel`"),
        ("/post_processor", json!({"type": "TemplateProcessing"}), "field `post_processor.type` is `TemplateProcessing`"),
        ("/model/type", json!("Unigram"), "field `model.type` is `Unigram`, expected `BPE` or `WordLevel`"),
        ("/model/dropout", json!(0.1), "field `model.dropout` is `0.1`, expected `null`"),
        ("/model/byte_fallback", json!(true), "field `model.byte_fallback` is `true`"),
        ("/model/end_of_word_suffix", json!("</w>"), "field `model.end_of_word_suffix` is `</w>`"),
        ("/added_tokens/0/special", json!(false), "field `added_tokens[0].special` is `false`, expected `true`"),
        ("/added_tokens/1/lstrip", json!(true), "field `added_tokens[1].lstrip` is `true`, expected `false`"),
        ("/added_tokens/1/id", json!(3), "field `added_tokens[1].id` is `3`, expected `1499` for the token `<|pad|>`"),
    ];
    for (path, value, message) in cases {
        check(&BPE, set(path, value), message);
    }
    let metaspace = json!({"type": "Metaspace"});
    check(&WORDS, set("/pre_tokenizer", metaspace), "field `pre_tokenizer.type` is `Metaspace`, expected `Split` or");
    check(&WORDS, set("/model/unk_token", json!("[UNK]")), "field `model.unk_token` is `[UNK]`, expected `<unk>`");
    check(&CHARS, set("/pre_tokenizer/behavior", json!("Removed")), "field `pre_tokenizer.behavior` is `Removed`");
    check(&CHARS, set("/pre_tokenizer/pattern", json!({"Regex": "."})), "field `pre_tokenizer.pattern` is");
    check(&CHARS, set("/decoder", json!(null)), "field `decoder.type` is `null`, expected `Fuse`");
    check(&BPE, |file| file["surprise"] = json!(1), "not a tokenizer.json: unknown field `surprise`");
}

#[test]
fn other_json_is_refused() {
    for json in ["", "null", "[]", "{}", "{\"model\": {}}", "{\"model\": {\"type\": \"BPE\"}}"] {
        assert!(Tokenizer::from_json(json).is_err(), "{json}");
    }
}
