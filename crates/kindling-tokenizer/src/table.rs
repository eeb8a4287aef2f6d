//! The bytes of every token by id. Does no encoding and knows no format.

use crate::{END_OF_TEXT, TokenizerError};

/// Token bytes in one buffer, in the order of their ids, and which of the ids are special.
#[derive(Clone, Debug, Default)]
pub(crate) struct TokenTable {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<usize>,
    /// Ids of the special tokens, ascending.
    special: Vec<u32>,
}

impl TokenTable {
    /// Appends an ordinary token and returns its id.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> u32 {
        let id = u32::try_from(self.ends.len()).expect("a vocabulary of 2^32 tokens does not fit in memory");
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        id
    }

    /// Appends a special token and returns its id.
    pub(crate) fn push_special(&mut self, text: &str) -> u32 {
        let id = self.push(text.as_bytes());
        self.special.push(id);
        id
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn get(&self, id: u32) -> Option<&[u8]> {
        let idx = id as usize;
        let end = *self.ends.get(idx)?;
        let start = if idx == 0 { 0 } else { self.ends[idx - 1] };
        Some(&self.bytes[start..end])
    }

    /// As `get`, for an id from outside.
    pub(crate) fn expect(&self, id: u32) -> Result<&[u8], TokenizerError> {
        self.get(id).ok_or(TokenizerError::UnknownId { id, vocab_size: self.len() })
    }

    /// The text of a token that was made from a `&str`.
    pub(crate) fn text(&self, id: u32) -> &str {
        let bytes = self.get(id).expect("the caller asks only for ids that it pushed");
        std::str::from_utf8(bytes).expect("the caller asks only for tokens that it made from a string")
    }

    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.binary_search(&id).is_ok()
    }

    pub(crate) fn special_ids(&self) -> &[u32] {
        &self.special
    }

    pub(crate) fn end_of_text(&self) -> Option<u32> {
        self.special.iter().copied().find(|&id| self.get(id) == Some(END_OF_TEXT.as_bytes()))
    }

    /// As [`iter`](Self::iter), without the special tokens.
    pub(crate) fn ordinary(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.iter().filter(|&(id, _)| !self.is_special(id))
    }

    /// Ids with their bytes, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        (0u32..).zip(starts.zip(&self.ends)).map(|(id, (start, &end))| (id, &self.bytes[start..end]))
    }
}

/// Special tokens that a vocabulary built from text takes: the given ones, without empty and repeated ones.
pub(crate) fn distinct_special<'a>(special_tokens: &'a [String], taken: &[&str]) -> Vec<&'a str> {
    let mut distinct: Vec<&str> = Vec::new();
    for token in special_tokens {
        let token = token.as_str();
        if !token.is_empty() && !taken.contains(&token) && !distinct.contains(&token) {
            distinct.push(token);
        }
    }
    distinct
}
