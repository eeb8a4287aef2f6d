//! OpenAI's vocabularies against tiktoken: its ids in a golden file, and its Rust code run here.
#![cfg(feature = "published")]

use std::sync::LazyLock;

use kindling_tokenizer::{SpecialTokens, SplitPattern, Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde_json::Value;

use crate::{NASTY, text};

const NAMES: [&str; 4] = ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"];

static GOLDEN: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../../tests/golden/tiktoken_ids.json")).unwrap());

static OURS: LazyLock<[Tokenizer; 4]> = LazyLock::new(|| NAMES.map(|name| Tokenizer::published(name).unwrap()));
static THEIRS: LazyLock<[tiktoken_rs::CoreBPE; 4]> = LazyLock::new(|| {
    [tiktoken_rs::r50k_base(), tiktoken_rs::p50k_base(), tiktoken_rs::cl100k_base(), tiktoken_rs::o200k_base()].map(Result::unwrap)
});

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

#[test]
fn ids_are_tiktokens() {
    let texts: Vec<&str> = GOLDEN["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    assert!(texts.len() > 200);
    for (name, ours) in NAMES.iter().zip(&*OURS) {
        for (text, expected) in texts.iter().zip(GOLDEN["ids"][name].as_array().unwrap()) {
            let found = ours.encode(text).unwrap();
            assert_eq!(found, ids(expected), "{name} of {text:?}");
            assert_eq!(ours.decode(&found).unwrap(), text.as_bytes(), "{name} of {text:?}");
        }
        let text = GOLDEN["special_text"].as_str().unwrap();
        assert_eq!(ours.encode_with(text, SpecialTokens::AllowAll).unwrap(), ids(&GOLDEN["special_ids"][name]), "{name}");
        assert_eq!(ours.vocab_size() as u64, GOLDEN["n_vocab"][name].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn gpt2_is_another_name_and_others_are_refused() {
    let gpt2 = Tokenizer::published("gpt2").unwrap();
    assert_eq!((gpt2.vocab_size(), gpt2.end_of_text()), (50_257, Some(50_256)));
    let error = Tokenizer::published("gpt5").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no vocabulary is published as `gpt5`, expected one of r50k_base, gpt2, p50k_base, cl100k_base, o200k_base"
    );
}

#[test]
fn free_ids_are_reserved() {
    let cl100k = &OURS[2];
    assert_eq!(cl100k.token_bytes(100_256), Some(&b"<|reserved_100256|>"[..]));
    assert!(cl100k.is_special(100_256));
    assert_eq!(cl100k.vocab_size(), 100_277);
}

#[test]
fn a_tokenizer_json_gives_the_same_ids_here_and_in_hugging_faces_library() {
    for (name, ours) in NAMES.iter().zip(&*OURS) {
        let json = ours.to_json();
        let again = Tokenizer::from_json(&json).unwrap();
        assert_eq!(again.vocab_size(), ours.vocab_size());
        assert_eq!(again.end_of_text(), ours.end_of_text());
        assert!(again.to_json() == json, "{name}: what is written is what was read");
        let mut theirs: tokenizers::Tokenizer = json.parse().unwrap();
        theirs.set_encode_special_tokens(true);
        for text in GOLDEN["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).chain(NASTY.iter().copied()) {
            let expected = ours.encode(text).unwrap();
            assert_eq!(again.encode(text).unwrap(), expected, "{name} of {text:?}");
            assert_eq!(theirs.encode(text, false).unwrap().get_ids(), expected, "{name} of {text:?}");
        }
    }
}

#[test]
fn a_tiktoken_file_is_read_by_its_name_or_by_its_pattern() {
    use base64::Engine;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let line = |bytes: &[u8], id: u32| format!("{} {id}\n", base64::engine::general_purpose::STANDARD.encode(bytes));
    let gpt2 = &OURS[0];
    let whole: String = (0..50_256).map(|id| line(gpt2.token_bytes(id).unwrap(), id)).collect();
    let text = "It's  1,234 naïve\n\n bytes";
    let by_name = Tokenizer::load(&write("r50k_base.tiktoken", &whole)).unwrap();
    assert_eq!(by_name.encode(text).unwrap(), gpt2.encode(text).unwrap());
    assert_eq!(by_name.end_of_text(), Some(50_256));
    let own = write("own.tiktoken", &whole);
    let by_pattern = Tokenizer::load_tiktoken(&own, SplitPattern::Gpt2, &[("<end>", 50_256)]).unwrap();
    assert_eq!(by_pattern.encode(text).unwrap(), gpt2.encode(text).unwrap());

    let check = |text: &str, special: &[(&str, u32)], message: &str| {
        let path = write("bad.tiktoken", text);
        let error = Tokenizer::load_tiktoken(&path, SplitPattern::Gpt2, special).unwrap_err();
        assert!(error.to_string().starts_with(&format!("`{}`: {message}", path.display())), "{error}");
        assert!(error.hint().is_some());
    };
    assert!(matches!(Tokenizer::load(&own), Err(TokenizerError::NoPattern(_))));
    let bytes: String = (0..=255u8).map(|byte| line(&[byte], u32::from(byte))).collect();
    check(&format!("{bytes}!!! 256\n"), &[], "line 257 is `!!! 256`, expected a token in base64");
    check(&format!("{bytes}YWI=\n"), &[], "line 257 is `YWI=`");
    check(&format!("{bytes}YWI= -1\n"), &[], "line 257 is `YWI= -1`");
    check(&format!("{bytes} 256\n"), &[], "line 257 is ` 256`");
    check(&format!("{bytes}YWI= 7\n"), &[], "id `7` belongs to both `\u{7}` and `ab`");
    check(&format!("{bytes}YQ== 256\n"), &[], "token `a` is listed twice, with ids `97` and `256`");
    check(&format!("{bytes}YWI= 4000000000\n"), &[], "token `ab` has id `4000000000`, expected ids 0 to 256");
    check(&bytes[bytes.find('\n').unwrap() + 1..], &[], "byte `0x00` has no token");
    check(&bytes, &[("<end>", 255)], "id `255` belongs to both");
    check(&bytes, &[("", 256)], "special token `` is empty");
    check(&format!("{bytes}IGE= 256\n"), &[("Ġa", 257)], "special token `Ġa` is spelled like an ordinary token");
    check("", &[], "byte `0x00` has no token");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_has_tiktokens_ids(text in text()) {
        for ((name, ours), theirs) in NAMES.iter().zip(&*OURS).zip(&*THEIRS) {
            prop_assert_eq!(ours.encode(&text).unwrap(), theirs.encode_ordinary(&text), "{} of {:?}", name, text);
        }
    }
}
