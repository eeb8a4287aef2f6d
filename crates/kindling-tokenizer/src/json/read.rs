//! Reads a tokenizer.json and refuses whatever would make other ids than its maker's. Repairs nothing.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::bpe::{ListedMerge, bpe_of};
use super::components::{any, expect_component, expect_none, only, only_or_absent, type_of, wrong};
use super::vocab::{Added, Entries, Entry, Lines, RawEntries, by_id};
use super::{ANY_CHARACTER, VERSION};
use crate::{Bpe, CharVocab, SplitPattern, Tokenizer, TokenizerError, UNKNOWN, WordVocab};

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
    let mut file: File<'_> = serde_json::from_str(json)?;
    if file.version != VERSION {
        return Err(wrong("version", &Value::from(file.version), &format!("`{VERSION}`")));
    }
    expect_none("truncation", file.truncation.as_ref())?;
    expect_none("padding", file.padding.as_ref())?;
    expect_none("normalizer", file.normalizer.as_ref())?;
    let pre_tokenizer_type = type_of(file.pre_tokenizer.as_ref());
    let vocab = Entries::from_raw(std::mem::take(&mut file.model.vocab), json)?;
    match (model_type, pre_tokenizer_type.as_str()) {
        ("BPE", _) => read_bpe(&file, &vocab, json).map(Tokenizer::Bpe),
        (_, Some("Split")) => read_chars(&file, &vocab).map(Tokenizer::Char),
        (_, Some("WhitespaceSplit")) => read_words(&file, &vocab).map(Tokenizer::Word),
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
struct File<'a> {
    version: String,
    truncation: Option<Value>,
    padding: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    #[serde(borrow)]
    model: Model<'a>,
}

/// A token that the file adds to those of the model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// Without effect, because a normalizer is refused.
    #[serde(default, rename = "normalized")]
    _normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<'a> {
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
    #[serde(borrow)]
    vocab: RawEntries<'a>,
    #[serde(default, borrow)]
    merges: Vec<&'a RawValue>,
}

fn read_bpe(file: &File<'_>, vocab: &Entries, json: &str) -> Result<Bpe, TokenizerError> {
    let pattern = read_pattern(file.pre_tokenizer.as_ref())?;
    // These two share the pre-tokenizer's settings, but none has an effect on ids or text here.
    let without_effect = [any("add_prefix_space"), any("trim_offsets"), any("use_regex")];
    expect_component("decoder", file.decoder.as_ref(), "ByteLevel", &without_effect)?;
    if file.post_processor.as_ref().is_some_and(|found| !found.is_null()) {
        expect_component("post_processor", file.post_processor.as_ref(), "ByteLevel", &without_effect)?;
    }
    check_bpe_model(&file.model)?;
    let mut lines = Lines::new(json);
    let mut merges = Vec::with_capacity(file.model.merges.len());
    for raw in &file.model.merges {
        let value: Value = serde_json::from_str(raw.get())?;
        merges.push(ListedMerge { line: lines.of(raw.get()), parts: parts_of(&value), found: value.to_string() });
    }
    bpe_of(vocab, &added_tokens(file)?, &merges, pattern, file.model.ignore_merges)
}

/// How the file has text split: by GPT-2's pattern, which Hugging Face has built in, or by a regular expression of its own.
fn read_pattern(pre_tokenizer: Option<&Value>) -> Result<SplitPattern, TokenizerError> {
    if type_of(pre_tokenizer) != "Sequence" {
        let byte_level = [only("add_prefix_space", false), any("trim_offsets"), only_or_absent("use_regex", true)];
        expect_component("pre_tokenizer", pre_tokenizer, "ByteLevel", &byte_level)?;
        return Ok(SplitPattern::Gpt2);
    }
    expect_component("pre_tokenizer", pre_tokenizer, "Sequence", &[any("pretokenizers")])?;
    let listed = pre_tokenizer.and_then(|value| value["pretokenizers"].as_array()).map_or(&[][..], Vec::as_slice);
    let [split, byte_level] = listed else {
        let found = Value::from(listed.iter().map(|part| type_of(Some(part))).collect::<Vec<_>>());
        return Err(wrong("pre_tokenizer.pretokenizers", &found, "a `Split` and a `ByteLevel`"));
    };
    let rules = [any("pattern"), only("behavior", "Isolated"), only("invert", false)];
    expect_component("pre_tokenizer.pretokenizers[0]", Some(split), "Split", &rules)?;
    let rules = [only("add_prefix_space", false), any("trim_offsets"), only("use_regex", false)];
    expect_component("pre_tokenizer.pretokenizers[1]", Some(byte_level), "ByteLevel", &rules)?;
    match &split["pattern"]["Regex"] {
        Value::String(pattern) => SplitPattern::from_json(pattern),
        _ => Err(wrong("pre_tokenizer.pretokenizers[0].pattern", &split["pattern"], "a `Regex`")),
    }
}

