//! Words between white space, as Python's `str.split()` finds them: most scores here are defined by what Python programs compute.
//! No tokenizer of a language.

/// The words of a text: what stands between white space.
///
/// ```
/// let words: Vec<&str> = kindling_metrics::words(" to be,\u{a0}or\n").collect();
/// assert_eq!(words, ["to", "be,", "or"]);
/// ```
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// What `str.isspace()` holds of. Unicode's White_Space does not have the four separators of ASCII; Python does.
pub(crate) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn white_space_is_pythons() {
        let found: Vec<u32> = (0..=u32::from(char::MAX)).filter(|code| char::from_u32(*code).is_some_and(is_space)).collect();
        assert_eq!(found, golden::value::<Vec<u32>>("white_space"));
    }
}
