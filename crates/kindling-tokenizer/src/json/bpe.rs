//! A byte-level BPE vocabulary from tokens and merges as files spell them. Knows no settings.

use std::collections::HashMap;

use super::vocab::{Added, Entries, by_id};
use crate::bpe::Merge;
use crate::byte_alphabet::unspell;
use crate::table::TokenTable;
use crate::{Bpe, SplitPattern, TokenizerError};

/// A merge as a file lists it.
pub(crate) struct ListedMerge {
    pub(crate) line: usize,
    /// The two tokens, if it has that shape.
    pub(crate) parts: Option<(String, String)>,
    /// How it is written.
    pub(crate) found: String,
}

/// Puts a vocabulary together, and checks that its parts fit.
pub(crate) fn bpe_of(
    vocab: &Entries,
    added_tokens: &[Added<'_>],
    merges: &[ListedMerge],
    pattern: SplitPattern,
    ignore_merges: bool,
) -> Result<Bpe, TokenizerError> {
    let entries = by_id(vocab, added_tokens)?;
    let mut table = TokenTable::default();
    let mut ordinary: HashMap<&str, u32> = HashMap::new();
    let mut byte_ids: [Option<u32>; 256] = [None; 256];
    for (id, entry) in (0u32..).zip(&entries) {
        if entry.special {
            table.push_special(entry.text);
            continue;
        }
        let Some(bytes) = unspell(entry.text).filter(|bytes| !bytes.is_empty()) else {
            return Err(TokenizerError::NotByteLevel { token: entry.text.to_owned(), id }.at_line(vocab.line(entry.text)));
        };
        table.push(&bytes);
        ordinary.insert(entry.text, id);
        if let [byte] = bytes[..] {
            byte_ids[byte as usize] = Some(id);
        }
    }
    let mut all_bytes = Box::new([0; 256]);
    for (byte, id) in (0u8..=255).zip(byte_ids) {
        all_bytes[byte as usize] = id.ok_or(TokenizerError::MissingByte { byte })?;
    }
    let merges = merges_of(merges, &ordinary)?;
    Ok(Bpe::from_merges(table, pattern, all_bytes, merges, ignore_merges))
}

fn merges_of(listed: &[ListedMerge], ordinary: &HashMap<&str, u32>) -> Result<Vec<Merge>, TokenizerError> {
    let mut merges = Vec::with_capacity(listed.len());
    let mut seen: HashMap<(u32, u32), usize> = HashMap::new();
    for (index, ListedMerge { line, parts, found }) in listed.iter().enumerate() {
        let is_token = |part: &str| !part.is_empty() && !part.contains(' ');
        let Some((left, right)) = parts.as_ref().filter(|(left, right)| is_token(left) && is_token(right)) else {
            let found = found.chars().take(60).collect();
            return Err(TokenizerError::MergeShape { index, found }.at_line(*line));
        };
        let id_of = |token: &str| match ordinary.get(token) {
            Some(&id) => Ok(id),
            None => Err(TokenizerError::MergeUnknownToken { index, token: token.to_owned() }.at_line(*line)),
        };
        let merge = Merge { left: id_of(left)?, right: id_of(right)?, result: id_of(&format!("{left}{right}"))? };
        if let Some(first) = seen.insert(merge.pair(), index) {
            return Err(TokenizerError::DuplicateMerge { first, second: index }.at_line(*line));
        }
        merges.push(merge);
    }
    Ok(merges)
}
