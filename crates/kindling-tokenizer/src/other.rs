//! Kinds of `tokenizer.json` that this crate does not compute itself, run by Hugging Face's `tokenizers`: Unigram, WordPiece, BPE over
//! characters, and byte-level BPE with a normalizer. Parses and writes nothing of its own.

use std::str::FromStr;

use serde::Deserialize;

use crate::TokenizerError;
use crate::table::TokenTable;

/// Special tokens that end a text, as published vocabularies call them; the first that there is.
const ENDS: [&str; 5] = [crate::END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]"];

/// A tokenizer of another kind. Not lossless: what its normalizer does to a text cannot be undone.
///
/// As everywhere in this crate, text is ordinary text: special tokens are not recognised in it, and a template's tokens (such as
/// a `[CLS]` in front) are not added.
#[derive(Clone, Debug)]
pub struct OtherTokenizer {
    inner: tokenizers::Tokenizer,
    table: TokenTable,
    end_of_text: Option<u32>,
    /// What stands for text that the vocabulary cannot express.
    unknown: Option<u32>,
    json: String,
}

/// Where a file says what stands for unknown text, in a way that depends on the model.
#[derive(Deserialize)]
struct Outline {
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    unk_id: Option<u32>,
    unk_token: Option<String>,
}

impl OtherTokenizer {
    pub(crate) fn from_json(json: &str) -> Result<Self, TokenizerError> {
        let mut inner = tokenizers::Tokenizer::from_str(json).map_err(|error| TokenizerError::Other(error.to_string()))?;
        inner.set_encode_special_tokens(true);
        // Rows of equal length are made of batches, and not here.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let mut tokens: Vec<(u32, String)> = inner.get_vocab(true).into_iter().map(|(token, id)| (id, token)).collect();
        tokens.sort_unstable();
        let special = inner.get_added_tokens_decoder();
        let mut table = TokenTable::default();
        let n_tokens = tokens.last().map_or(0, |(id, _)| *id as usize + 1);
        if n_tokens > 1 << 24 {
            return Err(TokenizerError::Other(format!("an id of {}, expected at most {}", n_tokens - 1, (1 << 24) - 1)));
        }
        let mut tokens = tokens.into_iter().peekable();
        for id in 0..n_tokens as u32 {
            // Of a hole nothing is known, and no text has its id.
            let token = std::iter::from_fn(|| tokens.next_if(|(of, _)| *of == id)).last().map_or(String::new(), |(_, token)| token);
            if special.get(&id).is_some_and(|added| added.special) {
                table.push_special(&token)
            } else {
                table.push(token.as_bytes())
            };
        }
        let id_of = |name: &&str| table.special_ids().iter().copied().find(|&id| table.get(id) == Some(name.as_bytes()));
        let end_of_text = ENDS.iter().find_map(id_of);
        let Outline { model } = serde_json::from_str(json)?;
        let unknown = model.unk_id.or_else(|| inner.token_to_id(&model.unk_token?));
        Ok(Self { inner, table, end_of_text, unknown, json: json.to_owned() })
    }

    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let ids = self.encode_as_it_is(text)?;
        let Some(special) = self.special_in(&ids) else { return Ok(ids) };
        // Some models have special tokens among the pieces of ordinary text. Cut behind its first character, the text has none.
        let mut cuts: Vec<usize> = Vec::new();
        for name in self.table.special_ids().iter().map(|&id| self.table.text(id)).filter(|name| name.chars().count() > 1) {
            let behind_first = name.chars().next().map_or(0, char::len_utf8);
            cuts.extend(text.match_indices(name).map(|(at, _)| at + behind_first));
        }
        cuts.push(text.len());
        cuts.sort_unstable();
        let (mut ids, mut start) = (Vec::new(), 0);
        for cut in cuts {
            ids.extend(self.encode_as_it_is(&text[start..cut])?);
            start = cut;
        }
        match self.special_in(&ids) {
            // It is not there as it is spelled: a normalizer makes it.
            Some(_) => Err(TokenizerError::SpecialInText { token: self.table.text(special).to_owned(), offset: 0 }),
            None => Ok(ids),
        }
    }

    fn encode_as_it_is(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|error| TokenizerError::Other(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A special token among ids, other than the one for what is unknown.
    fn special_in(&self, ids: &[u32]) -> Option<u32> {
        ids.iter().copied().find(|&id| self.table.is_special(id) && Some(id) != self.unknown)
    }

    pub(crate) fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        ids.iter().try_for_each(|&id| self.table.expect(id).map(|_| ()))?;
        self.inner.decode(ids, false).map_err(|error| TokenizerError::Other(error.to_string()))
    }

    pub(crate) fn table(&self) -> &TokenTable {
        &self.table
    }

    pub(crate) fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// The file as it was read.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }
}

/// Text from ids one at a time, of a tokenizer whose tokens do not stand for bytes by themselves: what a few ids together say less
/// what they said before.
#[derive(Clone, Debug, Default)]
pub(crate) struct OtherStream {
    ids: Vec<u32>,
    /// How many of `ids` have been told.
    n_told: usize,
}

impl OtherStream {
    pub(crate) fn push(&mut self, tokenizer: &OtherTokenizer, id: u32) -> Result<String, TokenizerError> {
        let before = tokenizer.decode(&self.ids[..self.n_told])?;
        self.ids.push(id);
        let now = match tokenizer.decode(&self.ids) {
            Ok(now) => now,
            Err(error) => {
                self.ids.pop();
                return Err(error);
            }
        };
        // A character that is not whole yet.
        if now.len() <= before.len() || now.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let text = now.get(before.len()..).unwrap_or_default().to_owned();
        // Those that were told stay in front of what comes: a first token is often decoded in another way.
        self.ids.drain(..self.n_told);
        self.n_told = self.ids.len();
        Ok(text)
    }

    pub(crate) fn finish(&mut self, tokenizer: &OtherTokenizer) -> String {
        let before = tokenizer.decode(&self.ids[..self.n_told]).unwrap_or_default();
        let now = tokenizer.decode(&self.ids).unwrap_or_default();
        *self = Self::default();
        now.get(before.len()..).unwrap_or_default().to_owned()
    }
}
