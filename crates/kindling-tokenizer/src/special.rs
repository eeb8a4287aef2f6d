//! Special tokens in text: which of them are recognised, and where they stand. Encodes nothing.

use aho_corasick::{AhoCorasick, MatchKind};

use crate::TokenizerError;
use crate::table::TokenTable;

/// What becomes of the text of a special token when text is encoded; as tiktoken's `allowed_special` and `disallowed_special`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialTokens<'a> {
    /// It is ordinary text: what a user writes never becomes a special token.
    #[default]
    AsText,
    /// Those named become their ids; the text of others is ordinary text.
    Allow(&'a [&'a str]),
    /// All of the vocabulary become their ids.
    AllowAll,
    /// It is an error.
    Refuse,
}

/// A stretch of text.
pub(crate) enum Part<'t> {
    /// Ordinary text.
    Text(&'t str),
    /// A special token.
    Special(u32),
}

/// Cuts out the special tokens of a text: the leftmost first, and of several that begin at one place the longest.
pub(crate) fn parts<'t>(text: &'t str, table: &TokenTable, special: SpecialTokens<'_>) -> Result<Vec<Part<'t>>, TokenizerError> {
    let all = || table.special_ids().iter().map(|&id| (id, table.text(id)));
    let wanted: Vec<(u32, &str)> = match special {
        SpecialTokens::AsText => Vec::new(),
        SpecialTokens::AllowAll | SpecialTokens::Refuse => all().collect(),
        SpecialTokens::Allow(names) => names
            .iter()
            .map(|&name| all().find(|&(_, text)| text == name).ok_or_else(|| TokenizerError::NoSuchSpecialToken(name.to_owned())))
            .collect::<Result<_, _>>()?,
    };
    if wanted.is_empty() {
        return Ok(vec![Part::Text(text)]);
    }
    let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(wanted.iter().map(|&(_, text)| text));
    // It refuses only what does not fit in memory.
    let finder = finder.map_err(|error| TokenizerError::Pattern { pattern: "special tokens".into(), problem: error.to_string() })?;
    let mut parts = Vec::new();
    let mut start = 0;
    for found in finder.find_iter(text) {
        let (id, token) = wanted[found.pattern().as_usize()];
        if special == SpecialTokens::Refuse {
            return Err(TokenizerError::SpecialInText { token: token.to_owned(), offset: found.start() });
        }
        parts.push(Part::Text(&text[start..found.start()]));
        parts.push(Part::Special(id));
        start = found.end();
    }
    parts.push(Part::Text(&text[start..]));
    Ok(parts)
}
