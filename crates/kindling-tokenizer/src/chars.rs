//! A vocabulary of single characters. Has no token for a character that it did not see.

use rustc_hash::FxHashMap;

use crate::table::{TokenTable, distinct_special};
use crate::{Characters, TokenizerError};

/// A character vocabulary: one token a Unicode character, for small experiments.
#[derive(Clone, Debug)]
pub struct CharVocab {
    table: TokenTable,
    ids: FxHashMap<char, u32>,
    /// The same for ASCII; `NONE` where there is no token.
    ascii: Box<[u32; 128]>,
}

const NONE: u32 = u32::MAX;

impl CharVocab {
    /// The characters of the texts in the order of their code points, ids from 0, then the special tokens.
    ///
    /// An empty or repeated special token is left out. A special token of a single character takes that
    /// character away from ordinary text, whose encoding never yields a special id.
    #[must_use]
    pub fn build(texts: &[&str], special_tokens: &[String]) -> Self {
        let mut characters = Characters::default();
        characters.add(texts);
        Self::from_characters(&characters, special_tokens)
    }

    /// As [`build`](Self::build), from characters that were collected before.
    #[must_use]
    pub fn from_characters(characters: &Characters, special_tokens: &[String]) -> Self {
        let special = distinct_special(special_tokens, &[]);
        let mut characters = characters.sorted();
        let mut buffer = [0; 4];
        characters.retain(|character| !special.contains(&&*character.encode_utf8(&mut buffer)));
        Self::from_parts(&characters, special)
    }

    /// The characters and the special tokens must be distinct.
    pub(crate) fn from_parts<'a>(characters: &[char], special: impl IntoIterator<Item = &'a str>) -> Self {
        let mut vocab = Self { table: TokenTable::default(), ids: FxHashMap::default(), ascii: Box::new([NONE; 128]) };
        let mut buffer = [0; 4];
        for &character in characters {
            let id = vocab.table.push(character.encode_utf8(&mut buffer).as_bytes());
            vocab.ids.insert(character, id);
            if let Some(slot) = vocab.ascii.get_mut(character as usize) {
                *slot = id;
            }
        }
        for token in special {
            vocab.table.push_special(token);
        }
        vocab
    }

    pub(crate) fn table(&self) -> &TokenTable {
        &self.table
    }

    /// The ids of a text, one a character.
    ///
    /// # Errors
    /// If a character is not in the vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::with_capacity(text.len());
        for (offset, character) in text.char_indices() {
            let id = match self.ascii.get(character as usize) {
                Some(&id) => id,
                None => self.ids.get(&character).copied().unwrap_or(NONE),
            };
            if id == NONE {
                return Err(TokenizerError::UnknownCharacter { character, offset, n_chars: self.ids.len() });
            }
            ids.push(id);
        }
        Ok(ids)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn characters_are_sorted_and_special_tokens_come_last() {
        let vocab = CharVocab::build(&["bé\n", "ab"], &["<e>".to_owned(), String::new(), "<e>".to_owned()]);
        let tokens: Vec<&[u8]> = vocab.table.iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(tokens, ["\n", "a", "b", "é", "<e>"].map(str::as_bytes));
        assert_eq!(vocab.encode("é\nba").unwrap(), [3, 0, 2, 1]);
    }

    #[test]
    fn an_unknown_character_is_named_with_its_place() {
        let error = CharVocab::build(&["aé"], &[]).encode("éa🎩").unwrap_err();
        assert_eq!(error.to_string(), "character `🎩` at byte 3 is not in the vocabulary of 2 characters");
        assert!(error.hint().unwrap().contains("BPE"));
    }

    #[test]
    fn a_special_character_is_no_ordinary_one() {
        let vocab = CharVocab::build(&["a|b"], &["|".to_owned()]);
        assert!(vocab.table.is_special(2));
        assert!(vocab.encode("|").is_err());
    }
}
