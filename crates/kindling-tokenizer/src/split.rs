//! Cuts text into pre-tokens by a split pattern. Knows no ids and no merges.
//!
//! BPE never merges across a pre-token, so the split decides which tokens can exist. The published patterns are
//! run by hand-written scanners, which are held against a regex engine that runs them literally.

mod cl100k;
mod class;
mod gpt2;
mod o200k;
mod window;

use std::fmt;
use std::sync::Arc;

use fancy_regex::Regex;

use crate::TokenizerError;
use class::{Class, class_at};
use window::{WINDOW, Window};

/// How text is cut into pre-tokens before BPE looks at it.
///
/// ```
/// use kindling_tokenizer::SplitPattern;
///
/// # fn main() -> Result<(), kindling_tokenizer::TokenizerError> {
/// assert_eq!(SplitPattern::Gpt2.pre_tokens("it's  17 km")?, ["it", "'s", " ", " 17", " km"]);
/// assert_eq!("[a-z]+".parse::<SplitPattern>()?.pre_tokens("ab, cd")?, ["ab", ", ", "cd"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SplitPattern {
    /// GPT-2's (`encoder.py`); also that of r50k_base and p50k_base.
    #[default]
    Gpt2,
    /// That of cl100k_base, GPT-4's vocabulary.
    Cl100k,
    /// That of o200k_base, GPT-4o's vocabulary.
    O200k,
    /// Any other regular expression. What it does not match is a pre-token of its own, so nothing is lost.
    Regex(Pattern),
}

/// A compiled regular expression, with lookahead if need be.
#[derive(Clone)]
pub struct Pattern(Arc<Regex>);

impl Pattern {
    /// The expression as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";
/// The same split as [`CL100K`], without what one of the engines that read a `tokenizer.json` takes otherwise: there `{1,3}+` is no
/// possessive, and `$` is the end of a line.
const CL100K_PORTABLE: &str =
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+\z|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl SplitPattern {
    /// The regular expression, as it was published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Gpt2 => GPT2,
            Self::Cl100k => CL100K,
            Self::O200k => O200K,
            Self::Regex(pattern) => pattern.as_str(),
        }
    }

    /// The regular expression as a `tokenizer.json` has it.
    pub(crate) fn portable(&self) -> &str {
        match self {
            Self::Cl100k => CL100K_PORTABLE,
            other => other.as_str(),
        }
    }

    /// `gpt2`, `cl100k`, `o200k` or `regex`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gpt2 => "gpt2",
            Self::Cl100k => "cl100k",
            Self::O200k => "o200k",
            Self::Regex(_) => "regex",
        }
    }

    /// The pre-tokens of a text, in order. Together they are the whole text.
    ///
    /// # Errors
    /// Only for a regular expression, if matching it takes too many steps.
    pub fn pre_tokens<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, TokenizerError> {
        let (mut pieces, mut start) = (Vec::new(), 0);
        let mut splitter = Splitter::new(self, text);
        while let Some(ends) = splitter.next_ends()? {
            for &end in ends {
                pieces.push(&text[start..end]);
                start = end;
            }
        }
        Ok(pieces)
    }

    /// The last place in `text` where a pre-token begins whatever text follows, and whatever stood before: there it can be
    /// cut, and the parts be cut apart. `None` where there is none, and for regular expressions, of which it is not known.
    #[must_use]
    pub fn last_safe_cut(&self, text: &[u8]) -> Option<usize> {
        // No pattern takes a letter and a space behind it, and none looks from the one to the other. The same goes for a single
        // line feed and a letter behind it; of several, the last may stand alone.
        let is_cut = |at: usize| match text[at] {
            b' ' => class_before(text, at).is_some_and(Class::is_letter),
            b'\n' => {
                class_before(text, at).is_some_and(|class| !class.is_space()) && class_behind(text, at + 1).is_some_and(Class::is_letter)
            }
            _ => false,
        };
        match self {
            Self::Regex(_) => None,
            _ => (1..text.len()).rev().find(|&at| is_cut(at)).map(|at| if text[at] == b' ' { at } else { at + 1 }),
        }
    }
}

/// Class of the character that ends at `end`, if there is a whole one.
fn class_before(text: &[u8], end: usize) -> Option<Class> {
    let start = (end.saturating_sub(4)..end).rev().find(|&at| text[at] & 0xc0 != 0x80)?;
    let character = str::from_utf8(&text[start..end]).ok()?;
    class_at(character, 0).map(|(class, _)| class)
}

/// Class of the character that begins at `start`, if there is a whole one.
fn class_behind(text: &[u8], start: usize) -> Option<Class> {
    let character = text[start..(start + 4).min(text.len())].utf8_chunks().next()?.valid();
    class_at(character, 0).map(|(class, _)| class)
}

