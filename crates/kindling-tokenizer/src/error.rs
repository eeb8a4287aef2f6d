//! The one error type of this crate. Says what was found against what was expected; advice is apart, in `hint`.

use std::path::PathBuf;

/// Why a text, a list of ids, a vocabulary or a file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// What Hugging Face's library says of a file or a text.
    #[cfg(feature = "hugging-face")]
    #[error("{0}")]
    Other(String),

    /// A character that a character vocabulary does not hold.
    #[error("character `{}` at byte {offset} is not in the vocabulary of {n_chars} characters", .character.escape_debug())]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Where it begins in the text, in bytes.
        offset: usize,
        /// How many characters the vocabulary holds.
        n_chars: usize,
    },

    /// An id that no token has.
    #[error("token id `{id}` is out of range, expected less than `{vocab_size}`")]
    UnknownId {
        /// The id.
        id: u32,
        /// Number of tokens in the vocabulary.
        vocab_size: usize,
    },

    /// A vocabulary too small to hold every byte and every special token.
    #[error("vocabulary size is `{found}`, expected at least `{least}` (256 bytes and {n_special} special tokens)")]
    VocabTooSmall {
        /// The size asked for.
        found: usize,
        /// The smallest size that works.
        least: usize,
        /// Number of special tokens asked for.
        n_special: usize,
    },

    /// A special token that cannot be one.
    #[error("special token `{token}` {problem}")]
    SpecialToken {
        /// The text of the token.
        token: String,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// A special token that the vocabulary does not have.
    #[error("the vocabulary has no special token `{0}`")]
    NoSuchSpecialToken(String),

    /// A special token in text that must have none.
    #[error("the text holds the special token `{token}` at byte {offset}")]
    SpecialInText {
        /// The text of the token.
        token: String,
        /// Where it begins, in bytes.
        offset: usize,
    },

    /// A regular expression that cannot be used.
    #[error("split pattern `{pattern}`: {problem}")]
    Pattern {
        /// The expression.
        pattern: String,
        /// What the engine says.
        problem: String,
    },

    /// A published vocabulary that is not known.
    #[error("no vocabulary is published as `{name}`, expected one of {}", .known.join(", "))]
    UnknownName {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },

    /// Bytes that are not UTF-8, where text is needed.
    #[error("byte {offset} is not UTF-8")]
    NotUtf8 {
        /// Where the first such byte is.
        offset: u64,
    },

    /// A reader that failed.
    #[error("cannot read on after {offset} bytes: {source}")]
    Read {
        /// Bytes read before.
        offset: u64,
        /// What it said.
        source: std::io::Error,
    },

    /// A line of a `.tiktoken` file that is no token and rank.
    #[error("line {line} is `{found}`, expected a token in base64, a space and its rank")]
    TiktokenLine {
        /// The line, from 1.
        line: usize,
        /// What stands there, shortened.
        found: String,
    },

    /// A `.tiktoken` file that does not say how text is split.
    #[error("`{}` does not say how text is split before merging", .0.display())]
    NoPattern(PathBuf),

    /// Text that is not JSON, or JSON of another shape than a `tokenizer.json`.
    #[error("not a tokenizer.json: {0}")]
    Json(#[from] serde_json::Error),

    /// A field of a `tokenizer.json` that asks for something this crate does not do.
    #[error("field `{field}` is `{found}`, expected {expected}")]
    Field {
        /// Where the field is, as a path from the top of the file.
        field: String,
        /// Its value, shortened.
        found: String,
        /// The values that are understood.
        expected: String,
    },

    /// Two tokens of a file with one id.
    #[error("id `{id}` belongs to both `{first}` and `{second}`, expected one token an id")]
    DuplicateId {
        /// The id.
        id: u32,
        /// The token met first.
        first: String,
        /// The token met second.
        second: String,
    },

    /// One token listed twice in a file.
    #[error("token `{token}` is listed twice, with ids `{first}` and `{second}`")]
    DuplicateToken {
        /// The token as the file spells it.
        token: String,
        /// Its first id.
        first: u32,
        /// Its second id.
        second: u32,
    },

    /// Ids of a file that leave a hole.
    #[error("token `{token}` has id `{id}`, expected ids 0 to {} without holes", .n_tokens.saturating_sub(1))]
    IdOutOfRange {
        /// The token as the file spells it.
        token: String,
        /// Its id.
        id: u32,
        /// Number of tokens in the file.
        n_tokens: usize,
    },

    /// A token of a file that is not spelled in the byte-level alphabet.
    #[error("token `{token}` with id `{id}` is neither special nor spelled in the byte-level alphabet")]
    NotByteLevel {
        /// The token as the file spells it.
        token: String,
        /// Its id.
        id: u32,
    },

    /// A byte-level vocabulary without one of the 256 bytes.
    #[error("byte `0x{byte:02x}` has no token, expected all 256 bytes in the vocabulary")]
    MissingByte {
        /// The byte.
        byte: u8,
    },

    /// A merge that a file spells in another way than `"a b"` or `["a", "b"]`.
    #[error("merge {index} is `{found}`, expected two tokens with one space between them")]
    MergeShape {
        /// Position in the list of merges, from 0.
        index: usize,
        /// The merge as the file spells it.
        found: String,
    },

    /// A merge whose part or result is no token.
    #[error("merge {index} needs the token `{token}`, which is not in the vocabulary")]
    MergeUnknownToken {
        /// Position in the list of merges, from 0.
        index: usize,
        /// The missing token as the file spells it.
        token: String,
    },

    /// A token that no merge makes.
    #[error("token `{token}` with id `{id}` is made by no merge")]
    NoMerge {
        /// The token as the file spells it.
        token: String,
        /// Its id.
        id: u32,
    },

    /// The same merge twice.
    #[error("merge {second} repeats merge {first}")]
    DuplicateMerge {
        /// Position of the first, from 0.
        first: usize,
        /// Position of the second, from 0.
        second: usize,
    },

    /// A file that could not be read or written.
    #[error("cannot {action} `{}`: {source}", .path.display())]
    Io {
        /// What was tried: `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// Any of the above, on a line of a file.
    #[error("line {line}: {source}")]
    AtLine {
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        source: Box<TokenizerError>,
    },

    /// Any of the above, in a file.
    #[error("`{}`: {source}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<TokenizerError>,
    },
}

impl TokenizerError {
    /// The error with its line, if that is known; 0 is no line.
    pub(crate) fn at_line(self, line: usize) -> Self {
        if line == 0 { self } else { Self::AtLine { line, source: Box::new(self) } }
    }

    /// Whether a file may well be one, of a kind that this crate does not compute.
    #[cfg(feature = "hugging-face")]
    pub(crate) fn is_of_other_kind(&self) -> bool {
        match self {
            Self::AtLine { source, .. } => source.is_of_other_kind(),
            Self::Field { .. } | Self::Pattern { .. } => true,
            _ => false,
        }
    }

    /// Whether it is about a merge.
    pub(crate) fn is_in_merges(&self) -> bool {
        match self {
            Self::AtLine { source, .. } => source.is_in_merges(),
            Self::MergeShape { .. } | Self::MergeUnknownToken { .. } | Self::DuplicateMerge { .. } => true,
            _ => false,
        }
    }

    /// Advice on what to do next, where there is some.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownCharacter { .. } => {
                "build the character vocabulary over all the text it will meet, or use a BPE vocabulary, which \
                 encodes any text"
            }
            Self::UnknownId { .. } => "use the tokenizer that was saved with the model these ids come from",
            Self::VocabTooSmall { least, .. } => {
                return Some(format!("ask for a vocabulary of {least} tokens or more"));
            }
            Self::SpecialToken { .. } => "choose a text that is no part of ordinary writing, such as `<|endoftext|>`, and list it once",
            Self::NoSuchSpecialToken(_) => "`kindling tokenizer info` lists the special tokens of a vocabulary",
            Self::SpecialInText { .. } => "allow it by name, or have it taken as ordinary text",
            Self::Pattern { .. } => "expected `gpt2`, `cl100k`, `o200k`, or a regular expression in the syntax of Rust's `fancy-regex`",
            Self::UnknownName { .. } => "pass one of these names, or the path of a tokenizer's file",
            Self::NotUtf8 { .. } => "convert the file (`iconv -f latin1 -t utf-8`), or encode its bytes with a BPE vocabulary",
            Self::Read { .. } => return None,
            Self::TiktokenLine { .. } => "the file was edited or damaged: take it again from where it was made",
            Self::NoPattern(_) => "name the pattern, or give the file the name that it was published under, such as `cl100k_base.tiktoken`",
            Self::Json(error) if error.is_eof() => "the file is cut short: copy it again from where it was made",
            Self::Json(_) => "expected the tokenizer.json format of Hugging Face",
            #[cfg(not(feature = "hugging-face"))]
            Self::Field { .. } => {
                "this file asks for a step that would change the ids; a program built with the feature `hugging-face` can run it, as with \
                 `cargo build --release --features hugging-face`"
            }
            #[cfg(feature = "hugging-face")]
            Self::Field { .. } | Self::Other(_) => "this file asks for a step that would change the ids",
            Self::DuplicateId { .. }
            | Self::DuplicateToken { .. }
            | Self::IdOutOfRange { .. }
            | Self::NotByteLevel { .. }
            | Self::MissingByte { .. }
            | Self::MergeShape { .. }
            | Self::MergeUnknownToken { .. }
            | Self::NoMerge { .. }
            | Self::DuplicateMerge { .. } => "the file was edited or damaged: take it again from where it was made",
            Self::Io { action: "read", source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "check the path: a tokenizer is one file, usually called `tokenizer.json`"
            }
            Self::Io { .. } => return None,
            Self::AtLine { source, .. } | Self::InFile { source, .. } => return source.hint(),
        };
        Some(hint.to_owned())
    }
}
