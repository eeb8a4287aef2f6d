//! Text from ids one at a time, never half a character. Decodes; does not encode.

use crate::{Tokenizer, TokenizerError};

/// Turns ids into text as they come, for printing while a model generates.
///
/// A token may end inside a character. Its first bytes are held back until the rest has come, so what
/// [`push`](Self::push) returns can be printed at once. All that it returns, and then
/// [`finish`](Self::finish), together is what [`Tokenizer::decode_lossy`] gives for the whole.
///
/// ```
/// use kindling_tokenizer::{BpeTrainer, Tokenizer};
///
/// # fn main() -> Result<(), kindling_tokenizer::TokenizerError> {
/// let tokenizer = Tokenizer::from(BpeTrainer::new(256).train(&[])?);
/// let mut decoder = tokenizer.stream_decoder();
/// let parts: Result<Vec<String>, _> = tokenizer.encode("é!")?.into_iter().map(|id| decoder.push(id)).collect();
/// assert_eq!(parts?, ["", "é", "!"]);
/// assert_eq!(decoder.finish(), "");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The start of a character that is not whole yet: at most three bytes between calls.
    pending: Vec<u8>,
    begun: bool,
    #[cfg(feature = "hugging-face")]
    other: crate::other::OtherStream,
}

impl<'a> StreamDecoder<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            pending: Vec::new(),
            begun: false,
            #[cfg(feature = "hugging-face")]
            other: Default::default(),
        }
    }

    /// Takes the next id and returns the text that is now complete, often the token's own, sometimes none.
    ///
    /// # Errors
    /// If no token has this id. The decoder is then as before.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        #[cfg(feature = "hugging-face")]
        if let Tokenizer::Other(tokenizer) = self.tokenizer {
            return self.other.push(tokenizer, id);
        }
        let bytes = self.tokenizer.table().expect(id)?;
        if self.begun {
            self.pending.extend_from_slice(self.tokenizer.separator());
        }
        self.begun = true;
        self.pending.extend_from_slice(bytes);
        Ok(self.take_complete())
    }

    /// Returns what was held back, which is not a whole character, as U+FFFD. The decoder can then begin anew.
    pub fn finish(&mut self) -> String {
        #[cfg(feature = "hugging-face")]
        if let Tokenizer::Other(tokenizer) = self.tokenizer {
            return self.other.finish(tokenizer);
        }
        self.begun = false;
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        let mut n_taken = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            n_taken += chunk.valid().len();
            // Only the last bytes can be the start of a character; others are invalid for good.
            let unfinished = chunks.peek().is_none() && is_unfinished(chunk.invalid());
            if !chunk.invalid().is_empty() && !unfinished {
                text.push(char::REPLACEMENT_CHARACTER);
                n_taken += chunk.invalid().len();
            }
        }
        self.pending.drain(..n_taken);
        text
    }
}

/// Whether bytes that are not UTF-8 may become so when more follow.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
