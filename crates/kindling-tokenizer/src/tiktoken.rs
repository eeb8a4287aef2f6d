//! OpenAI's vocabularies: `.tiktoken` files, and those that are published under a name. Splits and merges nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustc_hash::FxHashMap;

use crate::split::SplitPattern;
use crate::table::TokenTable;
use crate::{Bpe, END_OF_TEXT, TokenizerError, byte_alphabet};

/// A published vocabulary, but for its tokens.
pub(crate) struct Published {
    /// Its names, the first as OpenAI writes it.
    names: &'static [&'static str],
    pub(crate) pattern: SplitPattern,
    pub(crate) special_tokens: &'static [(&'static str, u32)],
}

/// The published vocabularies, as in tiktoken's `openai_public.py`.
const PUBLISHED: [Published; 4] = [
    Published { names: &["r50k_base", "gpt2"], pattern: SplitPattern::Gpt2, special_tokens: &[(END_OF_TEXT, 50_256)] },
    Published { names: &["p50k_base"], pattern: SplitPattern::Gpt2, special_tokens: &[(END_OF_TEXT, 50_256)] },
    Published {
        names: &["cl100k_base"],
        pattern: SplitPattern::Cl100k,
        special_tokens: &[
            (END_OF_TEXT, 100_257),
            ("<|fim_prefix|>", 100_258),
            ("<|fim_middle|>", 100_259),
            ("<|fim_suffix|>", 100_260),
            ("<|endofprompt|>", 100_276),
        ],
    },
    Published {
        names: &["o200k_base"],
        pattern: SplitPattern::O200k,
        special_tokens: &[(END_OF_TEXT, 199_999), ("<|endofprompt|>", 200_018)],
    },
];

impl Published {
    /// By any of its names.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        const ALL: &[Published] = &PUBLISHED;
        ALL.iter().find(|published| published.names.contains(&name))
    }

    /// All names, for messages.
    #[cfg(feature = "published")]
    pub(crate) fn names() -> Vec<&'static str> {
        PUBLISHED.iter().flat_map(|published| published.names.iter().copied()).collect()
    }

    /// The vocabulary with its tokens, which are part of this program.
    #[cfg(feature = "published")]
    pub(crate) fn tokens(&self) -> Vec<(Vec<u8>, u32)> {
        let bpe = match self.names[0] {
            "r50k_base" => tiktoken_rs::r50k_base(),
            "p50k_base" => tiktoken_rs::p50k_base(),
            "cl100k_base" => tiktoken_rs::cl100k_base(),
            _ => tiktoken_rs::o200k_base(),
        };
        let bpe = bpe.expect("what is embedded has been read in a test");
        let last = self.special_tokens.iter().map(|&(_, id)| id).max().unwrap_or(0);
        // p50k_base has 24 tokens behind its special one.
        let ids = (0..last + 100).filter(|id| !self.special_tokens.iter().any(|(_, special)| special == id));
        ids.filter_map(|id| Some((bpe.decode_bytes(&[id]).ok()?, id))).collect()
    }
}

/// Reads a `.tiktoken` file: on each line the bytes of a token in base64, a space, and its id, which is its rank.
pub(crate) fn read(text: &str) -> Result<Vec<(Vec<u8>, u32)>, TokenizerError> {
    let mut tokens = Vec::new();
    for (idx, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let shape = || TokenizerError::TiktokenLine { line: idx + 1, found: line.chars().take(60).collect() };
        let (token, id) = line.split_once(' ').ok_or_else(shape)?;
        let bytes = STANDARD.decode(token).map_err(|_| shape())?;
        if bytes.is_empty() {
            return Err(shape());
        }
        tokens.push((bytes, id.trim_end().parse().map_err(|_| shape())?));
    }
    Ok(tokens)
}

/// A vocabulary of tokens by rank, and special tokens. An id that neither has becomes a special token `<|reserved_ID|>`, so
/// that there are no holes.
pub(crate) fn assemble(tokens: Vec<(Vec<u8>, u32)>, special_tokens: &[(&str, u32)], pattern: SplitPattern) -> Result<Bpe, TokenizerError> {
    let spelled = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let n_listed = tokens.len() + special_tokens.len();
    let n_ids = 1 + tokens.iter().map(|&(_, id)| id).chain(special_tokens.iter().map(|&(_, id)| id)).max().unwrap_or(0) as usize;
    // Published vocabularies reserve a few ids; a file of any other kind has a mistake in it.
    if n_ids > n_listed + 1_100 {
        let (token, id) = tokens.iter().max_by_key(|&&(_, id)| id).map_or((String::new(), 0), |(bytes, id)| (spelled(bytes), *id));
        return Err(TokenizerError::IdOutOfRange { token, id, n_tokens: n_listed });
    }
    let mut by_id: Vec<Option<(&[u8], bool)>> = vec![None; n_ids];
    let mut by_bytes: FxHashMap<&[u8], u32> = FxHashMap::default();
    let ordinary = tokens.iter().map(|(bytes, id)| (&**bytes, *id, false));
    let special = special_tokens.iter().map(|&(token, id)| (token.as_bytes(), id, true));
    for (bytes, id, is_special) in ordinary.chain(special) {
        if let Some(first) = by_bytes.insert(bytes, id) {
            return Err(TokenizerError::DuplicateToken { token: spelled(bytes), first, second: id });
        }
        if let Some((first, _)) = by_id[id as usize].replace((bytes, is_special)) {
            return Err(TokenizerError::DuplicateId { id, first: spelled(first), second: spelled(bytes) });
        }
    }
    if let Some(byte) = (0..=255).find(|&byte| !tokens.iter().any(|(bytes, _)| *bytes == [byte])) {
        return Err(TokenizerError::MissingByte { byte });
    }
    for &(token, _) in special_tokens {
        let refuse = |problem| Err(TokenizerError::SpecialToken { token: token.to_owned(), problem });
        if token.is_empty() {
            return refuse("is empty");
        }
        // In a tokenizer.json both stand in one map, so their spellings must differ.
        if byte_alphabet::unspell(token).is_some_and(|bytes| by_bytes.contains_key(&*bytes) && bytes != token.as_bytes()) {
            return refuse("is spelled like an ordinary token of this vocabulary");
        }
    }
    let mut table = TokenTable::default();
    for (id, entry) in by_id.iter().enumerate() {
        match entry {
            Some((bytes, false)) => table.push(bytes),
            Some((bytes, true)) => table.push_special(&spelled(bytes)),
            None => table.push_special(&format!("<|reserved_{id}|>")),
        };
    }
    Ok(Bpe::from_ranks(table, pattern))
}
