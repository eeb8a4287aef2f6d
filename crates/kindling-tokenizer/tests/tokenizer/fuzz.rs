//! Files with random mistakes: an error or a vocabulary, and never a panic.

use std::sync::LazyLock;

use kindling_tokenizer::{BpeTrainer, CharVocab, END_OF_TEXT, SplitPattern, Tokenizer, WordVocab};
use proptest::prelude::*;

/// Small files, so that a mistake hits something.
static FILES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let text = ["low lower lowest newer newest, naïve"];
    let special = [END_OF_TEXT.to_owned()];
    let bpe =
        |pattern: SplitPattern| BpeTrainer { pattern, ..BpeTrainer::new(264) }.with_special_tokens(&[END_OF_TEXT]).train(&text).unwrap();
    vec![
        Tokenizer::from(bpe(SplitPattern::Gpt2)).to_json(),
        Tokenizer::from(bpe(SplitPattern::Cl100k)).to_json(),
        Tokenizer::from(CharVocab::build(&text, &special)).to_json(),
        Tokenizer::from(WordVocab::build(&text, 9, &special)).to_json(),
    ]
});

static TIKTOKEN: LazyLock<String> = LazyLock::new(|| {
    use base64::Engine;
    let tokens = (0..=255u8).map(|byte| vec![byte]).chain([b"ab".to_vec(), b"abc".to_vec()]).enumerate();
    tokens.map(|(id, bytes)| format!("{} {id}\n", base64::engine::general_purpose::STANDARD.encode(bytes))).collect()
});

/// What can happen to a file.
#[derive(Clone, Debug)]
enum Mistake {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    /// A stretch moves to another place.
    Move(prop::sample::Index, usize, prop::sample::Index),
    Cut(prop::sample::Index),
}

fn mistakes() -> impl Strategy<Value = Vec<Mistake>> {
    let telling = prop::sample::select(b"{}[]\",: 0123456789-\\nultrefaeGg.\n\xff".to_vec());
    let mistake = prop_oneof![
        4 => (any::<prop::sample::Index>(), telling.clone()).prop_map(|(at, byte)| Mistake::Replace(at, byte)),
        2 => (any::<prop::sample::Index>(), prop::collection::vec(telling, 1..12)).prop_map(|(at, bytes)| Mistake::Insert(at, bytes)),
        2 => (any::<prop::sample::Index>(), 1usize..40).prop_map(|(at, len)| Mistake::Remove(at, len)),
        2 => (any::<prop::sample::Index>(), 1usize..60, any::<prop::sample::Index>()).prop_map(|(from, len, to)| Mistake::Move(from, len, to)),
        1 => any::<prop::sample::Index>().prop_map(Mistake::Cut),
    ];
    prop::collection::vec(mistake, 1..4)
}

fn with_mistakes(file: &str, mistakes: &[Mistake]) -> Vec<u8> {
    let mut bytes = file.as_bytes().to_vec();
    for mistake in mistakes {
        let n = bytes.len() + 1;
        match mistake {
            Mistake::Replace(at, byte) => {
                if let Some(slot) = bytes.get_mut(at.index(n)) {
                    *slot = *byte;
                }
            }
            Mistake::Insert(at, inserted) => drop(bytes.splice(at.index(n)..at.index(n), inserted.iter().copied())),
            Mistake::Remove(at, len) => drop(bytes.drain(at.index(n)..(at.index(n) + len).min(n - 1))),
            Mistake::Move(from, len, to) => {
                let moved: Vec<u8> = bytes.drain(from.index(n)..(from.index(n) + len).min(n - 1)).collect();
                let to = to.index(bytes.len() + 1);
                drop(bytes.splice(to..to, moved));
            }
            Mistake::Cut(at) => bytes.truncate(at.index(n)),
        }
    }
    bytes
}

/// A vocabulary that was accepted does what every vocabulary does.
fn check(tokenizer: &Tokenizer) {
    let text = "lowest naive <|endoftext|>";
    if let Ok(ids) = tokenizer.encode(text) {
        let decoded = tokenizer.decode(&ids).unwrap();
        assert!(!tokenizer.is_lossless() || decoded == text.as_bytes());
    }
    assert_eq!(Tokenizer::from_json(&tokenizer.to_json()).unwrap().to_json(), tokenizer.to_json());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_tokenizer_json_with_mistakes(which in any::<prop::sample::Index>(), mistakes in mistakes()) {
        let bytes = with_mistakes(&FILES[which.index(FILES.len())], &mistakes);
        if let Ok(tokenizer) = Tokenizer::from_json(&String::from_utf8_lossy(&bytes)) {
            check(&tokenizer);
        }
    }

    #[test]
    fn a_tiktoken_file_with_mistakes(mistakes in mistakes()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tiktoken");
        std::fs::write(&path, with_mistakes(&TIKTOKEN, &mistakes)).unwrap();
        if let Ok(tokenizer) = Tokenizer::load_tiktoken(&path, SplitPattern::Gpt2, &[(END_OF_TEXT, 258)]) {
            check(&tokenizer);
        }
    }
}
