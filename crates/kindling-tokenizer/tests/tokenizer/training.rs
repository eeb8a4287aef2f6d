//! The trainer against a slow one that counts everything again before each merge.

use std::collections::{BTreeMap, HashMap};

use kindling_tokenizer::{Bpe, BpeTrainer, END_OF_TEXT, PreTokenCounts, SplitPattern, Tokenizer, TokenizerError};
use proptest::prelude::*;
use serde_json::Value;

use crate::{CORPUS, NASTY};

/// Tokens beyond the bytes, and merges, as bytes.
#[derive(Debug, Default, PartialEq)]
struct Vocabulary {
    tokens: Vec<Vec<u8>>,
    merges: Vec<[Vec<u8>; 2]>,
}

fn naive(texts: &[&str], vocab_size: usize, min_frequency: u64) -> Vocabulary {
    let mut words: BTreeMap<&str, u64> = BTreeMap::new();
    for piece in texts.iter().flat_map(|text| SplitPattern::Gpt2.pre_tokens(text).unwrap()) {
        *words.entry(piece).or_default() += 1;
    }
    let mut words: Vec<(Vec<u32>, u64)> = words.into_iter().map(|(word, count)| (word.bytes().map(u32::from).collect(), count)).collect();
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut merges: Vec<(u32, u32)> = Vec::new();
    while tokens.len() < vocab_size {
        let mut counts: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += count;
            }
        }
        // The first of the highest, in ascending order of pairs.
        let Some(best) = counts.values().max().copied().filter(|&best| best >= min_frequency) else { break };
        let (&(left, right), _) = counts.iter().find(|&(_, &count)| count == best).unwrap();
        let bytes = [&*tokens[left as usize], &*tokens[right as usize]].concat();
        let result = match tokens.iter().position(|token| *token == bytes) {
            Some(known) => known,
            None => {
                tokens.push(bytes);
                tokens.len() - 1
            }
        };
        if !merges.contains(&(left, right)) {
            merges.push((left, right));
        }
        for (word, _) in &mut words {
            let mut at = 0;
            while at + 1 < word.len() {
                if (word[at], word[at + 1]) == (left, right) {
                    word[at] = u32::try_from(result).unwrap();
                    word.remove(at + 1);
                }
                at += 1;
            }
        }
    }
    let merges = merges.iter().map(|&(left, right)| [left, right].map(|id| tokens[id as usize].clone())).collect();
    Vocabulary { tokens: tokens.split_off(256), merges }
}

/// What the trained vocabulary writes to its file. Only for texts of ASCII letters and white space.
fn trained(texts: &[&str], vocab_size: usize) -> Vocabulary {
    trained_from(texts, vocab_size, 1)
}

fn trained_from(texts: &[&str], vocab_size: usize, min_frequency: u64) -> Vocabulary {
    let bpe = BpeTrainer { min_frequency, ..BpeTrainer::new(vocab_size) }.train(texts).unwrap();
    let file: Value = serde_json::from_str(&Tokenizer::from(bpe.clone()).to_json()).unwrap();
    let unspell = |text: &Value| text.as_str().unwrap().replace('Ġ', " ").replace('Ċ', "\n").into_bytes();
    let merges = file["model"]["merges"].as_array().unwrap();
    let merges: Vec<_> = merges.iter().map(|merge| [unspell(&merge[0]), unspell(&merge[1])]).collect();
    let tokenizer = Tokenizer::from(bpe);
    let ids = 256..u32::try_from(tokenizer.vocab_size()).unwrap();
    Vocabulary { tokens: ids.map(|id| tokenizer.token_bytes(id).unwrap().to_vec()).collect(), merges }
}

#[test]
fn ties_go_to_the_lowest_ids() {
    // (a, b), (b, c) and (c, d) occur twice each.
    let vocabulary = trained(&["abcd abcd"], 258);
    assert_eq!(vocabulary.tokens, [b"ab".to_vec(), b"cd".to_vec()]);
}

