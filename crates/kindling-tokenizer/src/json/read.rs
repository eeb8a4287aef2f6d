//! Reads a tokenizer.json and refuses whatever would make other ids than its maker's. Repairs nothing.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::components::{any, expect_component, expect_none, only, only_or_absent, type_of, wrong};
use super::vocab::{Entries, Entry, by_id};
use super::{ANY_CHARACTER, VERSION};
use crate::bpe::Merge;
use crate::byte_alphabet::unspell;
use crate::table::TokenTable;
use crate::{Bpe, CharVocab, Tokenizer, TokenizerError, UNKNOWN, WordVocab};

pub(crate) fn read(json: &str) -> Result<Tokenizer, TokenizerError> {
    // First the types alone: a model of another kind has a vocabulary of another shape, and should be refused
    // by its name rather than by a bracket.
    let outline: Outline = serde_json::from_str(json)?;
    let model_type = match outline.model.type_name.as_deref() {
        Some(name @ ("BPE" | "WordLevel")) => name,
        // Files from before the field existed.
        None if outline.model.merges.is_some() => "BPE",
        found => return Err(wrong("model.type", &Value::from(found), "`BPE` or `WordLevel`")),
    };
    let file: File = serde_json::from_str(json)?;
    if file.version != VERSION {
        return Err(wrong("version", &Value::from(file.version), &format!("`{VERSION}`")));
    }
    expect_none("truncation", file.truncation.as_ref())?;
    expect_none("padding", file.padding.as_ref())?;
    expect_none("normalizer", file.normalizer.as_ref())?;
    let pre_tokenizer_type = type_of(file.pre_tokenizer.as_ref());
    match (model_type, pre_tokenizer_type.as_str()) {
        ("BPE", _) => read_bpe(&file).map(Tokenizer::Bpe),
        (_, Some("Split")) => read_chars(&file).map(Tokenizer::Char),
        (_, Some("WhitespaceSplit")) => read_words(&file).map(Tokenizer::Word),
        _ => Err(wrong("pre_tokenizer.type", &pre_tokenizer_type, "`Split` or `WhitespaceSplit`")),
    }
}

#[derive(Deserialize)]
struct Outline {
    model: OutlineModel,
}

#[derive(Deserialize)]
struct OutlineModel {
    #[serde(rename = "type")]
    type_name: Option<String>,
    merges: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: String,
    truncation: Option<Value>,
    padding: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: Model,
}

/// A token that the file adds to those of the model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) single_word: bool,
    #[serde(default)]
    pub(super) lstrip: bool,
    #[serde(default)]
    pub(super) rstrip: bool,
    /// Without effect, because a normalizer is refused.
    #[serde(default, rename = "normalized")]
    _normalized: bool,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    #[serde(rename = "type")]
    _type: Option<String>,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    /// Without effect, because no byte is unknown.
    #[serde(default, rename = "fuse_unk")]
    _fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Entries,
    #[serde(default)]
    merges: Vec<Value>,
}

fn read_bpe(file: &File) -> Result<Bpe, TokenizerError> {
    let byte_level = [only("add_prefix_space", false), any("trim_offsets"), only_or_absent("use_regex", true)];
    expect_component("pre_tokenizer", file.pre_tokenizer.as_ref(), "ByteLevel", &byte_level)?;
    // These two share the pre-tokenizer's settings, but none has an effect on ids or text here.
    let without_effect = [any("add_prefix_space"), any("trim_offsets"), any("use_regex")];
    expect_component("decoder", file.decoder.as_ref(), "ByteLevel", &without_effect)?;
    if file.post_processor.as_ref().is_some_and(|found| !found.is_null()) {
        expect_component("post_processor", file.post_processor.as_ref(), "ByteLevel", &without_effect)?;
    }
    check_bpe_model(&file.model)?;

    let entries = by_id(&file.model.vocab, &file.added_tokens)?;
    let mut table = TokenTable::default();
    let mut ordinary: HashMap<&str, u32> = HashMap::new();
    let mut byte_ids: [Option<u32>; 256] = [None; 256];
    for (id, entry) in (0u32..).zip(&entries) {
        if entry.special {
            table.push_special(entry.text);
            continue;
        }
        let Some(bytes) = unspell(entry.text).filter(|bytes| !bytes.is_empty()) else {
            return Err(TokenizerError::NotByteLevel { token: entry.text.to_owned(), id });
        };
        table.push(&bytes);
        ordinary.insert(entry.text, id);
        if let [byte] = bytes[..] {
            byte_ids[byte as usize] = Some(id);
        }
    }
    let mut all_bytes = Box::new([0; 256]);
    for (byte, id) in (0u8..=255).zip(byte_ids) {
        all_bytes[byte as usize] = id.ok_or(TokenizerError::MissingByte { byte })?;
    }
    let merges = read_merges(&file.model.merges, &ordinary)?;
    Ok(Bpe::from_parts(table, all_bytes, merges))
}

