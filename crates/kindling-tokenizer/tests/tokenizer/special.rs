//! Special tokens in text, by name.

use kindling_tokenizer::{BpeTrainer, CharVocab, SpecialTokens, Tokenizer, TokenizerError, WordVocab};
use proptest::prelude::*;

const SPECIAL: [&str; 3] = ["<|a|>", "<|a|>>", "<|b|>"];

fn kinds() -> [Tokenizer; 3] {
    let special: Vec<String> = SPECIAL.iter().map(|&token| token.to_owned()).collect();
    let text = ["x y <|a|> <|a|>> <|b|>"];
    [
        BpeTrainer::new(270).with_special_tokens(&SPECIAL).train(&text).unwrap().into(),
        CharVocab::build(&text, &special).into(),
        WordVocab::build(&text, 20, &special).into(),
    ]
}

fn special_in(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let special = ids.iter().filter(|&&id| tokenizer.is_special(id));
    special.map(|&id| String::from_utf8(tokenizer.token_bytes(id).unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn only_what_is_allowed_by_name_becomes_special() {
    let check = |text: &str, special: SpecialTokens<'_>, expected: &[&str]| {
        for tokenizer in kinds() {
            let ids = tokenizer.encode_with(text, special).unwrap();
            assert_eq!(special_in(&tokenizer, &ids), expected, "{} of {text}", tokenizer.kind());
            if tokenizer.is_lossless() {
                assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_bytes());
            }
        }
    };
    let text = "<|a|>x<|b|> y <|a|>>";
    check(text, SpecialTokens::AsText, &[]);
    check(text, SpecialTokens::Allow(&[]), &[]);
    check(text, SpecialTokens::Allow(&["<|b|>"]), &["<|b|>"]);
    check(text, SpecialTokens::Allow(&["<|a|>"]), &["<|a|>", "<|a|>"]);
    check(text, SpecialTokens::AllowAll, &["<|a|>", "<|b|>", "<|a|>>"]);
    check("<|b|><|b|><|b", SpecialTokens::AllowAll, &["<|b|>", "<|b|>"]);
    check("x y", SpecialTokens::Refuse, &[]);
}

#[test]
fn what_is_not_there_or_not_wanted_is_an_error() {
    for tokenizer in kinds() {
        let error = tokenizer.encode_with("x", SpecialTokens::Allow(&["<|c|>"])).unwrap_err();
        assert_eq!(error.to_string(), "the vocabulary has no special token `<|c|>`");
        // An ordinary token is not a special one.
        assert!(tokenizer.encode_with("x", SpecialTokens::Allow(&["x"])).is_err());
        let error = tokenizer.encode_with("x <|b|>", SpecialTokens::Refuse).unwrap_err();
        assert!(matches!(&error, TokenizerError::SpecialInText { token, offset: 2 } if token == "<|b|>"), "{error}");
        assert!(error.hint().is_some());
    }
}

proptest! {
    #[test]
    fn text_without_permission_never_yields_a_special_id(parts in prop::collection::vec("(<\\|a\\|>|<\\|b\\|>|>|<|\\||x|y| )", 0..20)) {
        let text = parts.concat();
        for tokenizer in kinds() {
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert!(special_in(&tokenizer, &ids).is_empty());
            let allowed = tokenizer.encode_with(&text, SpecialTokens::Allow(&["<|b|>"])).unwrap();
            prop_assert!(special_in(&tokenizer, &allowed).iter().all(|token| token == "<|b|>"));
            prop_assert_eq!(special_in(&tokenizer, &allowed).len(), text.matches("<|b|>").count());
        }
    }
}
