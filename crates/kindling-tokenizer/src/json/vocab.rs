//! The tokens of a vocabulary file by id: each id once, each token once, no holes. Knows no merges.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::components::wrong;
use crate::TokenizerError;

/// The map from token to id as a file lists it, repeated keys included, which a hash map would swallow.
#[derive(Default)]
pub(super) struct RawEntries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawEntries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = RawEntries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token to id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(RawEntries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// Tokens with their ids, and the lines of the file on which they stand.
#[derive(Default)]
pub(crate) struct Entries(Vec<Listed>);

struct Listed {
    token: String,
    id: u32,
    line: usize,
}

impl Entries {
    /// Reads a file that is such a map and nothing else.
    pub(crate) fn from_json(json: &str) -> Result<Self, TokenizerError> {
        Self::from_raw(serde_json::from_str(json)?, json)
    }

    /// `json` is the file that the entries were read from.
    pub(super) fn from_raw(raw: RawEntries<'_>, json: &str) -> Result<Self, TokenizerError> {
        let mut lines = Lines::new(json);
        let mut entries = Vec::with_capacity(raw.0.len());
        for (token, id) in raw.0 {
            let line = lines.of(id.get());
            let Ok(id) = id.get().parse() else {
                let found: Value = serde_json::from_str(id.get())?;
                return Err(wrong("model.vocab", &found, &format!("the id of the token `{token}`")).at_line(line));
            };
            entries.push(Listed { token, id, line });
        }
        Ok(Self(entries))
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.0.iter().map(|entry| (entry.token.as_str(), entry.id))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The line of a token, of one that is listed.
    pub(super) fn line(&self, token: &str) -> usize {
        self.0.iter().find(|entry| entry.token == token).map_or(0, |entry| entry.line)
    }
}

/// Numbers the lines of places in a text that come in ascending order.
pub(super) struct Lines<'a> {
    text: &'a str,
    counted: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, counted: 0, line: 1 }
    }

    /// The line, from 1, of a part of the text.
    pub(super) fn of(&mut self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize).clamp(self.counted, self.text.len());
        self.line += self.text.as_bytes()[self.counted..offset].iter().filter(|&&byte| byte == b'\n').count();
        self.counted = offset;
        self.line
    }
}

/// A special token that a file adds to those of the model.
pub(crate) struct Added<'a> {
    pub(crate) content: &'a str,
    pub(crate) id: u32,
}

/// A token as the file spells it.
pub(super) struct Entry<'a> {
    pub(super) text: &'a str,
    pub(super) special: bool,
}

/// All tokens in the order of their ids.
pub(super) fn by_id<'a>(vocab: &'a Entries, added_tokens: &'a [Added<'a>]) -> Result<Vec<Entry<'a>>, TokenizerError> {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    for entry in &vocab.0 {
        if let Some(first) = ids.insert(&entry.token, entry.id) {
            let error = TokenizerError::DuplicateToken { token: entry.token.clone(), first, second: entry.id };
            return Err(error.at_line(entry.line));
        }
    }
    let mut specials: HashMap<&str, u32> = HashMap::new();
    for (idx, &Added { content, id }) in added_tokens.iter().enumerate() {
        if let Some(first) = specials.insert(content, id) {
            return Err(TokenizerError::DuplicateToken { token: content.to_owned(), first, second: id });
        }
        // Hugging Face takes the id from the model's vocabulary, or else the next free one, whatever stands here.
        let n_before = ids.len();
        let expected = *ids.entry(content).or_insert_with(|| u32::try_from(n_before).unwrap_or(u32::MAX));
        if id != expected {
            let field = format!("added_tokens[{idx}].id");
            return Err(wrong(&field, &Value::from(id), &format!("`{expected}` for the token `{content}`")));
        }
    }

    let n_tokens = ids.len();
    let mut entries: Vec<Option<Entry<'a>>> = Vec::new();
    entries.resize_with(n_tokens, || None);
    let listed = vocab.0.iter().map(|entry| (entry.token.as_str(), entry.id, specials.contains_key(entry.token.as_str()), entry.line));
    let in_vocab: HashSet<&str> = vocab.tokens().map(|(token, _)| token).collect();
    let apart = added_tokens.iter().filter(|added| !in_vocab.contains(added.content)).map(|added| (added.content, added.id, true, 0));
    for (text, id, special, line) in listed.chain(apart) {
        let Some(slot) = entries.get_mut(id as usize) else {
            return Err(TokenizerError::IdOutOfRange { token: text.to_owned(), id, n_tokens }.at_line(line));
        };
        if let Some(first) = slot {
            return Err(TokenizerError::DuplicateId { id, first: first.text.to_owned(), second: text.to_owned() }.at_line(line));
        }
        *slot = Some(Entry { text, special });
    }
    Ok(entries.into_iter().map(|entry| entry.expect("as many ids as places, none twice")).collect())
}