fn check_bpe_model(model: &Model) -> Result<(), TokenizerError> {
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return Err(wrong("model.dropout", &Value::from(dropout), "`null`"));
    }
    let affixes =
        [("model.continuing_subword_prefix", &model.continuing_subword_prefix), ("model.end_of_word_suffix", &model.end_of_word_suffix)];
    for (field, affix) in affixes {
        if let Some(found) = affix.as_ref().filter(|affix| !affix.is_empty()) {
            return Err(wrong(field, &Value::from(found.as_str()), "`null`"));
        }
    }
    for (field, found) in [("model.byte_fallback", model.byte_fallback), ("model.ignore_merges", model.ignore_merges)] {
        if found {
            return Err(wrong(field, &Value::from(found), "`false`"));
        }
    }
    Ok(())
}

fn read_merges(listed: &[Value], ordinary: &HashMap<&str, u32>) -> Result<Vec<Merge>, TokenizerError> {
    let mut merges = Vec::with_capacity(listed.len());
    let mut seen: HashMap<(u32, u32), usize> = HashMap::new();
    for (index, value) in listed.iter().enumerate() {
        let (left, right) =
            parts_of(value).ok_or_else(|| TokenizerError::MergeShape { index, found: value.to_string().chars().take(60).collect() })?;
        let id_of = |token: &str| match ordinary.get(token) {
            Some(&id) => Ok(id),
            None => Err(TokenizerError::MergeUnknownToken { index, token: token.to_owned() }),
        };
        let merge = Merge { left: id_of(left)?, right: id_of(right)?, result: id_of(&format!("{left}{right}"))? };
        if let Some(first) = seen.insert(merge.pair(), index) {
            return Err(TokenizerError::DuplicateMerge { first, second: index });
        }
        merges.push(merge);
    }
    Ok(merges)
}

/// Both spellings of a merge: `"a b"`, and `["a", "b"]` of newer files. No byte is spelled as a space.
fn parts_of(value: &Value) -> Option<(&str, &str)> {
    let (left, right) = match value {
        Value::String(text) => text.split_once(' ')?,
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => (left.as_str(), right.as_str()),
            _ => return None,
        },
        _ => return None,
    };
    let is_token = |part: &str| !part.is_empty() && !part.contains(' ');
    (is_token(left) && is_token(right)).then_some((left, right))
}

fn read_chars(file: &File) -> Result<CharVocab, TokenizerError> {
    let split = [only("pattern", json!({ "Regex": ANY_CHARACTER })), only("behavior", "Isolated"), only("invert", false)];
    expect_component("pre_tokenizer", file.pre_tokenizer.as_ref(), "Split", &split)?;
    expect_component("decoder", file.decoder.as_ref(), "Fuse", &[])?;
    let entries = read_word_level(file)?;
    let (ordinary, special) = entries.split_at(entries.len() - file.added_tokens.len());
    let mut characters = Vec::with_capacity(ordinary.len());
    for entry in ordinary {
        let mut rest = entry.text.chars();
        match (rest.next(), rest.next()) {
            (Some(character), None) => characters.push(character),
            _ => return Err(wrong("model.vocab", &Value::from(entry.text), "tokens of one character")),
        }
    }
    Ok(CharVocab::from_parts(&characters, special.iter().map(|entry| entry.text)))
}

fn read_words(file: &File) -> Result<WordVocab, TokenizerError> {
    expect_component("pre_tokenizer", file.pre_tokenizer.as_ref(), "WhitespaceSplit", &[])?;
    expect_none("decoder", file.decoder.as_ref())?;
    let entries = read_word_level(file)?;
    let (ordinary, special) = entries.split_at(entries.len() - file.added_tokens.len());
    if !ordinary.iter().any(|entry| entry.text == UNKNOWN) {
        return Err(wrong("model.unk_token", &Value::from(UNKNOWN), "a token of the vocabulary"));
    }
    Ok(WordVocab::from_parts(ordinary.iter().map(|entry| entry.text), special.iter().map(|entry| entry.text)))
}

/// The tokens of a `WordLevel` file, special ones last.
fn read_word_level(file: &File) -> Result<Vec<Entry<'_>>, TokenizerError> {
    expect_none("post_processor", file.post_processor.as_ref())?;
    if file.model.unk_token.as_deref() != Some(UNKNOWN) {
        let found = Value::from(file.model.unk_token.as_deref());
        return Err(wrong("model.unk_token", &found, &format!("`{UNKNOWN}`")));
    }
    if !file.model.merges.is_empty() {
        return Err(wrong("model.merges", &Value::from(file.model.merges.clone()), "none in a `WordLevel` model"));
    }
    let entries = by_id(&file.model.vocab, &file.added_tokens)?;
    // A special token in the model's vocabulary would be found there by ordinary text.
    for (idx, added) in file.added_tokens.iter().enumerate() {
        if (added.id as usize) < file.model.vocab.0.len() {
            let field = format!("added_tokens[{idx}].content");
            return Err(wrong(&field, &Value::from(added.content.as_str()), "a token that is not in `model.vocab`"));
        }
    }
    Ok(entries)
}
