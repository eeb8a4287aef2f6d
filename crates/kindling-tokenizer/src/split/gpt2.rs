//! GPT-2's pattern, by hand. `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

use super::class::{Class, class_at, run_end};
use super::window::{Window, just_after, just_before};

/// Length of `s`, `t`, `re`, `ve`, `m`, `ll` or `d` at the front, which follow an apostrophe.
fn contraction_len(rest: &[u8]) -> Option<usize> {
    match rest {
        [b's' | b't' | b'm' | b'd', ..] => Some(1),
        [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => Some(2),
        _ => None,
    }
}

/// Where the run that a character of this class begins ends.
#[inline]
fn same_run_end(text: &str, pos: usize, class: Class) -> usize {
    if class.is_letter() {
        run_end(text, pos, Class::is_letter)
    } else if class == Class::Number {
        run_end(text, pos, |class| class == Class::Number)
    } else {
        run_end(text, pos, Class::is_other)
    }
}

/// Where the pre-token that begins at `start` ends. The branches stand in the order of the pattern's.
#[inline]
pub(super) fn piece_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[start] == b'\''
        && let Some(len) = contraction_len(&bytes[start + 1..])
    {
        return start + 1 + len;
    }
    let Some((class, after)) = class_at(text, start) else {
        return text.len();
    };
    if !class.is_space() {
        return same_run_end(text, after, class);
    }
    // One plain space goes with the word, number or punctuation behind it.
    if bytes[start] == b' '
        && let Some((next, next_after)) = class_at(text, after)
        && !next.is_space()
    {
        return same_run_end(text, next_after, next);
    }
    // White space up to the end, or all but its last character, or that single character.
    let (mut last, mut end) = (start, after);
    while let Some((_, after)) = class_at(text, end).filter(|(class, _)| class.is_space()) {
        (last, end) = (end, after);
    }
    if end == text.len() || last == start { end } else { last }
}

/// Bit i is set where a pre-token begins at byte i of a window that begins with a pre-token.
///
/// Right for every i that has three bytes of the window after it; all of them ASCII.
#[inline]
pub(super) fn starts(window: &Window<'_>) -> u64 {
    let &Window { letters, digits, white, blanks, .. } = window;
    let others = !(letters | digits | white);
    let same = (letters & just_after(letters)) | (digits & just_after(digits)) | (others & just_after(others));
    let visible = !white & !same & !just_after(blanks);
    let invisible = white & !(just_after(white) & just_before(white));
    let mut starts = visible | invisible;
    let mut apostrophes = starts & window.apostrophes & !(0b111 << 61);
    while apostrophes != 0 {
        let at = apostrophes.trailing_zeros();
        apostrophes &= apostrophes - 1;
        if let Some(len) = contraction_len(&window.bytes[at as usize + 1..]) {
            starts &= !(1 << (at + 1));
            starts |= 1 << (at as usize + 1 + len);
        }
    }
    starts
}
