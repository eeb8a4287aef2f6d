//! Writes a tokenizer.json. Its fields stand in a fixed order, so that equal vocabularies give equal bytes.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{ANY_CHARACTER, VERSION};
use crate::byte_alphabet::spell;
use crate::table::TokenTable;
use crate::{Bpe, SplitPattern, Tokenizer, UNKNOWN};

pub(crate) fn write(tokenizer: &Tokenizer) -> String {
    let (pre_tokenizer, decoder, model) = match tokenizer {
        Tokenizer::Bpe(bpe) => (
            PreTokenizer::of(bpe.pattern()),
            Some(Decoder::ByteLevel { add_prefix_space: true, trim_offsets: true, use_regex: true }),
            Model::bpe(bpe),
        ),
        Tokenizer::Char(chars) => (
            PreTokenizer::Split { pattern: Pattern { regex: ANY_CHARACTER }, behavior: "Isolated", invert: false },
            Some(Decoder::Fuse),
            Model::word_level(chars.table()),
        ),
        Tokenizer::Word(words) => (PreTokenizer::WhitespaceSplit, None, Model::word_level(words.table())),
        #[cfg(feature = "hugging-face")]
        Tokenizer::Other(other) => return other.json().to_owned(),
    };
    let table = tokenizer.table();
    let file = File {
        version: VERSION,
        truncation: (),
        padding: (),
        added_tokens: table.special_ids().iter().map(|&id| AddedToken::special(id, table)).collect(),
        normalizer: (),
        pre_tokenizer,
        post_processor: (),
        decoder,
        model,
    };
    let mut json = serde_json::to_string_pretty(&file).expect("strings and numbers always have a JSON form");
    json.push('\n');
    json
}

#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: (),
    pre_tokenizer: PreTokenizer<'a>,
    post_processor: (),
    decoder: Option<Decoder>,
    model: Model<'a>,
}

#[derive(Serialize)]
struct AddedToken<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

impl<'a> AddedToken<'a> {
    fn special(id: u32, table: &'a TokenTable) -> Self {
        Self { id, content: table.text(id), single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
    }
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum PreTokenizer<'a> {
    ByteLevel { add_prefix_space: bool, trim_offsets: bool, use_regex: bool },
    Split { pattern: Pattern<'a>, behavior: &'static str, invert: bool },
    WhitespaceSplit,
    Sequence { pretokenizers: Vec<PreTokenizer<'a>> },
}

impl<'a> PreTokenizer<'a> {
    fn of(pattern: &'a SplitPattern) -> Self {
        let byte_level = |use_regex| Self::ByteLevel { add_prefix_space: false, trim_offsets: true, use_regex };
        match pattern {
            // Built into Hugging Face's.
            SplitPattern::Gpt2 => byte_level(true),
            other => {
                let pattern = Pattern { regex: other.portable() };
                Self::Sequence { pretokenizers: vec![Self::Split { pattern, behavior: "Isolated", invert: false }, byte_level(false)] }
            }
        }
    }
}

#[derive(Serialize)]
struct Pattern<'a> {
    #[serde(rename = "Regex")]
    regex: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Decoder {
    ByteLevel { add_prefix_space: bool, trim_offsets: bool, use_regex: bool },
    Fuse,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Model<'a> {
    #[serde(rename = "BPE")]
    Bpe {
        dropout: (),
        unk_token: (),
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        vocab: Vocab<'a>,
        merges: Vec<[String; 2]>,
    },
    WordLevel {
        vocab: Vocab<'a>,
        unk_token: &'static str,
    },
}

impl<'a> Model<'a> {
    fn bpe(bpe: &'a Bpe) -> Self {
        let table = bpe.table();
        let spelled = |id| spell(table.get(id).expect("merges name tokens of their own table"));
        Self::Bpe {
            dropout: (),
            unk_token: (),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: bpe.ignore_merges(),
            // GPT-2's own file lists special tokens here too. It pins their ids: a reader takes the id of an
            // added token from the model's vocabulary, and numbers only those that it does not find there.
            vocab: Vocab { table, spelling: Spelling::ByteLevel },
            merges: bpe.merges().iter().map(|merge| [spelled(merge.left), spelled(merge.right)]).collect(),
        }
    }

    /// Without the special tokens: a word spelled like one must not find its id here. They are last in the
    /// table, so a reader numbers them as we do.
    fn word_level(table: &'a TokenTable) -> Self {
        Self::WordLevel { vocab: Vocab { table, spelling: Spelling::OrdinaryAsIs }, unk_token: UNKNOWN }
    }
}

/// A map from token to id, in the order of the ids.
struct Vocab<'a> {
    table: &'a TokenTable,
    spelling: Spelling,
}

#[derive(Clone, Copy)]
enum Spelling {
    ByteLevel,
    OrdinaryAsIs,
}

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (id, bytes) in self.table.iter() {
            match (self.spelling, self.table.is_special(id)) {
                (Spelling::ByteLevel, false) => map.serialize_entry(&spell(bytes), &id)?,
                (Spelling::ByteLevel, true) | (Spelling::OrdinaryAsIs, false) => {
                    map.serialize_entry(self.table.text(id), &id)?;
                }
                (Spelling::OrdinaryAsIs, true) => {}
            }
        }
        map.end()
    }
}
