//! GPT-2's two files: `vocab.json`, from token to id, and `merges.txt`, a merge a line. Reads no other settings.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::json::{Added, Entries, ListedMerge, bpe_of};
use crate::{Bpe, SplitPattern, TokenizerError};

/// What the two files are called: by Hugging Face, and by OpenAI.
const NAMES: [(&str, &str); 2] = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")];

/// The two files that a path means, if it means such files: the first of them, or a folder that has both and no `tokenizer.json`.
pub(crate) fn find(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let (vocab, merges) = NAMES.into_iter().find(|&(vocab, merges)| {
        let named = path.file_name().is_some_and(|name| name == vocab);
        let found = path.is_dir() && !path.join("tokenizer.json").exists() && path.join(vocab).exists();
        (named || found) && folder.join(merges).exists()
    })?;
    Some((folder.join(vocab), folder.join(merges)))
}

/// Reads both. An error says whether it is in the merges. Tokens in angle or square brackets that no merge makes are special.
pub(crate) fn read(vocab: &str, merges: &str) -> Result<Bpe, (bool, TokenizerError)> {
    let vocab = Entries::from_json(vocab).map_err(|error| (false, error))?;
    let mut listed = Vec::new();
    for (idx, line) in merges.lines().enumerate() {
        // The first line tells a version.
        if line.is_empty() || (idx == 0 && line.starts_with("#version")) {
            continue;
        }
        listed.push(ListedMerge {
            line: idx + 1,
            parts: line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
            found: line.to_owned(),
        });
    }
    let made: HashSet<String> = listed.iter().filter_map(|merge| merge.parts.as_ref()).map(|(a, b)| format!("{a}{b}")).collect();
    // As GPT-2, RoBERTa and their like have them. Anything else that no merge makes is one that has lost its merge.
    let looks_special = |token: &str| {
        (token.starts_with('<') && token.ends_with('>'))
            || (token.starts_with('[') && token.ends_with(']'))
            || token.starts_with("madeupword")
    };
    let is_special = |token: &str| token.chars().nth(1).is_some() && !made.contains(token);
    let added: Vec<Added<'_>> = vocab.tokens().filter(|(token, _)| is_special(token)).map(|(content, id)| Added { content, id }).collect();
    let bpe = bpe_of(&vocab, &added, &listed, SplitPattern::Gpt2, false).map_err(|error| (error.is_in_merges(), error))?;
    if let Some((token, id)) = vocab.tokens().find(|(token, _)| is_special(token) && !looks_special(token)) {
        return Err((true, TokenizerError::NoMerge { token: token.to_owned(), id }));
    }
    Ok(bpe)
}
