//! The class of each character, as far as split patterns tell characters apart. Cuts nothing.

use std::sync::OnceLock;

use unicode_general_category::{GeneralCategory, get_general_category};

/// What the patterns ask of a character. Each character has one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// `\p{Lu}` or `\p{Lt}`.
    Upper,
    /// `\p{Ll}`.
    Lower,
    /// `\p{Lm}` or `\p{Lo}`: letters without case.
    Caseless,
    /// `\p{M}`.
    Mark,
    /// `\p{N}`.
    Number,
    /// `\r` or `\n`.
    LineEnd,
    /// `\s`, but for `\r` and `\n`.
    Space,
    /// All others.
    Other,
}

impl Class {
    /// `\p{L}`.
    #[inline]
    pub(crate) fn is_letter(self) -> bool {
        matches!(self, Self::Upper | Self::Lower | Self::Caseless)
    }

    /// `\s`.
    #[inline]
    pub(crate) fn is_space(self) -> bool {
        matches!(self, Self::Space | Self::LineEnd)
    }

    /// `[^\s\p{L}\p{N}]`.
    #[inline]
    pub(crate) fn is_other(self) -> bool {
        matches!(self, Self::Other | Self::Mark)
    }
}

const ASCII: [Class; 128] = {
    let mut classes = [Class::Other; 128];
    let mut byte = 0u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'a'..=b'z' => Class::Lower,
            b'A'..=b'Z' => Class::Upper,
            b'0'..=b'9' => Class::Number,
            b'\n' | b'\r' => Class::LineEnd,
            b'\t' | 0x0b | 0x0c | b' ' => Class::Space,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};

type Page = [Class; 256];
const N_PAGES: usize = (char::MAX as usize + 1) / 256;
/// Filled as scripts are met: a text uses few of them.
static PAGES: [OnceLock<Box<Page>>; N_PAGES] = [const { OnceLock::new() }; N_PAGES];

fn wide_class(character: char) -> Class {
    let code = character as usize;
    let page = PAGES[code / 256].get_or_init(|| Box::new(std::array::from_fn(|low| of_code((code & !0xff) + low))));
    page[code % 256]
}

fn of_code(code: usize) -> Class {
    use GeneralCategory as G;
    let Some(character) = u32::try_from(code).ok().and_then(char::from_u32) else {
        return Class::Other;
    };
    if let Some(&class) = ASCII.get(code) {
        return class;
    }
    if character.is_whitespace() {
        return Class::Space;
    }
    match get_general_category(character) {
        G::UppercaseLetter | G::TitlecaseLetter => Class::Upper,
        G::LowercaseLetter => Class::Lower,
        G::ModifierLetter | G::OtherLetter => Class::Caseless,
        G::NonspacingMark | G::SpacingMark | G::EnclosingMark => Class::Mark,
        G::DecimalNumber | G::LetterNumber | G::OtherNumber => Class::Number,
        _ => Class::Other,
    }
}

/// Class of the character that begins at `pos` and where the next one begins, or `None` at the end.
#[inline]
pub(crate) fn class_at(text: &str, pos: usize) -> Option<(Class, usize)> {
    let byte = *text.as_bytes().get(pos)?;
    if byte < 128 {
        return Some((ASCII[byte as usize], pos + 1));
    }
    let character = text[pos..].chars().next()?;
    Some((wide_class(character), pos + character.len_utf8()))
}

/// Where the run of characters that `wanted` takes, from `pos` on, ends.
#[inline]
pub(crate) fn run_end(text: &str, mut pos: usize, wanted: impl Fn(Class) -> bool) -> usize {
    while let Some((class, after)) = class_at(text, pos) {
        if !wanted(class) {
            break;
        }
        pos = after;
    }
    pos
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use fancy_regex::Regex;

    #[test]
    fn every_character_has_the_class_that_the_regex_gives_it() {
        // Holds while both tables are of one Unicode version; an update of either crate may part them.
        let classes = [
            (r"^[\p{Lu}\p{Lt}]", Class::Upper),
            (r"^\p{Ll}", Class::Lower),
            (r"^[\p{Lm}\p{Lo}]", Class::Caseless),
            (r"^\p{M}", Class::Mark),
            (r"^\p{N}", Class::Number),
            (r"^[\r\n]", Class::LineEnd),
            (r"^\s", Class::Space),
        ]
        .map(|(pattern, class)| (Regex::new(pattern).unwrap(), class));
        let mut buffer = [0; 4];
        for character in '\0'..=char::MAX {
            let text: &str = character.encode_utf8(&mut buffer);
            let named = classes.iter().find(|(regex, _)| regex.is_match(text).unwrap());
            let expected = named.map_or(Class::Other, |&(_, class)| class);
            assert_eq!(class_at(text, 0), Some((expected, text.len())), "{character:?}");
        }
    }
}
