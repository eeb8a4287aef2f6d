//! Cuts text into pre-tokens as GPT-2 does, by a hand-written scanner. Knows no ids and no merges.
//!
//! BPE never merges across a pre-token, so this split decides which tokens can exist. The pattern is OpenAI's
//! (`encoder.py` of GPT-2); the scanner is held against a regex engine that runs it literally.

use unicode_general_category::{GeneralCategory, get_general_category};

/// The pattern that [`pre_tokens`] follows, as GPT-2 published it.
pub const SPLIT_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The pre-tokens of a text, in order. Together they are the whole text.
///
/// ```
/// let pieces: Vec<&str> = kindling_tokenizer::pre_tokens("it's  17 km").collect();
/// assert_eq!(pieces, ["it", "'s", " ", " 17", " km"]);
/// ```
#[must_use]
pub fn pre_tokens(text: &str) -> PreTokens<'_> {
    PreTokens { text, pos: 0, end: text.len() }
}

/// Iterator over the pre-tokens of a text; see [`pre_tokens`].
#[derive(Clone, Debug)]
pub struct PreTokens<'a> {
    text: &'a str,
    pos: usize,
    end: usize,
}

impl<'a> PreTokens<'a> {
    /// Only the pre-tokens in `start..end`, both of which must be places where pre-tokens begin. The text
    /// after `end` is still seen, because the pattern looks ahead.
    pub(crate) fn between(text: &'a str, start: usize, end: usize) -> Self {
        Self { text, pos: start, end }
    }
}

impl<'a> Iterator for PreTokens<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        if self.pos >= self.end {
            return None;
        }
        let start = self.pos;
        self.pos = piece_end(self.text, start);
        Some(&self.text[start..self.pos])
    }
}