impl SplitPattern {
    /// The split of a regular expression in a `tokenizer.json`, which is no name, and in which `{1,3}+` is not possessive.
    pub(crate) fn from_json(regex: &str) -> Result<Self, TokenizerError> {
        let is_name = regex.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name || ambiguous(regex).is_some() {
            let pattern = regex.to_owned();
            return Err(TokenizerError::Pattern { pattern, problem: "is not understood as its maker's library does".to_owned() });
        }
        regex.parse()
    }

    /// Whether [`last_safe_cut`](Self::last_safe_cut) can find one.
    pub(crate) fn has_safe_cuts(&self) -> bool {
        !matches!(self, Self::Regex(_))
    }

    /// Parts of at most about `size` bytes whose pre-tokens together are those of the whole text.
    pub(crate) fn chunks<'t>(&self, mut text: &'t str, size: usize) -> Vec<&'t str> {
        let mut chunks = Vec::new();
        let mut tried = size;
        while text.len() > tried {
            match self.last_safe_cut(&text.as_bytes()[..tried]) {
                Some(cut) => {
                    let (chunk, rest) = text.split_at(cut);
                    chunks.push(chunk);
                    (text, tried) = (rest, size);
                }
                None => tried = tried.saturating_mul(2),
            }
        }
        chunks.push(text);
        chunks
    }
}

/// A name of a published pattern, or a regular expression; one that was published is run by its scanner.
impl std::str::FromStr for SplitPattern {
    type Err = TokenizerError;

    fn from_str(text: &str) -> Result<Self, TokenizerError> {
        // Spellings of the same split, as they are met in files of Hugging Face and OpenAI.
        const SPELLINGS: [(&str, SplitPattern); 13] = [
            ("gpt2", SplitPattern::Gpt2),
            ("r50k_base", SplitPattern::Gpt2),
            ("p50k_base", SplitPattern::Gpt2),
            (GPT2, SplitPattern::Gpt2),
            (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s", SplitPattern::Gpt2),
            (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", SplitPattern::Gpt2),
            ("cl100k", SplitPattern::Cl100k),
            (CL100K, SplitPattern::Cl100k),
            (CL100K_PORTABLE, SplitPattern::Cl100k),
            ("cl100k_base", SplitPattern::Cl100k),
            ("o200k_base", SplitPattern::O200k),
            ("o200k", SplitPattern::O200k),
            (O200K, SplitPattern::O200k),
        ];
        if let Some((_, pattern)) = SPELLINGS.into_iter().find(|(spelling, _)| *spelling == text) {
            return Ok(pattern);
        }
        let refuse = |problem: String| TokenizerError::Pattern { pattern: text.to_owned(), problem };
        if let Some(found) = ambiguous(text) {
            return Err(refuse(format!("`{found}` means another thing to other programs that read a `tokenizer.json`")));
        }
        let regex = Regex::new(text).map_err(|error| refuse(error.to_string()))?;
        Ok(Self::Regex(Pattern(Arc::new(regex))))
    }
}

/// What engines take differently: `^` and `$`, which are the ends of a line or of the text, and `{1,3}+`, possessive or not.
fn ambiguous(pattern: &str) -> Option<&'static str> {
    let (mut in_class, mut chars) = (0, pattern.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next();
                // The braces of `\p{L}` count nothing.
                let has_braces = matches!(escaped, Some('p' | 'P')) && chars.peek() == Some(&'{');
                if has_braces {
                    while chars.next().is_some_and(|c| c != '}') {}
                }
            }
            '[' => {
                in_class += 1;
                // A bracket or a caret at the front of a class stands for what it says.
                while chars.next_if(|c| matches!(c, '^' | ']')).is_some() {}
            }
            ']' if in_class > 0 => in_class -= 1,
            '^' if in_class == 0 => return Some("^"),
            '$' if in_class == 0 => return Some("$"),
            '}' if in_class == 0 && chars.peek() == Some(&'+') => return Some("}+"),
            _ => {}
        }
    }
    None
}

/// How many ends [`Splitter::next_ends`] finds at most.
pub(crate) const ENDS: usize = 512;
/// How many pre-tokens are cut one by one after characters outside ASCII, before a window is tried again.
const PATIENCE: u32 = 16;

/// Finds where pre-tokens end, a stretch at a time.
pub(crate) struct Splitter<'t> {
    pattern: SplitPattern,
    text: &'t str,
    pos: usize,
    patience: u32,
    ends: [usize; ENDS],
}

impl<'t> Splitter<'t> {
    pub(crate) fn new(pattern: &SplitPattern, text: &'t str) -> Self {
        Self { pattern: pattern.clone(), text, pos: 0, patience: 0, ends: [0; ENDS] }
    }

