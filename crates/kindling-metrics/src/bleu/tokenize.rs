//! sacrebleu's tokenizers that are rules: text to text with spaces between tokens. Not those for Chinese, Japanese or Korean, and no
//! SentencePiece.

use unicode_general_category::{GeneralCategory, get_general_category};

/// How text becomes the tokens whose n-grams BLEU counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BleuTokenizer {
    /// That of NIST's mteval-v13a, as at WMT: punctuation of ASCII apart, numbers kept together.
    #[default]
    V13a,
    /// That of mteval-v14: punctuation and symbols of all of Unicode apart, numbers kept together.
    Intl,
    /// Each character a token.
    Char,
    /// Tokens are what white space separates.
    None,
}

impl BleuTokenizer {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::V13a, Self::Intl, Self::Char, Self::None];

    /// As signatures write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::Intl => "intl",
            Self::Char => "char",
            Self::None => "none",
        }
    }

    /// The text with white space between tokens.
    pub(super) fn tokenize(self, text: &str) -> String {
        match self {
            Self::V13a => v13a(text),
            Self::Intl => intl(text),
            Self::Char => text.chars().flat_map(|character| [character, ' ']).collect(),
            Self::None => text.into(),
        }
    }
}

fn v13a(text: &str) -> String {
    // In this order: `&amp;lt;` becomes `<`.
    let plain = [("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")];
    let text = plain.iter().fold(format!(" {text} "), |text, (from, to)| text.replace(from, to));

    let is_digit = |c: char| c.is_ascii_digit();
    let is_point = |c: char| matches!(c, '.' | ',');
    let text = apart(&text, |c| c.is_ascii_punctuation() && !matches!(c, '\'' | ',' | '-' | '.'));
    let text = second_apart(&text, |c| !is_digit(c), is_point);
    let text = first_apart(&text, is_point, |c| !is_digit(c));
    second_apart(&text, is_digit, |c| c == '-')
}

fn intl(text: &str) -> String {
    let text = second_apart(text, |c| kind(c) != Kind::Number, |c| kind(c) == Kind::Punctuation);
    let text = first_apart(&text, |c| kind(c) == Kind::Punctuation, |c| kind(c) != Kind::Number);
    apart(&text, |c| kind(c) == Kind::Symbol)
}

/// Puts spaces around characters.
fn apart(text: &str, is_token: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for character in text.chars() {
        if is_token(character) {
            out.extend([' ', character, ' ']);
        } else {
            out.push(character);
        }
    }
    out
}

/// Puts spaces around the second of two neighbours, where both are as they should be.
fn second_apart(text: &str, is_first: impl Fn(char) -> bool, is_second: impl Fn(char) -> bool) -> String {
    rewrite_pairs(text, is_first, is_second, |a, b| [a, ' ', b, ' '])
}

/// Puts spaces around the first of two neighbours, where both are as they should be.
fn first_apart(text: &str, is_first: impl Fn(char) -> bool, is_second: impl Fn(char) -> bool) -> String {
    rewrite_pairs(text, is_first, is_second, |a, b| [' ', a, ' ', b])
}

/// From left to right, as a regular expression's substitution does it: the second of a pair is not the first of another.
fn rewrite_pairs(
    text: &str,
    is_first: impl Fn(char) -> bool,
    is_second: impl Fn(char) -> bool,
    write: impl Fn(char, char) -> [char; 4],
) -> String {
    let mut out = String::with_capacity(2 * text.len());
    let mut characters = text.chars().peekable();
    while let Some(first) = characters.next() {
        match characters.next_if(|second| is_first(first) && is_second(*second)) {
            Some(second) => out.extend(write(first, second)),
            None => out.push(first),
        }
    }
    out
}

#[derive(PartialEq, Eq)]
enum Kind {
    Number,
    Punctuation,
    Symbol,
    Other,
}

fn kind(character: char) -> Kind {
    use GeneralCategory as G;
    match get_general_category(character) {
        G::DecimalNumber | G::LetterNumber | G::OtherNumber => Kind::Number,
        G::ConnectorPunctuation
        | G::DashPunctuation
        | G::OpenPunctuation
        | G::ClosePunctuation
        | G::InitialPunctuation
        | G::FinalPunctuation
        | G::OtherPunctuation => Kind::Punctuation,
        G::MathSymbol | G::CurrencySymbol | G::ModifierSymbol | G::OtherSymbol => Kind::Symbol,
        _ => Kind::Other,
    }
}
