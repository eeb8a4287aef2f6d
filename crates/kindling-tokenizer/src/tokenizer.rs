//! The tokenizer that a program holds, whichever its kind. The work is in the three kinds.

use std::path::Path;

use rayon::prelude::*;

#[cfg(feature = "hugging-face")]
use crate::OtherTokenizer;
use crate::special::{self, Part, SpecialTokens};
use crate::split::SplitPattern;
use crate::table::TokenTable;
use crate::tiktoken::{self, Published};
use crate::{Bpe, CharVocab, StreamDecoder, TokenizerError, WordCounts, WordVocab, file, gpt2_files, json};

/// Text to token ids and back.
///
/// Ids run from 0 to [`vocab_size`](Self::vocab_size) without holes, special tokens last in a vocabulary made
/// here. [`encode`](Self::encode) takes all text as ordinary text: what a user writes never becomes a special
/// token, and a program that wants one pushes its id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Tokenizer {
    /// Byte-level BPE.
    Bpe(Bpe),
    /// Single characters.
    Char(CharVocab),
    /// Words between white space.
    Word(WordVocab),
    /// Another kind of `tokenizer.json`, run by Hugging Face's library.
    #[cfg(feature = "hugging-face")]
    Other(Box<OtherTokenizer>),
}

impl Tokenizer {
    /// The ids of a text, all of it taken as ordinary text.
    ///
    /// # Errors
    /// At a character that a character vocabulary does not hold; or if the split of a BPE vocabulary is by a regular expression
    /// that takes too many steps.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match self {
            Self::Bpe(bpe) => bpe.encode(text),
            Self::Char(chars) => chars.encode(text),
            Self::Word(words) => Ok(words.encode(text)),
            #[cfg(feature = "hugging-face")]
            Self::Other(other) => other.encode(text),
        }
    }

    /// The ids of a text in which special tokens may be recognised.
    ///
    /// ```
    /// use kindling_tokenizer::{END_OF_TEXT, SpecialTokens, Tokenizer};
    ///
    /// # #[cfg(feature = "published")]
    /// # fn main() -> Result<(), kindling_tokenizer::TokenizerError> {
    /// let gpt2 = Tokenizer::published("gpt2")?;
    /// let text = "One.<|endoftext|>Two.";
    /// assert_eq!(gpt2.encode_with(text, SpecialTokens::Allow(&[END_OF_TEXT]))?, [3198, 13, 50256, 7571, 13]);
    /// assert!(!gpt2.encode(text)?.contains(&50256));
    /// assert!(gpt2.encode_with(text, SpecialTokens::Refuse).is_err());
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "published"))]
    /// # fn main() {}
    /// ```
    ///
    /// # Errors
    /// As [`encode`](Self::encode); at a name that is not that of a special token; and as
    /// [`SpecialTokens::Refuse`] says.
    pub fn encode_with(&self, text: &str, special: SpecialTokens<'_>) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = Vec::new();
        for part in special::parts(text, self.table(), special)? {
            match part {
                Part::Text(text) => ids.extend(self.encode(text)?),
                Part::Special(id) => ids.push(id),
            }
        }
        Ok(ids)
    }

    /// The ids of any bytes. With a BPE vocabulary those that are no UTF-8 too: see [`Bpe::encode_bytes`].
    ///
    /// # Errors
    /// As [`encode`](Self::encode); and at bytes that are no UTF-8, if these are not the ids of a BPE vocabulary.
    pub fn encode_bytes(&self, bytes: &[u8]) -> Result<Vec<u32>, TokenizerError> {
        match self {
            Self::Bpe(bpe) => bpe.encode_bytes(bytes),
            _ => {
                let text = str::from_utf8(bytes).map_err(|error| TokenizerError::NotUtf8 { offset: error.valid_up_to() as u64 })?;
                self.encode(text)
            }
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
        #[cfg(feature = "hugging-face")]
        if let Self::Other(other) = self {
            return other.decode(ids).map(String::into_bytes);
        }
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

    /// Id of the special token [`END_OF_TEXT`](crate::END_OF_TEXT), if there is one; of other kinds the one that ends a text under
    /// another name, such as `</s>`.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        #[cfg(feature = "hugging-face")]
        if let Self::Other(other) = self {
            return other.end_of_text();
        }
        self.table().end_of_text()
    }

    /// Whether decoding gives back exactly the text that was encoded. Not so for words and other kinds.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        matches!(self, Self::Bpe(_) | Self::Char(_))
    }

    /// `bpe`, `char` or `word`; `other` for one that Hugging Face's library runs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Bpe(_) => "bpe",
            Self::Char(_) => "char",
            Self::Word(_) => "word",
            #[cfg(feature = "hugging-face")]
            Self::Other(_) => "other",
        }
    }

    /// The vocabulary in the tokenizer.json format of Hugging Face, whose `tokenizers` library then gives the
    /// same ids and the same text. Equal vocabularies give equal bytes.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// Reads the tokenizer.json format: what [`to_json`](Self::to_json) writes, and GPT-2's kind of byte-level
    /// BPE wherever it comes from. With the feature `hugging-face`, other kinds are run by Hugging Face's library.
    ///
    /// # Errors
    /// If the text is not such a file, contradicts itself, or asks for a step that this crate does not do:
    /// other ids than its maker's are never given silently.
    pub fn from_json(json: &str) -> Result<Self, TokenizerError> {
        match json::read(json) {
            #[cfg(feature = "hugging-face")]
            Err(error) if error.is_of_other_kind() => OtherTokenizer::from_json(json).map(|other| Self::Other(Box::new(other))),
            result => result,
        }
    }

    /// Writes [`to_json`](Self::to_json) to a file, as a whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TokenizerError> {
        file::write(path, &self.to_json())
    }

    /// Reads a vocabulary from where it lies:
    ///
    /// - a `tokenizer.json` of Hugging Face, by any name that ends in `.json`, or a folder with one;
    /// - a `vocab.json` with a `merges.txt` beside it, or a folder with both, as GPT-2 was published by Hugging Face; OpenAI called
    ///   the two `encoder.json` and `vocab.bpe`;
    /// - a `.tiktoken` file under the name that it was published with, such as `cl100k_base.tiktoken`; for others there is
    ///   [`load_tiktoken`](Self::load_tiktoken).
    ///
    /// # Errors
    /// If a file cannot be read, or as [`from_json`](Self::from_json); both name the file.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if let Some(stem) = name.strip_suffix(".tiktoken") {
            let published = Published::find(stem).ok_or_else(|| TokenizerError::NoPattern(path.to_owned()))?;
            return Self::load_tiktoken(path, published.pattern.clone(), published.special_tokens);
        }
        if let Some((vocab, merges)) = gpt2_files::find(path) {
            let (vocab_text, merges_text) = (file::read(&vocab)?, file::read(&merges)?);
            return gpt2_files::read(&vocab_text, &merges_text).map(Self::Bpe).map_err(|(in_merges, source)| TokenizerError::InFile {
                path: if in_merges { merges } else { vocab },
                source: Box::new(source),
            });
        }
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        Self::from_json(&file::read(&path)?).map_err(|source| TokenizerError::InFile { path, source: Box::new(source) })
    }

    /// The last place at which `text` can be cut, whatever follows it, so that the ids of both parts are those of the whole: what
    /// a long text is encoded by without all of it in memory. `None` where there is none, or none that is known.
    #[must_use]
    pub fn last_safe_cut(&self, text: &str) -> Option<usize> {
        match self {
            Self::Bpe(bpe) => bpe.pattern().last_safe_cut(text.as_bytes()),
            Self::Char(_) => Some(text.len()),
            Self::Word(_) => WordCounts::last_safe_cut(text),
            #[cfg(feature = "hugging-face")]
            Self::Other(_) => None,
        }
    }

    /// What lies at a path, as [`load`](Self::load) reads it, or else what is [published](Self::published) under that name.
    ///
    /// # Errors
    /// As the one or the other.
    pub fn open(name: &str) -> Result<Self, TokenizerError> {
        let path = Path::new(name);
        #[cfg(feature = "published")]
        if !path.exists() && path.extension().is_none() && path.components().count() == 1 {
            return Self::published(name);
        }
        Self::load(path)
    }

    /// Reads a `.tiktoken` file, which holds tokens and ranks alone: how text is split, and the special tokens with their ids, are
    /// given apart.
    ///
    /// # Errors
    /// If the file cannot be read, is no such file, or contradicts itself or the special tokens; all name the file.
    pub fn load_tiktoken(path: &Path, pattern: SplitPattern, special_tokens: &[(&str, u32)]) -> Result<Self, TokenizerError> {
        let tokens = file::read(path).and_then(|text| {
            let bpe = tiktoken::read(&text).and_then(|tokens| tiktoken::assemble(tokens, special_tokens, pattern));
            bpe.map_err(|source| TokenizerError::InFile { path: path.to_owned(), source: Box::new(source) })
        });
        tokens.map(Self::Bpe)
    }

    /// A vocabulary by the name that OpenAI published it under: `r50k_base` (or `gpt2`), `p50k_base`, `cl100k_base` or
    /// `o200k_base`. They are part of this program: nothing is read or fetched.
    ///
    /// Ids and text are tiktoken's. Ids that its vocabularies leave free are special tokens `<|reserved_ID|>` here, so that ids
    /// have no holes.
    ///
    /// # Errors
    /// At another name.
    #[cfg(feature = "published")]
    pub fn published(name: &str) -> Result<Self, TokenizerError> {
        let unknown = || TokenizerError::UnknownName { name: name.to_owned(), known: Published::names() };
        let published = Published::find(name).ok_or_else(unknown)?;
        tiktoken::assemble(published.tokens(), published.special_tokens, published.pattern.clone()).map(Self::Bpe)
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
            #[cfg(feature = "hugging-face")]
            Self::Other(other) => other.table(),
        }
    }

    /// What decoding puts between two tokens.
    pub(crate) fn separator(&self) -> &'static [u8] {
        match self {
            Self::Word(_) => b" ",
            _ => b"",
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
