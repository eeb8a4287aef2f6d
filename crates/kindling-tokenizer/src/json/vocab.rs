//! The tokens of a tokenizer.json by id: each id once, each token once, no holes. Knows no merges.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::components::wrong;
use super::read::AddedToken;
use crate::TokenizerError;

/// The map from token to id as the file lists it, repeated keys included, which a hash map would swallow.
#[derive(Default)]
pub(super) struct Entries(pub(super) Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from token to id")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// A token as the file spells it.
pub(super) struct Entry<'a> {
    pub(super) text: &'a str,
    pub(super) special: bool,
}

/// All tokens in the order of their ids.
pub(super) fn by_id<'a>(vocab: &'a Entries, added_tokens: &'a [AddedToken]) -> Result<Vec<Entry<'a>>, TokenizerError> {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    for (token, id) in &vocab.0 {
        if let Some(first) = ids.insert(token, *id) {
            return Err(TokenizerError::DuplicateToken { token: token.clone(), first, second: *id });
        }
    }
    let mut specials: HashMap<&str, u32> = HashMap::new();
    for (idx, added) in added_tokens.iter().enumerate() {
        check_added(idx, added)?;
        let (token, id) = (added.content.as_str(), added.id);
        if let Some(first) = specials.insert(token, id) {
            return Err(TokenizerError::DuplicateToken { token: token.to_owned(), first, second: id });
        }
        // Hugging Face takes the id from the model's vocabulary, or else the next free one, whatever stands here.
        let n_before = ids.len();
        let expected = *ids.entry(token).or_insert_with(|| u32::try_from(n_before).unwrap_or(u32::MAX));
        if id != expected {
            let field = format!("added_tokens[{idx}].id");
            return Err(wrong(&field, &Value::from(id), &format!("`{expected}` for the token `{token}`")));
        }
    }

    let n_tokens = ids.len();
    let mut entries: Vec<Option<Entry<'a>>> = Vec::new();
    entries.resize_with(n_tokens, || None);
    let listed = vocab.0.iter().map(|(token, id)| (token.as_str(), *id, specials.contains_key(token.as_str())));
    let in_vocab: HashSet<&str> = vocab.0.iter().map(|(token, _)| token.as_str()).collect();
    let apart = added_tokens
        .iter()
        .filter(|added| !in_vocab.contains(added.content.as_str()))
        .map(|added| (added.content.as_str(), added.id, true));
    for (text, id, special) in listed.chain(apart) {
        let Some(slot) = entries.get_mut(id as usize) else {
            return Err(TokenizerError::IdOutOfRange { token: text.to_owned(), id, n_tokens });
        };
        if let Some(first) = slot {
            return Err(TokenizerError::DuplicateId { id, first: first.text.to_owned(), second: text.to_owned() });
        }
        *slot = Some(Entry { text, special });
    }
    Ok(entries.into_iter().map(|entry| entry.expect("as many ids as places, none twice")).collect())
}

/// Only special tokens, which never match in ordinary text: how they would match then makes no difference,
/// but a program that places them by their text must not be misled.
fn check_added(idx: usize, added: &AddedToken) -> Result<(), TokenizerError> {
    let settings = [
        ("special", added.special, true),
        ("single_word", added.single_word, false),
        ("lstrip", added.lstrip, false),
        ("rstrip", added.rstrip, false),
    ];
    for (key, found, expected) in settings {
        if found != expected {
            let field = format!("added_tokens[{idx}].{key}");
            return Err(wrong(&field, &Value::from(found), &format!("`{expected}`")));
        }
    }
    if added.content.is_empty() {
        return Err(wrong(&format!("added_tokens[{idx}].content"), &Value::from(""), "a text"));
    }
    Ok(())
}
