//! Kinds of tokenizer.json that Hugging Face's library runs: its ids, its text, and the rules of this crate all the same.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::str::FromStr;

use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, SpecialTokens, Tokenizer};
use serde_json::{Value, json};

const TEXT: &str = "The quick brown fox, e\u{301}te\u{301} über 12 the lazy dogs.";

/// Pieces of words with their probabilities, as T5 and Llama 2 have them.
fn unigram() -> String {
    let pieces = ["▁the", "▁", "qu", "ick", "▁br", "own", "fox", "dog", "s", "é", "te", "ü", "ber", ",", ".", "1", "2"];
    let letters = ('a'..='z').map(|letter| letter.to_string());
    let all: Vec<Value> = [json!(["<unk>", 0.0]), json!(["</s>", 0.0])]
        .into_iter()
        .chain(pieces.iter().map(|piece| json!([piece, -2.0])))
        .chain(letters.filter(|letter| letter != "s").map(|letter| json!([letter, -6.0])))
        .collect();
    let metaspace = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    file(
        json!({ "type": "Unigram", "unk_id": 0, "vocab": all }),
        json!({ "type": "NFKC" }),
        metaspace.clone(),
        metaspace,
        &["<unk>", "</s>"],
    )
}

/// Beginnings and continuations of words, as BERT has them.
fn word_piece() -> String {
    let tokens =
        ["[UNK]", "[CLS]", "[SEP]", "the", "qu", "##ick", "brown", "fox", "dog", "##s", "lazy", "ete", "u", "##ber", ",", ".", "12"];
    let vocab: Value =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), json!(id))).collect::<serde_json::Map<_, _>>().into();
    let model = json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab });
    let normalizer =
        json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": true, "lowercase": true });
    let decoder = json!({ "type": "WordPiece", "prefix": "##", "cleanup": true });
    let mut file: Value =
        serde_json::from_str(&file(model, normalizer, json!({ "type": "BertPreTokenizer" }), decoder, &["[UNK]", "[CLS]", "[SEP]"]))
            .unwrap();
    file["post_processor"] = json!({ "type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1] });
    file.to_string()
}

/// Byte-level BPE that composes characters first, as Qwen has it.
fn normalized_bpe() -> String {
    let bpe = Tokenizer::from(BpeTrainer::new(300).with_special_tokens(&[END_OF_TEXT]).train(&[TEXT]).unwrap());
    let mut file: Value = serde_json::from_str(&bpe.to_json()).unwrap();
    file["normalizer"] = json!({ "type": "NFC" });
    file.to_string()
}

fn file(model: Value, normalizer: Value, pre_tokenizer: Value, decoder: Value, special: &[&str]) -> String {
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false })
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
    })
    .to_string()
}

fn all() -> [(&'static str, String); 3] {
    [("Unigram", unigram()), ("WordPiece", word_piece()), ("BPE with NFC", normalized_bpe())]
}

#[test]
fn ids_and_text_are_those_of_the_library() {
    for (name, json) in all() {
        let ours = Tokenizer::from_json(&json).unwrap();
        let theirs = tokenizers::Tokenizer::from_str(&json).unwrap();
        assert_eq!((ours.kind(), ours.is_lossless(), ours.vocab_size()), ("other", false, theirs.get_vocab_size(true)), "{name}");
        for text in [TEXT, "", " ", "the the", "\n\nthe\tdogs", "日本 fox"] {
            let ids = ours.encode(text).unwrap();
            assert_eq!(ids, theirs.encode(text, false).unwrap().get_ids(), "{name} of {text:?}");
            let expected = theirs.decode(&ids, false).unwrap();
            assert_eq!(ours.decode_lossy(&ids).unwrap(), expected, "{name} of {text:?}");
            let mut stream = ours.stream_decoder();
            let mut told: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            told += &stream.finish();
            assert_eq!(told, expected, "{name} of {text:?}, one at a time");
        }
    }
}

#[test]
fn the_normalizer_has_its_say() {
    let (composed, plain) = (Tokenizer::from_json(&normalized_bpe()).unwrap(), "été");
    assert_eq!(composed.encode("e\u{301}te\u{301}").unwrap(), composed.encode(plain).unwrap());
    assert_eq!(composed.decode_lossy(&composed.encode("e\u{301}").unwrap()).unwrap(), "é");
}

#[test]
fn text_yields_no_special_ids_unless_they_are_allowed() {
    for ((name, json), special) in all().into_iter().zip(["</s>", "[SEP]", END_OF_TEXT]) {
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        let id = tokenizer.end_of_text().unwrap();
        assert!(tokenizer.is_special(id) && tokenizer.token_bytes(id) == Some(special.as_bytes()));
        let text = format!("the {special} the");
        assert!(!tokenizer.encode(&text).unwrap().contains(&id), "{name}");
        assert!(tokenizer.encode_with(&text, SpecialTokens::Allow(&[special])).unwrap().contains(&id), "{name}");
        assert!(tokenizer.decode(&[tokenizer.vocab_size() as u32]).is_err());
        let mut stream = tokenizer.stream_decoder();
        assert!(stream.push(9999).is_err());
        assert_eq!(stream.push(id).unwrap() + &stream.finish(), special, "{name}: an id that is none changes nothing");
    }
}

#[test]
fn a_file_is_saved_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for (name, json) in all() {
        let path = dir.path().join("tokenizer.json");
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        tokenizer.save(&path).unwrap();
        let again = Tokenizer::load(&path).unwrap();
        assert_eq!((again.to_json(), again.encode(TEXT).unwrap()), (json, tokenizer.encode(TEXT).unwrap()), "{name}");
    }
}

#[test]
fn what_is_no_tokenizer_is_refused() {
    for (edit, message) in
        [("\"Unigram\"", "\"Bigram\""), ("\"Metaspace\"", "\"Nowhere\"")].map(|(old, new)| (unigram().replace(old, new), new))
    {
        assert!(Tokenizer::from_json(&edit).is_err(), "{message}");
    }
    let short = unigram();
    assert!(Tokenizer::from_json(&short[..short.len() / 2]).is_err());
}
