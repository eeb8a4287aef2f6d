//! The public face from outside. Parts that are not public are tested where they stand.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod files;
mod fuzz;
mod gpt2_files;
mod hugging_face;
mod published;
mod round_trip;
mod special;
mod streaming;
mod training;

use std::sync::LazyLock;

use proptest::prelude::*;

use kindling_tokenizer::{BpeTrainer, CharVocab, END_OF_TEXT, Tokenizer, WordVocab};

/// Text of many scripts and habits, each with something that has broken a tokenizer.
const NASTY: &[&str] = &[
    "",
    " ",
    "The quick brown fox jumps over the lazy dog. It's 3.14, isn't it? WE'LL see; they'd've known.",
    "fn main() {\r\n\tlet x: Vec<u8> = vec![0; 1_000];\r\n    // naïve café\r\n}\r\n",
    "日本語のテキスト、中文文本。한국어 텍스트 ไทย हिन्दी العربية עברית Ελληνικά Русский Tiếng Việt",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽👍🏿 🇩🇪🇯🇵 ❤️‍🔥 #️⃣",
    "nul \0 bell \u{7} escape \u{1b}[0m delete \u{7f} bom \u{feff} private \u{e000} last \u{10ffff}",
    "a\u{a0}b \u{a0} c\u{2003}\u{2003}d\u{3000}e\u{85}f\u{2028}g\u{200b}h\u{fffd}",
    "e\u{301} a\u{300}\u{301}\u{302} Z\u{351}\u{36b}\u{343}a\u{328}l\u{30a}g\u{322}o\u{321}",
    "0 12 345 6789 1234567890123456789012345678901234567890 ½ ² Ⅷ ٣٤٥ 一二三 １２３",
    "                                        forty spaces\n\n\n\n\n\t\t\t\t \t \t\n",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "========================================================================================================",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "'s 't 're 've 'm 'll 'd 'S ''s s' '' ' \"'s\" x's’s",
    "<unk> <s> </s> [PAD] ĠtheĊ Ġ Ċ ĉ",
];

/// NASTY, and enough ordinary text for merges to be found.
static CORPUS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let mut corpus = vec![
        include_str!("../../src/split.rs"),
        include_str!("../../src/train.rs"),
        include_str!("../../src/error.rs"),
        include_str!("../../src/json/read.rs"),
    ];
    corpus.extend(NASTY);
    corpus
});

fn special() -> Vec<String> {
    vec![END_OF_TEXT.to_owned(), "<|pad|>".to_owned()]
}

static BPE: LazyLock<Tokenizer> =
    LazyLock::new(|| BpeTrainer { special_tokens: special(), ..BpeTrainer::new(1500) }.train(&CORPUS).unwrap().into());
static CHARS: LazyLock<Tokenizer> = LazyLock::new(|| {
    let letters: String = ('A'..='Z').chain('a'..='z').collect();
    CharVocab::build(&[&CORPUS[..], &[&letters]].concat(), &special()).into()
});
static WORDS: LazyLock<Tokenizer> = LazyLock::new(|| WordVocab::build(&CORPUS, 500, &special()).into());

fn all_kinds() -> [&'static Tokenizer; 3] {
    [&BPE, &CHARS, &WORDS]
}

/// Text of many scripts, with what each vocabulary has tokens for, and runs that overlap themselves.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z0-9 '.,!-]{0,12}",
        1 => "[ \t\r\n\u{a0}\u{3000}/]{1,6}",
        1 => "[\u{300}\u{200d}\u{fe0f}👩👍🏽éß一²Ⅷ٣日本語ʰǅſ]{1,6}",
        1 => "(the|fn|let|self|    |==|'s){1,5}",
        1 => "\\PC{0,8}",
        1 => "(a|ab|é|日| ){0,80}",
    ];
    prop::collection::vec(part, 0..10).prop_map(|parts| parts.concat())
}
