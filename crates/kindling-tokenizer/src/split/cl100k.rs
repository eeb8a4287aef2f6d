//! The pattern of cl100k_base, by hand.
//! `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s`

use super::class::{Class, class_at, run_end};

/// Length of the apostrophe and `s`, `d`, `m`, `t`, `ll`, `ve` or `re` at the front, in capitals or not.
#[inline]
pub(super) fn contraction_len(rest: &[u8]) -> Option<usize> {
    let [b'\'', first, rest @ ..] = rest else {
        return None;
    };
    match (first.to_ascii_lowercase(), rest) {
        (b's' | b'd' | b'm' | b't', _) => Some(2),
        (b'l', [b'l' | b'L', ..]) | (b'v' | b'r', [b'e' | b'E', ..]) => Some(3),
        // U+017F, the long s, is an s to a pattern that takes no notice of capitals.
        (0xc5, [0xbf, ..]) => Some(3),
        _ => None,
    }
}

/// Where a run of digits ends, after three at most. One has been seen.
#[inline]
pub(super) fn three_numbers_end(text: &str, mut end: usize) -> usize {
    for _ in 0..2 {
        match class_at(text, end) {
            Some((Class::Number, after)) => end = after,
            _ => break,
        }
    }
    end
}

/// The white space from `start` on.
pub(super) struct Spaces {
    /// Where it ends.
    pub(super) end: usize,
    /// Where its last character begins.
    pub(super) last: usize,
    /// After its last line end, if there is one.
    pub(super) line_end: Option<usize>,
}

#[inline]
pub(super) fn spaces(text: &str, start: usize) -> Spaces {
    let mut spaces = Spaces { end: start, last: start, line_end: None };
    while let Some((class, after)) = class_at(text, spaces.end).filter(|(class, _)| class.is_space()) {
        (spaces.last, spaces.end) = (spaces.end, after);
        if class == Class::LineEnd {
            spaces.line_end = Some(after);
        }
    }
    spaces
}

/// Where the pre-token that begins at `start` ends. The branches stand in the order of the pattern's.
#[inline]
pub(super) fn piece_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    if let Some(len) = contraction_len(&bytes[start..]) {
        return start + len;
    }
    let Some((class, after)) = class_at(text, start) else {
        return text.len();
    };
    if class.is_letter() {
        return run_end(text, after, Class::is_letter);
    }
    if class == Class::Number {
        return three_numbers_end(text, after);
    }
    if class != Class::LineEnd {
        let next = class_at(text, after);
        if let Some((_, end)) = next.filter(|(class, _)| class.is_letter()) {
            return run_end(text, end, Class::is_letter);
        }
        let others = match next {
            _ if class.is_other() => Some(after),
            Some((next, end)) if bytes[start] == b' ' && next.is_other() => Some(end),
            _ => None,
        };
        if let Some(pos) = others {
            return run_end(text, run_end(text, pos, Class::is_other), |class| class == Class::LineEnd);
        }
    }
    let spaces = spaces(text, start);
    if spaces.end == text.len() || spaces.last == start {
        return spaces.end;
    }
    spaces.line_end.unwrap_or(spaces.last)
}
