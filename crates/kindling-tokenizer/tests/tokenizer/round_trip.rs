//! Encoding and back, and what encoding must never do. Compares with nothing outside.

use kindling_tokenizer::{CharVocab, END_OF_TEXT, Tokenizer, TokenizerError, WordVocab};
use proptest::prelude::*;

use crate::{BPE, CHARS, NASTY, WORDS, all_kinds};

fn check(tokenizer: &Tokenizer, text: &str) {
    let ids = tokenizer.encode(text).unwrap();
    assert!(ids.iter().all(|&id| !tokenizer.is_special(id)), "of {text:?}");
    assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_bytes(), "of {text:?}");
    assert_eq!(tokenizer.decode_lossy(&ids).unwrap(), text);
}

#[test]
fn nasty_text_comes_back() {
    for text in NASTY {
        check(&BPE, text);
        check(&CHARS, text);
    }
}

#[test]
fn words_come_back_with_single_spaces() {
    let words = Tokenizer::from(WordVocab::build(&["to be or not to be"], 10, &[]));
    let ids = words.encode("  not\tto\n\nbe  forgotten ").unwrap();
    assert_eq!(words.decode_lossy(&ids).unwrap(), "not to be <unk>");
    assert!(!words.is_lossless());
}

#[test]
fn special_tokens_in_text_are_ordinary_text() {
    let text = format!("{END_OF_TEXT} a{END_OF_TEXT}b <|pad|>");
    for tokenizer in all_kinds() {
        let end = tokenizer.end_of_text().unwrap();
        assert!(tokenizer.is_special(end));
        assert_eq!(tokenizer.token_bytes(end), Some(END_OF_TEXT.as_bytes()));
        let ids = tokenizer.encode(&text).unwrap();
        assert!(ids.iter().all(|&id| !tokenizer.is_special(id)), "{}", tokenizer.kind());
        assert_eq!(tokenizer.decode_lossy(&[end]).unwrap(), END_OF_TEXT);
    }
    check(&BPE, &text);
    check(&CHARS, &text);
    let alone = WORDS.encode(END_OF_TEXT).unwrap();
    assert_eq!(WORDS.decode_lossy(&alone).unwrap(), "<unk>");
}

#[test]
fn every_token_decodes_to_its_bytes_and_no_id_is_beyond() {
    for tokenizer in all_kinds() {
        let n = u32::try_from(tokenizer.vocab_size()).unwrap();
        for id in 0..n {
            assert_eq!(tokenizer.decode(&[id]).unwrap(), tokenizer.token_bytes(id).unwrap());
        }
        for id in [n, u32::MAX] {
            assert_eq!(tokenizer.token_bytes(id), None);
            let error = tokenizer.decode(&[0, id]).unwrap_err();
            assert!(matches!(error, TokenizerError::UnknownId { id: found, .. } if found == id));
            assert!(error.hint().is_some());
        }
    }
}

#[test]
fn a_batch_is_the_texts_one_by_one() {
    for tokenizer in all_kinds() {
        let expected: Vec<_> = NASTY.iter().map(|text| tokenizer.encode(text).unwrap()).collect();
        assert_eq!(tokenizer.encode_batch(NASTY).unwrap(), expected);
    }
    let few = Tokenizer::from(CharVocab::build(&["ab"], &[]));
    let error = few.encode_batch(&["ab", "abx", "y"]).unwrap_err();
    assert!(matches!(error, TokenizerError::UnknownCharacter { character: 'x', offset: 2, .. }));
}

#[test]
fn bytes_that_are_no_text_decode_lossily() {
    let text = "é";
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    assert_eq!(BPE.decode_lossy(&ids).unwrap(), text);
    assert_eq!(BPE.decode_lossy(&ids[..1]).unwrap(), "\u{fffd}");
    assert_eq!(BPE.decode(&ids[1..]).unwrap(), [0xa9]);
}

#[test]
fn bytes_that_are_no_characters_are_tokens_of_their_own() {
    let bytes = b"a\xff\xc3 b\xe2\x82";
    let ids = BPE.encode_bytes(bytes).unwrap();
    let expected = [BPE.encode("a").unwrap(), vec![0xff, 0xc3], BPE.encode(" b").unwrap(), vec![0xe2, 0x82]].concat();
    assert_eq!(ids, expected);
    for tokenizer in [&*CHARS, &*WORDS] {
        assert!(matches!(tokenizer.encode_bytes(bytes), Err(TokenizerError::NotUtf8 { offset: 1 })));
        assert_eq!(tokenizer.encode_bytes(b"a b").unwrap(), tokenizer.encode("a b").unwrap());
    }
}

#[test]
fn a_long_text_has_the_same_ids_on_any_number_of_threads() {
    let text = crate::CORPUS.concat().repeat(30);
    let with_threads = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| BPE.encode(&text).unwrap())
    };
    let one = with_threads(1);
    assert!(one == with_threads(3));
    assert!(BPE.decode(&one).unwrap() == text.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_bytes_come_back(bytes in prop::collection::vec(prop_oneof![
        Just(0x61u8), Just(0x20), Just(0xc3), Just(0xa9), Just(0xe2), Just(0x82), Just(0xac), Just(0xf0), Just(0x9f), any::<u8>(),
    ], 0..200)) {
        let ids = BPE.encode_bytes(&bytes).unwrap();
        prop_assert_eq!(BPE.decode(&ids).unwrap(), bytes);
    }

    #[test]
    fn any_text_comes_back(text in any::<String>()) {
        check(&BPE, &text);
    }

    #[test]
    fn any_known_characters_come_back(text in "[a-z \r\n\t0-9👩éß日]{0,60}") {
        let tokenizer = Tokenizer::from(CharVocab::build(&[&text], &[]));
        check(&tokenizer, &text);
    }
}
