//! Text to token ids and back. Knows nothing of models, tensors, shards or configuration.
//!
//! The one promise that matters: for a byte-level BPE vocabulary `decode(encode(text)) == text` for every string, and the ids are
//! those that the vocabulary's makers give: `tokenizers` for a `tokenizer.json`, tiktoken for OpenAI's.
//!
//! Start at [`Tokenizer`]: it is what the rest of a program holds. It is [trained](BpeTrainer), [built](CharVocab) from a text,
//! [loaded](Tokenizer::load) from files of Hugging Face, OpenAI or GPT-2, or [published](Tokenizer::published) and part of this crate.
//!
//! ```
//! use kindling_tokenizer::{BpeTrainer, END_OF_TEXT, PreTokenCounts, SpecialTokens, SplitPattern, Tokenizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Train: on texts in memory, or part by part on a corpus of any size.
//! let mut counts = PreTokenCounts::new(SplitPattern::Cl100k);
//! counts.add(&["the cat and the hat and the bat", "and another text"])?;
//! counts.add_reader(&mut "whatever can be read".as_bytes())?;
//! let trainer = BpeTrainer::new(300).with_special_tokens(&[END_OF_TEXT]);
//! let tokenizer = Tokenizer::from(trainer.train_on(&counts)?);
//!
//! // Save, and load: Hugging Face's library reads the file too, and gives the same ids.
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("tokenizer.json");
//! tokenizer.save(&path)?;
//! let tokenizer = Tokenizer::load(&path)?;
//!
//! // Encode and decode.
//! let ids = tokenizer.encode("the hat, naïvely 🎩")?;
//! assert_eq!(tokenizer.decode_lossy(&ids)?, "the hat, naïvely 🎩");
//! assert_eq!(tokenizer.encode_batch(&["the hat", "the cat"])?.len(), 2);
//!
//! // The text of a special token is ordinary text, unless it is allowed by name.
//! let end = tokenizer.end_of_text().expect("it was asked for above");
//! assert!(!tokenizer.encode(END_OF_TEXT)?.contains(&end));
//! assert_eq!(tokenizer.encode_with(END_OF_TEXT, SpecialTokens::Allow(&[END_OF_TEXT]))?, [end]);
//!
//! // Stream: ids one by one, and never half a character.
//! let mut decoder = tokenizer.stream_decoder();
//! let mut text = String::new();
//! for id in ids {
//!     text += &decoder.push(id)?;
//! }
//! text += &decoder.finish();
//! assert_eq!(text, "the hat, naïvely 🎩");
//! # Ok(())
//! # }
//! ```
//!
//! | kind | unknown text | lossless | vocabulary |
//! |---|---|---|---|
//! | [`Bpe`] | cannot occur | yes | 256 bytes, merges, special tokens |
//! | [`CharVocab`] | an error that names the character | yes | the characters of the text, special tokens |
//! | [`WordVocab`] | `<unk>` | no: white space and rare words are lost | `<unk>`, frequent words, special tokens |
//!
//! With `default-features = false` OpenAI's vocabularies are left out of the program: they take about 7 MB.

mod tokenizer;

mod bpe;
mod chars;
mod words;

#[cfg(feature = "hugging-face")]
mod other;

mod count;
mod key;
mod special;
mod split;
mod stream;
mod train;
mod usage;

mod byte_alphabet;
mod table;

mod error;
mod file;
mod gpt2_files;
mod json;
mod tiktoken;

pub use bpe::Bpe;
pub use chars::CharVocab;
pub use count::{Characters, PreTokenCounts, WordCounts};
pub use error::TokenizerError;
#[cfg(feature = "hugging-face")]
pub use other::OtherTokenizer;
pub use special::SpecialTokens;
pub use split::{Pattern, SplitPattern};
pub use stream::StreamDecoder;
pub use tokenizer::Tokenizer;
pub use train::BpeTrainer;
pub use usage::Usage;
pub use words::{UNKNOWN, WordVocab};

/// The text of the special token that ends a document, as GPT-2 spells it.
pub const END_OF_TEXT: &str = "<|endoftext|>";
