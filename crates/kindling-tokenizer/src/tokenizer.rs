//! The tokenizer that a program holds, whichever its kind. The work is in the three kinds.

use std::path::Path;

use rayon::prelude::*;

use crate::table::TokenTable;
use crate::{Bpe, CharVocab, StreamDecoder, TokenizerError, WordVocab, file, json};

/// Text to token ids and back.
///
/// Ids run from 0 to [`vocab_size`](Self::vocab_size) without holes, special tokens last in a vocabulary made
/// here. [`encode`](Self::encode) takes all text as ordinary text: what a user writes never becomes a special
/// token, and a program that wants one pushes its id.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// Byte-level BPE.
    Bpe(Bpe),
    /// Single characters.
    Char(CharVocab),
    /// Words between white space.
    Word(WordVocab),
}

impl Tokenizer {
    /// The ids of a text.
    ///
    /// # Errors
    /// Only for a character vocabulary: at a character that it does not hold.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match self {
            Self::Bpe(bpe) => Ok(bpe.encode(text)),
            Self::Char(chars) => chars.encode(text),
            Self::Word(words) => Ok(words.encode(text)),
        }
    }

    /// The ids of each text, on all threads of the current rayon pool.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), for the first such text.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, TokenizerError> {
        let encoded: Vec<Result<Vec<u32>, TokenizerError>> = texts.par_iter().map(|text| self.encode(text)).collect();
        // Collecting here and not in parallel makes it the first error, whatever the threads did.
        encoded.into_iter().collect()
    }

    /// The bytes of a list of ids. Special tokens give their text; words are joined by one space.
    ///
    /// # Errors
    /// At an id that no token has.
    pub fn decode(&self, ids: &[u32]) -> Result<Vec<u8>, TokenizerError> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for (idx, &id) in ids.iter().enumerate() {
            if idx > 0 {
                bytes.extend_from_slice(self.separator());
            }
            bytes.extend_from_slice(self.table().expect(id)?);
        }
        Ok(bytes)
    }

    /// As [`decode`](Self::decode), as a string: bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// At an id that no token has.
    pub fn decode_lossy(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let bytes = self.decode(ids)?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The bytes of one token, which need not be whole characters. Those of a special token are its text.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.table().get(id)
    }

    /// Whether a token is special, such as [`END_OF_TEXT`](crate::END_OF_TEXT).
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.table().is_special(id)
    }

    /// Number of tokens, special ones included.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.table().len()
    }

    /// Id of the special token [`END_OF_TEXT`](crate::END_OF_TEXT), if there is one.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        self.table().end_of_text()
    }

    /// Whether decoding gives back exactly the text that was encoded. Not so for words.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        match self {
            Self::Bpe(_) | Self::Char(_) => true,
            Self::Word(_) => false,
        }
    }

    /// `bpe`, `char` or `word`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bpe(_) => "bpe",
            Self::Char(_) => "char",
            Self::Word(_) => "word",
        }
    }

    /// The vocabulary in the tokenizer.json format of Hugging Face, whose `tokenizers` library then gives the
    /// same ids and the same text. Equal vocabularies give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// Reads the tokenizer.json format: what [`to_json`](Self::to_json) writes, and GPT-2's kind of byte-level
    /// BPE wherever it comes from.
    ///
    /// # Errors
    /// If the text is not such a file, contradicts itself, or asks for a step that this crate does not do:
    /// other ids than its maker's are never given silently.
    pub fn from_json(json: &str) -> Result<Self, TokenizerError> {
        json::read(json)
    }

    /// Writes [`to_json`](Self::to_json) to a file, as a whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TokenizerError> {
        file::write(path, &self.to_json())
    }

    /// Reads a file as [`from_json`](Self::from_json) does.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`from_json`](Self::from_json); both name the file.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        Self::from_json(&file::read(path)?).map_err(|source| TokenizerError::InFile { path: path.to_owned(), source: Box::new(source) })
    }

    /// A decoder that takes one id at a time.
    #[must_use]
    pub fn stream_decoder(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    pub(crate) fn table(&self) -> &TokenTable {
        match self {
            Self::Bpe(bpe) => bpe.table(),
            Self::Char(chars) => chars.table(),
            Self::Word(words) => words.table(),
        }
    }

    /// What decoding puts between two tokens.
    pub(crate) fn separator(&self) -> &'static [u8] {
        match self {
            Self::Bpe(_) | Self::Char(_) => b"",
            Self::Word(_) => b" ",
        }
    }
}

impl From<Bpe> for Tokenizer {
    fn from(bpe: Bpe) -> Self {
        Self::Bpe(bpe)
    }
}

impl From<CharVocab> for Tokenizer {
    fn from(chars: CharVocab) -> Self {
        Self::Char(chars)
    }
}

impl From<WordVocab> for Tokenizer {
    fn from(words: WordVocab) -> Self {
        Self::Word(words)
    }
}