    /// The ends of the next pre-tokens, each where the one after it begins; `None` after the last.
    #[inline(never)]
    pub(crate) fn next_ends(&mut self) -> Result<Option<&[usize]>, TokenizerError> {
        let n = match &self.pattern {
            SplitPattern::Gpt2 => self.by_windows(gpt2::starts, gpt2::piece_end),
            SplitPattern::Cl100k => self.one_by_one(cl100k::piece_end),
            SplitPattern::O200k => self.one_by_one(o200k::piece_end),
            SplitPattern::Regex(pattern) => {
                let regex = Arc::clone(&pattern.0);
                self.by_regex(&regex)?
            }
        };
        Ok((n > 0).then(|| &self.ends[..n]))
    }

    #[inline(always)]
    fn one_by_one(&mut self, piece_end: impl Fn(&str, usize) -> usize) -> usize {
        let mut n = 0;
        while n < ENDS && self.pos < self.text.len() {
            self.pos = piece_end(self.text, self.pos);
            self.ends[n] = self.pos;
            n += 1;
        }
        n
    }

    /// As [`one_by_one`](Self::one_by_one), with as many at once as begin in a window of ASCII.
    #[inline(always)]
    fn by_windows(&mut self, starts: impl Fn(&Window<'_>) -> u64, piece_end: impl Fn(&str, usize) -> usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut n = 0;
        while n < ENDS - WINDOW && self.pos < bytes.len() {
            if self.patience == 0
                && let Some(window) = bytes[self.pos..].first_chunk::<WINDOW>()
            {
                let window = Window::new(window);
                let wide = window.wide;
                // What begins in the last three bytes, or right before a wide one, depends on more than is seen.
                let known = if wide == 0 { u64::MAX >> 3 } else { ((wide & wide.wrapping_neg()) - 1) >> 3 };
                // The first bit is where the window begins.
                let mut starts = starts(&window) & known & !1;
                if starts != 0 {
                    let from = self.pos;
                    while starts != 0 {
                        self.pos = from + starts.trailing_zeros() as usize;
                        self.ends[n] = self.pos;
                        n += 1;
                        starts &= starts - 1;
                    }
                    continue;
                }
                if wide != 0 {
                    self.patience = PATIENCE;
                }
            }
            self.patience = self.patience.saturating_sub(1);
            self.pos = piece_end(self.text, self.pos);
            self.ends[n] = self.pos;
            n += 1;
        }
        n
    }

    fn by_regex(&mut self, regex: &Regex) -> Result<usize, TokenizerError> {
        let mut n = 0;
        // Room for a match and the gap before it.
        while n < ENDS - 1 && self.pos < self.text.len() {
            let mut from = self.pos;
            let found = loop {
                let found = regex
                    .find_from_pos(self.text, from)
                    .map_err(|error| TokenizerError::Pattern { pattern: regex.as_str().to_owned(), problem: error.to_string() })?;
                match found {
                    // A match of nothing cuts where it is, and the search goes on behind it.
                    Some(found) if found.start() == found.end() && found.end() == self.pos => match self.text[found.end()..].chars().next()
                    {
                        Some(next) => from = found.end() + next.len_utf8(),
                        None => break None,
                    },
                    found => break found,
                }
            };
            let (start, end) = found.map_or((self.text.len(), self.text.len()), |found| (found.start(), found.end()));
            for place in [start, end] {
                if place > self.pos {
                    self.pos = place;
                    self.ends[n] = place;
                    n += 1;
                }
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static ORACLES: LazyLock<Vec<(SplitPattern, Regex)>> = LazyLock::new(|| {
        let patterns = [SplitPattern::Gpt2, SplitPattern::Cl100k, SplitPattern::O200k];
        patterns.into_iter().map(|pattern| (pattern.clone(), Regex::new(pattern.as_str()).unwrap())).collect()
    });

    fn check(text: &str) {
        for (pattern, oracle) in &*ORACLES {
            let expected: Vec<&str> = oracle.find_iter(text).map(|found| found.unwrap().as_str()).collect();
            assert_eq!(pattern.pre_tokens(text).unwrap(), expected, "{} of {text:?}", pattern.name());
        }
    }

    const NASTY: &[&str] = &[
        "",
        " ",
        "  ",
        "a",
        " a",
        "  a",
        "\t\ta",
        " \ta \n b\r\n\r\n  c  ",
        "it's we're they've I'm you'll he'd IT'S WE'RE 's 'x ' '' '''s 'ſ x'ſ",
        "!'s '!s a'sb 'sss 'r 'v 'l 're've 'lL 'Ve",
        "x=17; y2 = 3.5e-7 ½ ² Ⅷ ٣٤ 一二 1234567 12٣4",
        "e\u{301}a\u{300}\u{301} \u{301} \u{200d} \u{301}AB A\u{301}B",
        "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽a 🇩🇪",
        "a\u{a0}b \u{a0} \u{2003}c\u{3000}\u{3000}d\u{85}\u{2028}e \u{feff}x\u{200b}y",
        "日本語 テスト、한국어 العربية עברית हिन्दी ไทย Ελληνικά Русский AB日C ǅabc ʰABC",
        "\0\u{1}\u{1c}\u{1f} \u{7f} \u{e000}\u{10ffff}",
        "    fn main() {\n        println!(\"{}\", 1_000);\n    }\n\n\n",
        "<|endoftext|> <|endoftext|> http://a.b/c//\n/d\r\n!!\n\n a\n/b",
        "HTTPServer camelCase XMLHttpRequest McDonald's ABC'S ABCd'LL",
    ];

    #[test]
    fn scanners_are_their_patterns() {
        for text in NASTY {
            check(text);
            // Somewhere in a window, and over its end.
            for before in [1, 7, 50, 57, 58, 59, 60, 61, 62, 63, 64, 100] {
                check(&format!("{}{text}{}", "ab ".repeat(before / 3), "x, ".repeat(40)));
                check(&format!("{}{text}{}", "_".repeat(before), " 12".repeat(40)));
            }
        }
    }

    #[test]
    fn a_regular_expression_loses_nothing() {
        let check = |pattern: &str, text: &str, expected: &[&str]| {
            assert_eq!(pattern.parse::<SplitPattern>().unwrap().pre_tokens(text).unwrap(), expected);
        };
        check("[a-z]+", "", &[]);
        check("[a-z]+", "12ab, cd!", &["12", "ab", ", ", "cd", "!"]);
        check("a*", "baab", &["b", "aa", "b"]);
        check(r"(?=[A-Z])|\d+", "aB1C", &["a", "B", "1", "C"]);
        check(r"\s+", "nothing", &["nothing"]);
        let many = "ab ".repeat(2000);
        assert_eq!(r"\w+".parse::<SplitPattern>().unwrap().pre_tokens(&many).unwrap().len(), 4000);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let error = "(a".parse::<SplitPattern>().unwrap_err();
        assert!(error.to_string().starts_with("split pattern `(a`: "), "{error}");
        for (pattern, expected) in [
            ("^a", Some("^")),
            (r"\s+$", Some("$")),
            (r"\p{N}{1,3}+", Some("}+")),
            (r"[^$^]\$[]$]\^a{1,3}\p{L}+", None),
            (CL100K_PORTABLE, None),
            (O200K, None),
        ] {
            assert_eq!(ambiguous(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn a_published_pattern_is_known_by_any_of_its_spellings() {
        for pattern in [SplitPattern::Gpt2, SplitPattern::Cl100k, SplitPattern::O200k] {
            assert_eq!(pattern.as_str().parse::<SplitPattern>().unwrap(), pattern);
            assert_eq!(pattern.name().parse::<SplitPattern>().unwrap(), pattern);
        }
    }

    fn nasty() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            6 => "[a-zA-Z0-9 '.]{0,6}",
            2 => "[ \t\r\n\u{a0}\u{2003}\u{3000}\u{85}]{1,4}",
            2 => "[ \r\n/!']{1,5}",
            1 => "('s|'t|'re|'ve|'m|'ll|'d|'S|'ſ|'LL){1,2}",
            2 => "[A-Z\u{301}日ǅʰa]{1,6}",
            1 => Just("\r\n".to_owned()),
            1 => "[\u{300}\u{301}\u{200d}\u{fe0f}👩👍🏽éß一²Ⅷ٣]{1,4}",
            1 => "\\PC{0,4}",
        ];
        prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn scanners_are_their_patterns_on_nasty_text(text in nasty()) {
            check(&text);
        }

        #[test]
        fn scanners_are_their_patterns_on_ascii(text in "[ -~\n\r\t]{0,200}") {
            check(&text);
        }

        #[test]
        fn scanners_are_their_patterns_on_code(text in "[a-c'slt (){}.=1;\n\t\"A-]{0,200}") {
            check(&text);
        }

        #[test]
        fn cutting_at_a_safe_place_changes_nothing(text in "[abA '\n\t/1.é日\u{301}]{0,40}") {
            for (pattern, _) in &*ORACLES {
                let whole = pattern.pre_tokens(&text).unwrap();
                let Some(cut) = pattern.last_safe_cut(text.as_bytes()) else { continue };
                let mut parts = pattern.pre_tokens(&text[..cut]).unwrap();
                parts.extend(pattern.pre_tokens(&text[cut..]).unwrap());
                prop_assert_eq!(parts, whole);
            }
        }
    }
}