fn check_bpe_model(model: &Model<'_>) -> Result<(), TokenizerError> {
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
    if model.byte_fallback {
        return Err(wrong("model.byte_fallback", &Value::from(true), "`false`"));
    }
    Ok(())
}

/// Both spellings of a merge: `"a b"`, and `["a", "b"]` of newer files. No byte is spelled as a space.
fn parts_of(value: &Value) -> Option<(String, String)> {
    match value {
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Only special tokens, which never match in ordinary text: how they would match then makes no difference,
/// but a program that places them by their text must not be misled.
fn added_tokens<'a>(file: &'a File<'_>) -> Result<Vec<Added<'a>>, TokenizerError> {
    for (idx, added) in file.added_tokens.iter().enumerate() {
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
    }
    Ok(file.added_tokens.iter().map(|added| Added { content: &added.content, id: added.id }).collect())
}

fn read_chars(file: &File<'_>, vocab: &Entries) -> Result<CharVocab, TokenizerError> {
    let split = [only("pattern", json!({ "Regex": ANY_CHARACTER })), only("behavior", "Isolated"), only("invert", false)];
    expect_component("pre_tokenizer", file.pre_tokenizer.as_ref(), "Split", &split)?;
    expect_component("decoder", file.decoder.as_ref(), "Fuse", &[])?;
    let added = added_tokens(file)?;
    let entries = read_word_level(file, vocab, &added)?;
    let (ordinary, special) = entries.split_at(entries.len() - added.len());
    let mut characters = Vec::with_capacity(ordinary.len());
    for entry in ordinary {
        let mut rest = entry.text.chars();
        match (rest.next(), rest.next()) {
            (Some(character), None) => characters.push(character),
            _ => {
                let error = wrong("model.vocab", &Value::from(entry.text), "tokens of one character");
                return Err(error.at_line(vocab.line(entry.text)));
            }
        }
    }
    Ok(CharVocab::from_parts(&characters, special.iter().map(|entry| entry.text)))
}

fn read_words(file: &File<'_>, vocab: &Entries) -> Result<WordVocab, TokenizerError> {
    expect_component("pre_tokenizer", file.pre_tokenizer.as_ref(), "WhitespaceSplit", &[])?;
    expect_none("decoder", file.decoder.as_ref())?;
    let added = added_tokens(file)?;
    let entries = read_word_level(file, vocab, &added)?;
    let (ordinary, special) = entries.split_at(entries.len() - added.len());
    if !ordinary.iter().any(|entry| entry.text == UNKNOWN) {
        return Err(wrong("model.unk_token", &Value::from(UNKNOWN), "a token of the vocabulary"));
    }
    Ok(WordVocab::from_parts(ordinary.iter().map(|entry| entry.text), special.iter().map(|entry| entry.text)))
}

/// The tokens of a `WordLevel` file, special ones last.
fn read_word_level<'a>(file: &File<'_>, vocab: &'a Entries, added: &'a [Added<'a>]) -> Result<Vec<Entry<'a>>, TokenizerError> {
    expect_none("post_processor", file.post_processor.as_ref())?;
    if file.model.unk_token.as_deref() != Some(UNKNOWN) {
        let found = Value::from(file.model.unk_token.as_deref());
        return Err(wrong("model.unk_token", &found, &format!("`{UNKNOWN}`")));
    }
    if !file.model.merges.is_empty() {
        return Err(wrong("model.merges", &Value::from(file.model.merges.len()), "none in a `WordLevel` model"));
    }
    let entries = by_id(vocab, added)?;
    // A special token in the model's vocabulary would be found there by ordinary text.
    for (idx, added) in added.iter().enumerate() {
        if (added.id as usize) < vocab.len() {
            let field = format!("added_tokens[{idx}].content");
            return Err(wrong(&field, &Value::from(added.content), "a token that is not in `model.vocab`"));
        }
    }
    Ok(entries)
}