/// A place at or after `from` where a pre-token begins whatever stands before it, or the end of the text.
///
/// After a line feed with something visible behind it there is always a cut: white space that is not a
/// plain space never joins what follows.
pub(crate) fn safe_cut(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let from = from.min(bytes.len());
    bytes[from..].windows(2).position(|pair| pair[0] == b'\n' && pair[1].is_ascii_graphic()).map_or(bytes.len(), |found| from + found + 1)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

const ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | b' ' => Class::Space,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

/// `\s`, `\p{L}` and `\p{N}` of a character outside ASCII.
fn wide_class(character: char) -> Class {
    use GeneralCategory as G;
    if character.is_whitespace() {
        return Class::Space;
    }
    match get_general_category(character) {
        G::UppercaseLetter | G::LowercaseLetter | G::TitlecaseLetter | G::ModifierLetter | G::OtherLetter => Class::Letter,
        G::DecimalNumber | G::LetterNumber | G::OtherNumber => Class::Number,
        _ => Class::Other,
    }
}

/// Class of the character that begins at `pos` and where the next one begins, or `None` at the end.
#[inline]
fn class_at(text: &str, pos: usize) -> Option<(Class, usize)> {
    let byte = *text.as_bytes().get(pos)?;
    if byte < 128 {
        return Some((ASCII[byte as usize], pos + 1));
    }
    let character = text[pos..].chars().next()?;
    Some((wide_class(character), pos + character.len_utf8()))
}

/// Where the run of one class that reaches `pos` ends.
#[inline]
fn run_end(text: &str, mut pos: usize, class: Class) -> usize {
    while let Some((found, after)) = class_at(text, pos) {
        if found != class {
            break;
        }
        pos = after;
    }
    pos
}

/// Length of `s`, `t`, `re`, `ve`, `m`, `ll` or `d` at the front, which follow an apostrophe.
fn contraction_len(rest: &[u8]) -> Option<usize> {
    match rest {
        [b's' | b't' | b'm' | b'd', ..] => Some(1),
        [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => Some(2),
        _ => None,
    }
}

/// Where the pre-token that begins at `start` ends. The branches stand in the order of the pattern's.
#[inline]
fn piece_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    if bytes[start] == b'\''
        && let Some(len) = contraction_len(&bytes[start + 1..])
    {
        return start + 1 + len;
    }
    let Some((class, after)) = class_at(text, start) else {
        return text.len();
    };
    if class != Class::Space {
        return run_end(text, after, class);
    }
    // One plain space goes with the word, number or punctuation behind it.
    if bytes[start] == b' '
        && let Some((next, next_after)) = class_at(text, after)
        && next != Class::Space
    {
        return run_end(text, next_after, next);
    }
    // White space up to the end, or all but its last character, or that single character.
    let (mut last, mut end) = (start, after);
    while let Some((Class::Space, after)) = class_at(text, end) {
        (last, end) = (end, after);
    }
    if end == text.len() || last == start { end } else { last }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use fancy_regex::Regex;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static ORACLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(SPLIT_PATTERN).unwrap());

    fn oracle(text: &str) -> Vec<&str> {
        ORACLE.find_iter(text).map(|found| found.unwrap().as_str()).collect()
    }

    fn check(text: &str) {
        assert_eq!(pre_tokens(text).collect::<Vec<_>>(), oracle(text), "of {text:?}");
    }

    #[test]
    fn the_scanner_is_the_pattern() {
        for text in [
            "",
            " ",
            "  ",
            "a",
            " a",
            "  a",
            "\t\ta",
            " \ta \n b\r\n\r\n  c  ",
            "it's we're they've I'm you'll he'd IT'S 's 'x ' '' '''s",
            "!'s '!s a'sb 'sss 'r 'v 'l 're've",
            "x=17; y2 = 3.5e-7 ½ ² Ⅷ ٣٤ 一二",
            "e\u{301}a\u{300}\u{301} \u{301} \u{200d}",
            "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽a 🇩🇪",
            "a\u{a0}b \u{a0} \u{2003}c\u{3000}\u{3000}d\u{85}\u{2028}e \u{feff}x\u{200b}y",
            "日本語 テスト、한국어 العربية עברית हिन्दी ไทย Ελληνικά Русский",
            "\0\u{1}\u{1c}\u{1f} \u{7f} \u{e000}\u{10ffff}",
            "    fn main() {\n        println!(\"{}\", 1_000);\n    }\n\n\n",
            "<|endoftext|> <|endoftext|>",
        ] {
            check(text);
        }
    }

    #[test]
    fn every_character_has_the_class_that_the_regex_gives_it() {
        // Holds while both tables are of one Unicode version; an update of either crate may part them.
        let [letter, number, space] = [r"\p{L}", r"\p{N}", r"\s"].map(|pattern| Regex::new(pattern).unwrap());
        let mut buffer = [0; 4];
        for character in '\0'..=char::MAX {
            let text: &str = character.encode_utf8(&mut buffer);
            let is = |regex: &Regex| regex.is_match(text).unwrap();
            let expected = if is(&letter) {
                Class::Letter
            } else if is(&number) {
                Class::Number
            } else if is(&space) {
                Class::Space
            } else {
                Class::Other
            };
            let (found, after) = class_at(text, 0).unwrap();
            assert!(found == expected && after == text.len(), "{character:?}");
        }
    }

    fn nasty() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => "[a-zA-Z0-9 '.]{0,6}",
            2 => "[ \t\r\n\u{a0}\u{2003}\u{3000}\u{85}]{1,4}",
            1 => "('s|'t|'re|'ve|'m|'ll|'d){1,2}",
            1 => Just("\r\n".to_owned()),
            1 => "[\u{300}\u{301}\u{200d}\u{fe0f}👩👍🏽éß一²Ⅷ٣]{1,4}",
            1 => "\\PC{0,4}",
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_scanner_is_the_pattern_on_nasty_text(text in nasty()) {
            prop_assert_eq!(pre_tokens(&text).collect::<Vec<_>>(), oracle(&text));
        }

        #[test]
        fn the_scanner_is_the_pattern_on_printable_text(text in "\\PC{0,40}") {
            prop_assert_eq!(pre_tokens(&text).collect::<Vec<_>>(), oracle(&text));
        }

        #[test]
        fn cutting_at_a_safe_place_changes_nothing(text in "[ab '\n\t1.]{0,40}", from in 0usize..40) {
            let cut = safe_cut(&text, from);
            let parts: Vec<&str> =
                PreTokens::between(&text, 0, cut).chain(PreTokens::between(&text, cut, text.len())).collect();
            prop_assert_eq!(parts, pre_tokens(&text).collect::<Vec<_>>());
        }
    }
}
