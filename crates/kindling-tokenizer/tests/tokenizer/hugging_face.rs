//! Our files in the `tokenizers` crate of Hugging Face: equal ids and equal text.

use std::str::FromStr;
use std::sync::LazyLock;

use kindling_tokenizer::{CharVocab, END_OF_TEXT, Tokenizer};
use proptest::prelude::*;
use serde_json::Value;

use crate::{BPE, CHARS, NASTY, WORDS, all_kinds, text};

fn theirs(tokenizer: &Tokenizer) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_str(&tokenizer.to_json()).unwrap()
}

static THEIR_BPE: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| theirs(&BPE));
static THEIR_CHARS: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| theirs(&CHARS));
static THEIR_WORDS: LazyLock<tokenizers::Tokenizer> = LazyLock::new(|| theirs(&WORDS));

fn check(ours: &Tokenizer, theirs: &tokenizers::Tokenizer, text: &str) {
    let ids = ours.encode(text).unwrap();
    let encoding = theirs.encode(text, false).unwrap();
    assert_eq!(ids, encoding.get_ids(), "{} of {text:?}", ours.kind());
    assert_eq!(ours.decode_lossy(&ids).unwrap(), theirs.decode(&ids, false).unwrap(), "{} of {text:?}", ours.kind());
}

#[test]
fn nasty_text_has_equal_ids() {
    for text in NASTY {
        check(&BPE, &THEIR_BPE, text);
        check(&CHARS, &THEIR_CHARS, text);
        check(&WORDS, &THEIR_WORDS, text);
    }
}

#[test]
fn vocabularies_are_equal() {
    for ours in all_kinds() {
        let theirs = theirs(ours);
        assert_eq!(theirs.get_vocab_size(true), ours.vocab_size());
        for special in [END_OF_TEXT, "<|pad|>"] {
            let id = theirs.token_to_id(special).unwrap();
            assert!(ours.is_special(id));
            assert_eq!(ours.token_bytes(id), Some(special.as_bytes()));
        }
        let end = ours.end_of_text().unwrap();
        let ids = [0, 1, end, 2];
        assert_eq!(theirs.decode(&ids, false).unwrap(), ours.decode_lossy(&ids).unwrap());
        assert_eq!(theirs.encode(END_OF_TEXT, false).unwrap().get_ids(), [end]);
    }
}

#[test]
fn special_tokens_as_ordinary_text_have_equal_ids() {
    let text = format!("{END_OF_TEXT} a {END_OF_TEXT}b");
    for ours in all_kinds() {
        let mut theirs = theirs(ours);
        theirs.set_encode_special_tokens(true);
        check(ours, &theirs, &text);
    }
}

#[test]
fn an_unknown_character_is_an_error_there_too() {
    let ours = Tokenizer::from(CharVocab::build(&["ab"], &["<unk>".to_owned()]));
    assert!(ours.encode("abc").is_err());
    assert!(theirs(&ours).encode("abc", false).is_err());
}

#[test]
fn byte_tokens_in_another_order_have_equal_ids() {
    // As in GPT-2's own file: the vocabulary begins with `!`, merges are strings, the settings are old.
    let mut file: Value = serde_json::from_str(&BPE.to_json()).unwrap();
    let vocab = file["model"]["vocab"].as_object().unwrap();
    let n_bytes = 256u64;
    let new_id = |id: u64| if id < n_bytes { (id + n_bytes - 33) % n_bytes } else { id };
    let vocab: serde_json::Map<String, Value> =
        vocab.iter().map(|(token, id)| (token.clone(), Value::from(new_id(id.as_u64().unwrap())))).collect();
    let merges = file["model"]["merges"].as_array().unwrap().iter();
    let merges = merges.map(|pair| Value::from(format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap())));
    let merges: Value = merges.collect::<Vec<_>>().into();
    file["model"] = serde_json::json!({
        "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": false, "vocab": vocab, "merges": merges,
    });
    file["pre_tokenizer"] = serde_json::json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true });
    file["post_processor"] = serde_json::json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false });

    let json = file.to_string();
    let ours = Tokenizer::from_json(&json).unwrap();
    let theirs = tokenizers::Tokenizer::from_str(&json).unwrap();
    assert_eq!(ours.token_bytes(0), Some(&b"!"[..]));
    for text in NASTY {
        check(&ours, &theirs, text);
    }
    let again = Tokenizer::from_json(&ours.to_json()).unwrap();
    assert_eq!(again.to_json(), ours.to_json());
    assert_eq!(again.encode(NASTY[2]).unwrap(), ours.encode(NASTY[2]).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_has_equal_ids(text in text()) {
        check(&BPE, &THEIR_BPE, &text);
        check(&WORDS, &THEIR_WORDS, &text);
    }

    #[test]
    fn any_known_characters_have_equal_ids(text in "[a-zA-Z0-9 \r\n\t\0日本語éß👩\u{200d}\u{301}]{0,60}") {
        check(&CHARS, &THEIR_CHARS, &text);
    }
}
