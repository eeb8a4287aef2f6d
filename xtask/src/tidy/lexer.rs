//! Tells code from comments in a Rust file, far enough to look for words in either. Not a parser: it knows no tokens
//! besides comments, strings and characters.

/// A file twice, line for line and column for column, with spaces for what is not of the kind.
pub(super) struct Parts {
    /// Without comments and without what stands between the quotes of strings and characters.
    pub(super) code: String,
    pub(super) comments: String,
}

/// Splits a source file.
pub(super) fn split(text: &str) -> Parts {
    let chars: Vec<char> = text.chars().collect();
    let mut parts = Parts { code: String::with_capacity(text.len()), comments: String::new() };
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let (len, kind) = next(rest, &chars[..at]);
        for &c in &rest[..len] {
            let (code, comment) = match (c, kind) {
                ('\n', _) => ('\n', '\n'),
                (c, Kind::Code) => (c, ' '),
                (c, Kind::Comment) => (' ', c),
                (_, Kind::Literal) => (' ', ' '),
            };
            parts.code.push(code);
            parts.comments.push(comment);
        }
        at += len;
    }
    parts
}

#[derive(Clone, Copy)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// The length in characters and the kind of what `rest` begins with; it is never empty.
fn next(rest: &[char], before: &[char]) -> (usize, Kind) {
    match rest {
        ['/', '/', ..] => {
            let len = rest.iter().position(|&c| c == '\n');
            (len.unwrap_or(rest.len()), Kind::Comment)
        }
        ['/', '*', ..] => (block_comment_len(rest), Kind::Comment),
        ['"', ..] => (quoted_len(rest, '"'), Kind::Literal),
        // A character, or else a lifetime.
        ['\'', '\\', ..] => (quoted_len(rest, '\''), Kind::Literal),
        ['\'', c, '\'', ..] if *c != '\'' => (3, Kind::Literal),
        ['r', '"' | '#', ..] if starts_word(before) => match raw_string_len(rest) {
            Some(len) => (len, Kind::Literal),
            None => (1, Kind::Code),
        },
        _ => (1, Kind::Code),
    }
}

/// Block comments nest.
fn block_comment_len(rest: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => {
                depth += 1;
                at += 2;
            }
            ['*', '/', ..] => {
                depth -= 1;
                at += 2;
            }
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Of a string or character with escapes, both quotes included.
fn quoted_len(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Of `r"…"` and `r#"…"#`; `None` for a raw identifier such as `r#type`.
fn raw_string_len(rest: &[char]) -> Option<usize> {
    let n_hashes = rest[1..].iter().take_while(|&&c| c == '#').count();
    let start = 1 + n_hashes + 1;
    if rest.get(start - 1) != Some(&'"') {
        return None;
    }
    let closes = |at: &usize| rest[*at] == '"' && rest[at + 1..].iter().take_while(|&&c| c == '#').take(n_hashes).count() == n_hashes;
    let end = (start..rest.len()).find(closes);
    Some(end.map_or(rest.len(), |end| end + 1 + n_hashes))
}

/// Whether an `r` at this point begins a word, the `b` or `c` of `br"…"` and `cr"…"` left aside.
fn starts_word(before: &[char]) -> bool {
    match before {
        [.., prior, 'b' | 'c'] => !is_word(*prior),
        ['b' | 'c'] | [] => true,
        [.., last] => !is_word(*last),
    }
}

/// A character of an identifier.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `text` marks each character of `input`: `.` for code, `c` for comment, `l` for literal.
    fn check(input: &str, kinds: &str) {
        let parts = split(input);
        let found: String = input
            .chars()
            .zip(parts.code.chars().zip(parts.comments.chars()))
            .map(|(c, both)| match both {
                (code, ' ') if code == c && c != ' ' => '.',
                (' ', comment) if comment == c && c != ' ' => 'c',
                (' ', ' ') if c != ' ' => 'l',
                ('\n', '\n') => '\n',
                (' ', ' ') => ' ',
                other => panic!("{c:?} became {other:?}"),
            })
            .collect();
        assert_eq!(found, kinds, "{input}");
    }

    #[test]
    fn comments() {
        check("a // b\nc", ". cc c\n.");
        check("a/*b/*c*/d*/e", ".ccccccccccc.");
        check("/*open", "cccccc");
        check("//! \"doc\nx", "ccc cccc\n.");
    }

    #[test]
    fn strings() {
        check(r#"a"b\"c"d"#, ".llllll.");
        check(r#""//"b"#, "llll.");
        check("\"a\nb\"c", "ll\nll.");
        check("b\"x\"", ".lll");
        check("\"open", "lllll");
    }

    #[test]
    fn raw_strings() {
        check(r##"r"a\"b"##, "lllll.");
        check(r###"r#"a"b"#c"###, "llllllll.");
        check(r###"br#"a"#c"###, ".llllll.");
        check("r#type", "......");
        check("for\"x\"", "...lll");
        check(r##"r#"open""##, "llllllll");
    }

    #[test]
    fn characters_and_lifetimes() {
        check("'\"'a", "lll.");
        check(r"'\''a", "llll.");
        check(r"'\u{1F600}'a", "lllllllllll.");
        check("&'a str", "... ...");
        check("<'a,'b>", ".......");
        check("b'\"'", ".lll");
        check("'/'/'/'", "lll.lll");
    }
}
