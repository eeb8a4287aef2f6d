//! The tokenizer.json format of Hugging Face, as far as the three kinds need it. Touches no files.
//!
//! Which kind a file holds follows from its structure: a `BPE` model with a `ByteLevel` pre-tokenizer (which may follow
//! a `Split`), or a
//! `WordLevel` model with a `Split` (characters) or a `WhitespaceSplit` (words). Every other setting that would
//! change ids or text is refused by name.

mod bpe;
mod components;
mod read;
mod vocab;
mod write;

pub(crate) use bpe::{ListedMerge, bpe_of};
pub(crate) use read::read;
pub(crate) use vocab::{Added, Entries};
pub(crate) use write::write;

/// The version of the format that Hugging Face has written since the beginning.
const VERSION: &str = "1.0";

/// The pre-tokenizer's pattern of a character vocabulary: any one character, line feeds too. `(?s).` says the
/// same but is not understood by all the regex engines that read these files.
const ANY_CHARACTER: &str = r"[\s\S]";
