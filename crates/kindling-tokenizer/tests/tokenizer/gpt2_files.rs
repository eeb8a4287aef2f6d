//! `vocab.json` and `merges.txt`: read as the `tokenizer.json` of the same vocabulary.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use kindling_tokenizer::Tokenizer;
use serde_json::{Value, json};

use crate::{BPE, NASTY};

/// The two files of [`BPE`].
fn files() -> (Value, Vec<String>) {
    let file: Value = serde_json::from_str(&BPE.to_json()).unwrap();
    let merges = file["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()));
    // In the order of the alphabet, so that it is known which line a token stands in.
    let mut vocab = file["model"]["vocab"].clone();
    vocab.sort_all_objects();
    (vocab, merges.collect())
}

fn write(folder: &Path, names: (&str, &str), vocab: &Value, merges: &[String]) -> (PathBuf, PathBuf) {
    let (vocab_path, merges_path) = (folder.join(names.0), folder.join(names.1));
    std::fs::write(&vocab_path, serde_json::to_string_pretty(vocab).unwrap()).unwrap();
    let mut text = "#version: 0.2\n".to_owned();
    for merge in merges {
        writeln!(text, "{merge}").unwrap();
    }
    std::fs::write(&merges_path, text).unwrap();
    (vocab_path, merges_path)
}

#[test]
fn both_names_and_the_folder_give_the_vocabulary() {
    let (vocab, merges) = files();
    for names in [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")] {
        let folder = tempfile::tempdir().unwrap();
        let (path, _) = write(folder.path(), names, &vocab, &merges);
        for path in [path.as_path(), folder.path()] {
            let loaded = Tokenizer::load(path).unwrap();
            assert!(loaded.to_json() == BPE.to_json());
            for text in NASTY {
                assert_eq!(loaded.encode(text).unwrap(), BPE.encode(text).unwrap());
            }
        }
    }
}

#[test]
fn a_mistake_is_told_with_file_and_line() {
    let (vocab, merges) = files();
    let check = |edit: &dyn Fn(&mut Value, &mut Vec<String>), in_merges: bool, message: &str| {
        let folder = tempfile::tempdir().unwrap();
        let (mut vocab, mut merges) = (vocab.clone(), merges.clone());
        edit(&mut vocab, &mut merges);
        let (vocab_path, merges_path) = write(folder.path(), ("vocab.json", "merges.txt"), &vocab, &merges);
        let error = Tokenizer::load(folder.path()).unwrap_err();
        let path = if in_merges { merges_path } else { vocab_path };
        assert_eq!(error.to_string(), format!("`{}`: {message}", path.display()));
        assert!(error.hint().is_some());
    };
    // The first line of the merges tells the version.
    check(&|_, merges| merges[3] = "a".into(), true, "line 5: merge 3 is `a`, expected two tokens with one space between them");
    check(&|_, merges| merges[0] = "zq a".into(), true, "line 2: merge 0 needs the token `zq`, which is not in the vocabulary");
    check(&|_, merges| merges[1] = merges[0].clone(), true, "line 3: merge 1 repeats merge 0");
    let last = crate::BPE.vocab_size() - 3;
    let spelled = vocab.as_object().unwrap().iter().find(|(_, id)| **id == json!(last)).unwrap().0.clone();
    check(&|_, merges| drop(merges.pop()), true, &format!("token `{spelled}` with id `{last}` is made by no merge"));
    // Keys of this map are sorted: `!` stands on the second line.
    check(&|vocab, _| vocab["!"] = json!(9999), false, "line 2: token `!` has id `9999`, expected ids 0 to 1499 without holes");
    check(&|vocab, _| vocab["!"] = json!("x"), false, "line 2: field `model.vocab` is `x`, expected the id of the token `!`");
}
