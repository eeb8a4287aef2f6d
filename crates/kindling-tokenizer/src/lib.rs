//! Text to token ids and back. Knows nothing of models, tensors, shards or configuration.
//!
//! The one promise that matters: for a byte-level BPE vocabulary `decode(encode(text)) == text` for every
//! string, and the ids are those that the Rust `tokenizers` crate gives for the same `tokenizer.json`.
//!
//! Start at [`Tokenizer`]: it is what the rest of a program holds. It is made by training or building one of
//! the three kinds ([`BpeTrainer`], [`CharVocab`], [`WordVocab`]) or by [`Tokenizer::load`].
//!
//! ```
//! use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, Tokenizer};
//!
//! # fn main() -> Result<(), kindling_tokenizer::TokenizerError> {
//! let trainer = BpeTrainer { vocab_size: 300, special_tokens: vec![END_OF_TEXT.to_owned()] };
//! let tokenizer = Tokenizer::from(trainer.train(&["the cat and the hat and the bat"])?);
//!
//! let ids = tokenizer.encode("the hat, naïvely 🎩")?;
//! assert_eq!(tokenizer.decode_lossy(&ids)?, "the hat, naïvely 🎩");
//!
//! // The text of a special token is ordinary text: only the caller places the special id.
//! let end = tokenizer.end_of_text().expect("it was asked for above");
//! assert!(!tokenizer.encode(END_OF_TEXT)?.contains(&end));
//! # Ok(())
//! # }
//! ```
//!
//! | kind | unknown text | lossless | vocabulary |
//! |---|---|---|---|
//! | [`Bpe`] | cannot occur | yes | 256 bytes, merges, special tokens |
//! | [`CharVocab`] | an error that names the character | yes | the characters of the text, special tokens |
//! | [`WordVocab`] | `<unk>` | no: white space and rare words are lost | `<unk>`, frequent words, special tokens |

mod tokenizer;

mod bpe;
mod chars;
mod words;

mod count;
mod split;
mod stream;
mod train;

mod byte_alphabet;
mod table;

mod error;
mod file;
mod json;

pub use bpe::Bpe;
pub use chars::CharVocab;
pub use error::TokenizerError;
pub use split::{PreTokens, SPLIT_PATTERN, pre_tokens};
pub use stream::StreamDecoder;
pub use tokenizer::Tokenizer;
pub use train::BpeTrainer;
pub use words::{UNKNOWN, WordVocab};

/// The text of the special token that ends a document, as GPT-2 spells it.
pub const END_OF_TEXT: &str = "<|endoftext|>";