#[test]
fn a_known_corpus_gives_the_known_merges() {
    // The example of Sennrich et al., section 3.2, by hand with our tie rule.
    let words = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)];
    let text: String = words.iter().flat_map(|&(word, n)| std::iter::repeat_n(format!("{word}\n"), n)).collect();
    let found = trained(&[&text], 256 + 5);
    // es 9, then est 9, then lo 7, low 7, then of ew, ne and we+est (6 each) the one with the lowest left id.
    let expected = ["es", "est", "lo", "low", "ew"];
    assert_eq!(found.tokens, expected.map(|token| token.as_bytes().to_vec()));
}

#[test]
fn a_corpus_that_runs_out_gives_a_smaller_vocabulary() {
    let trainer = BpeTrainer::new(1000).with_special_tokens(&[END_OF_TEXT]);
    let mut calls = Vec::new();
    let mut counts = PreTokenCounts::new(SplitPattern::Gpt2);
    counts.add(&["abc"]).unwrap();
    let bpe = trainer.train_with_progress(&counts, &mut |done, total| calls.push((done, total))).unwrap();
    let tokenizer = Tokenizer::from(bpe);
    assert_eq!(tokenizer.vocab_size(), 259);
    assert_eq!(tokenizer.end_of_text(), Some(258));
    assert_eq!(calls, [(0, 743), (1, 743), (2, 743)]);
    assert_eq!(Tokenizer::from(trainer.train(&[]).unwrap()).vocab_size(), 257);
}

#[test]
fn wrong_requests_are_refused() {
    let check = |vocab_size: usize, special: &[&str], texts: &[&str], message: &str| {
        let error = BpeTrainer::new(vocab_size).with_special_tokens(special).train(texts).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some());
    };
    let small = "vocabulary size is `257`, expected at least `258` (256 bytes and 2 special tokens)";
    check(257, &["<a>", "<b>"], &[], small);
    check(300, &[""], &[], "special token `` is empty");
    check(300, &["<a>", "<a>"], &[], "special token `<a>` is listed twice");
    let clash = "special token `the` is spelled like an ordinary token of this vocabulary";
    check(300, &["the"], &["the the"], clash);
    assert!(matches!(BpeTrainer::new(0).train(&[]), Err(TokenizerError::VocabTooSmall { found: 0, least: 256, n_special: 0 })));
}

#[test]
fn threads_and_order_of_texts_change_nothing() {
    // More than one chunk of a megabyte, and texts of their own.
    let long = CORPUS[..4].concat().repeat(40);
    let mut texts: Vec<&str> = vec![&long];
    texts.extend(NASTY);
    let trainer = BpeTrainer::new(900).with_special_tokens(&[END_OF_TEXT]);
    let with_threads = |n_threads: usize, texts: &[&str]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let bpe: Bpe = pool.install(|| trainer.train(texts)).unwrap();
        Tokenizer::from(bpe).to_json()
    };
    let one = with_threads(1, &texts);
    assert!(one == with_threads(3, &texts));
    texts.reverse();
    assert!(one == with_threads(3, &texts));
}

#[test]
fn no_two_tokens_have_the_same_bytes() {
    let text: String = (1..200).map(|n| format!("{}\n", "=".repeat(n * n % 97))).collect();
    let tokens = trained(&[&text], 400).tokens;
    let distinct: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(at, token)| (&**token, at)).collect();
    assert_eq!(distinct.len(), tokens.len());
}

/// Words of few letters and long runs, where pairs overlap themselves.
fn words() -> impl Strategy<Value = Vec<String>> {
    let word = prop_oneof![3 => "[abc]{1,8}", 1 => "a{1,30}", 1 => "(ab){1,10}a?", 1 => "[ \n]{1,9}"];
    let text = prop::collection::vec(word, 0..30).prop_map(|words| words.join(" "));
    prop::collection::vec(text, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_trainer_is_the_naive_one(texts in words(), extra in 0usize..80, min_frequency in 0u64..6) {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        prop_assert_eq!(trained_from(&texts, 256 + extra, min_frequency), naive(&texts, 256 + extra, min_frequency));
    }

    #[test]
    fn the_trainer_is_the_naive_one_on_runs(lengths in prop::collection::vec((1usize..60, 1usize..4), 1..20)) {
        let text: String = lengths.iter().map(|&(len, n)| format!("{}\n", "a".repeat(len)).repeat(n)).collect();
        prop_assert_eq!(trained(&[&text], 330), naive(&[&text], 330, 1));
    }
}
