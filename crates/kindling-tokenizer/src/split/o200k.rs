//! The pattern of o200k_base, by hand: words are cut where capitals begin, and marks belong to them.
//!
//! ```text
//! [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! \p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```

use super::cl100k::{contraction_len, spaces, three_numbers_end};
use super::class::{Class, class_at, run_end};

fn is_head(class: Class) -> bool {
    matches!(class, Class::Upper | Class::Caseless | Class::Mark)
}

fn is_tail(class: Class) -> bool {
    matches!(class, Class::Lower | Class::Caseless | Class::Mark)
}

/// The first word of the pattern at `start`, which must have a tail.
fn with_tail(text: &str, start: usize) -> Option<usize> {
    // The head gives back as much as the tail needs: up to the last character that can be either.
    let (mut pos, mut either) = (start, None);
    while let Some((class, after)) = class_at(text, pos).filter(|&(class, _)| is_head(class)) {
        pos = after;
        if class != Class::Upper {
            either = Some(after);
        }
    }
    let end = run_end(text, pos, is_tail);
    if end > pos { Some(end) } else { either }
}

/// The second word of the pattern at `start`: capitals alone. Where a tail follows the first has matched.
fn capitals(text: &str, start: usize) -> Option<usize> {
    Some(run_end(text, start, is_head)).filter(|&end| end > start)
}

/// Where the pre-token that begins at `start` ends. The branches stand in the order of the pattern's.
#[inline]
pub(super) fn piece_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let Some((class, after)) = class_at(text, start) else {
        return text.len();
    };
    let word = match class {
        Class::Number => return three_numbers_end(text, after),
        Class::LineEnd => None,
        Class::Upper | Class::Lower | Class::Caseless => with_tail(text, start).or_else(|| capitals(text, start)),
        // A mark before a word goes with it, and a mark alone is a word.
        Class::Mark => with_tail(text, after).or_else(|| with_tail(text, start)),
        Class::Space | Class::Other => with_tail(text, after).or_else(|| capitals(text, after)),
    };
    if let Some(end) = word {
        return end + contraction_len(&bytes[end..]).unwrap_or(0);
    }
    let others = match class {
        _ if class.is_other() => Some(after),
        _ if bytes[start] == b' ' => class_at(text, after).filter(|(class, _)| class.is_other()).map(|(_, end)| end),
        _ => None,
    };
    if let Some(pos) = others {
        let mut end = run_end(text, pos, Class::is_other);
        while matches!(bytes.get(end), Some(b'\r' | b'\n' | b'/')) {
            end += 1;
        }
        return end;
    }
    let spaces = spaces(text, start);
    match spaces.line_end {
        Some(end) => end,
        None if spaces.end == text.len() || spaces.last == start => spaces.end,
        None => spaces.last,
    }
}
