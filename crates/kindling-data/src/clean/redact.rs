//! Data of persons and machines in a text, told by their form. Looks nothing up, and knows no names of persons or places.
//!
//! No match spans a line feed, and nothing on another line counts, so that a text may be looked through in stretches of lines.
//! Each kind is searched for from a rare byte or word of its own (`@`, `::`, `token`), and only what stands there is judged, so
//! that ordinary text costs little.
//!
//! What is not found, on purpose: telephone numbers without separators that do not begin with `+` (they look like any integer)
//! or that begin with neither `+`, `(`, 0 nor an area code of North America or China; addresses in letters beyond ASCII; the
//! last, shorter line of a PEM block. What is found though it may be something else: a chapter 1.2.3.4, and certificates, whose
//! lines look like those of keys.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use aho_corasick::AhoCorasick;
use memchr::memchr_iter;
use regex::Regex;

use kindling_config::Redaction;

/// Tokens of machines: how they begin, their form, and whether one without a digit is rather a word with hyphens.
const TOKENS: &[(&str, &str, bool)] = &[
    // Amazon Web Services: the ids of long-lived and temporary keys.
    ("AKIA", r"^AKIA[A-Z0-9]{16}\b", false),
    ("ASIA", r"^ASIA[A-Z0-9]{16}\b", false),
    // GitHub: personal, OAuth, user-to-server, server-to-server, refresh and fine-grained personal tokens.
    ("ghp_", r"^ghp_[A-Za-z0-9]{36,}\b", false),
    ("gho_", r"^gho_[A-Za-z0-9]{36,}\b", false),
    ("ghu_", r"^ghu_[A-Za-z0-9]{36,}\b", false),
    ("ghs_", r"^ghs_[A-Za-z0-9]{36,}\b", false),
    ("ghr_", r"^ghr_[A-Za-z0-9]{36,}\b", false),
    ("github_pat_", r"^github_pat_[A-Za-z0-9_]{22,}\b", false),
    // GitLab.
    ("glpat-", r"^glpat-[A-Za-z0-9_-]{20,}", false),
    // Slack.
    ("xox", r"^xox[abeoprs]-[A-Za-z0-9-]{24,}", true),
    // OpenAI, Anthropic and those that took their form over.
    ("sk-", r"^sk-[A-Za-z0-9_-]{20,}", true),
    // Google.
    ("AIza", r"^AIza[A-Za-z0-9_-]{35}", false),
    // Stripe.
    ("sk_live_", r"^sk_live_[A-Za-z0-9]{16,}\b", false),
    ("rk_live_", r"^rk_live_[A-Za-z0-9]{16,}\b", false),
    // npm.
    ("npm_", r"^npm_[A-Za-z0-9]{36}\b", false),
    // Hugging Face.
    ("hf_", r"^hf_[A-Za-z0-9]{34,}\b", false),
    // JSON Web Tokens (RFC 7519): two objects in base64url, each from `{"` on, and a signature.
    ("eyJ", r"^eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}", false),
    // A PEM block (RFC 7468) that a string holds in one line.
    ("-----BEGIN ", r"^-----BEGIN [A-Z ]{0,24}PRIVATE KEY-----[^\n<>-]+-----END [A-Z ]{0,24}PRIVATE KEY-----", false),
];

/// The ends of names that secrets have.
const NAMES: &[&str] = &["passw", "passphrase", "pwd", "secret", "token", "api_key", "api-key", "apikey", "access_key", "private_key"];

/// A name from [`NAMES`], a sign of assignment, perhaps with a type before it, and a value in quotes that no template is; or the
/// secret of Amazon Web Services, which is known by its length where no quotes are.
const ASSIGNMENT: &str = r#"(?xi)^
    (?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access_key|private_key)
    (?:[_-]?(?:access|api|key|token|value|secret)){0,3}
    (?: \\?["'`]?\]? [\ \t]{0,8}
        (?::[\ \t]{0,8}&?(?:'static\ )?[A-Za-z]{1,16}[\ \t]{0,8})?
        (?:=>|:=|=|:) [\ \t]{0,8}
        \\?["'`]([^\s"'`<>{}\\]{6,})\\?["'`]
    | [\ \t]{0,8}[=:][\ \t]{0,8} ([A-Z0-9/+]{40})(?:[^A-Z0-9/+=_]|$)
    )"#;

/// What stands behind the `@` of an address: names with dots between, the last one of letters or of an international name.
const DOMAIN: &str = r"^(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(?:xn--[A-Za-z0-9]{2,59}|[A-Za-z]{2,24})\b";

/// How telephone numbers are written: +1 415 555 2671; any other country's behind its + (E.164); (415) 555-2671, 415-555-2671
/// and 415.555.2671; a Chinese mobile's 138 0013 8000; five pairs, as in France; an area code with its 0, and the number.
const PHONE: &str = r"(?x)^(?:
    (?:\+1|\(\+1\)) [\ .-]? (?:\(\d{3}\)|\d{3}) [\ .-]? \d{3} [\ .-]? \d{4}
    | (?:\+[1-9]|\(\+[1-9]\d{0,2}\)) (?:[\ /()-]{0,2}\d){4,14}
    | \+[1-9] (?:\.?\d){6,14}
    | (?:1[\ .-])? (?:\([2-9]\d\d\)\ ?|[2-9]\d\d[.-]) \d{3} [\ .-] \d{4}
    | 1[3-9]\d [\ -] \d{4} [\ -] \d{4}
    | 0[1-9] (?:[\ .-]\d\d){4}
    | (?:0[1-9]\d{0,3}[\ /-]|\(0[1-9]\d{0,3}\)\ ?) \d{3,8} (?:[\ -]\d{2,5}){0,2}
    )";

/// Bytes of the longest telephone number that is looked at.
const PHONE_BYTES: usize = 40;

/// How often the neighbours of what was found are looked at again; ordinary text needs one time. Bounded, so that all is linear.
const MAX_ROUNDS: usize = 16;

/// The first match in a text, whose ends are edges as good as any space.
type Finder = fn(&Redactor, &str) -> Option<Range<usize>>;

/// What is searched for, the more certain first: later ones get only what earlier ones left.
const PASSES: [(Redaction, Finder); 6] = [
    (Redaction::Key, Redactor::pem_line),
    (Redaction::Key, Redactor::key),
    (Redaction::Email, Redactor::email),
    (Redaction::Ip, Redactor::ipv6),
    (Redaction::Ip, Redactor::ipv4),
    (Redaction::Phone, Redactor::phone),
];

/// What stands for data that were taken out.
fn replacement(kind: Redaction) -> &'static str {
    match kind {
        Redaction::Email => "<email>",
        Redaction::Phone => "<phone>",
        Redaction::Ip => "<ip>",
        Redaction::Key => "<key>",
    }
}

/// Finds and replaces data of the kinds that are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Redactor {
    kinds: Vec<Redaction>,
    /// The beginnings of [`TOKENS`], then [`NAMES`].
    anchors: AhoCorasick,
    tokens: Vec<Regex>,
    assignment: Regex,
    domain: Regex,
    phone: Regex,
}

impl Redactor {
    pub(crate) fn new(kinds: &[Redaction]) -> Self {
        // In bytes: a border of a word is one of ASCII, also where Chinese stands beside.
        let regex =
            |pattern: &str| Regex::new(&pattern.replace(r"\b", r"(?-u:\b)").replace(r"\d", "[0-9]")).expect("the patterns are fixed");
        let anchors = TOKENS.iter().map(|(anchor, ..)| anchor).chain(NAMES);
        Self {
            kinds: kinds.to_vec(),
            anchors: AhoCorasick::builder().ascii_case_insensitive(true).build(anchors).expect("the anchors are few"),
            tokens: TOKENS.iter().map(|(_, pattern, _)| regex(pattern)).collect(),
            assignment: regex(ASSIGNMENT),
            domain: regex(DOMAIN),
            phone: regex(PHONE),
        }
    }

    /// `text` with `<email>`, `<phone>`, `<ip>` and `<key>` for what was found; adds to `counts`, which are in the order of
    /// [`Redaction`]. A text that comes out of it goes through it unchanged, unless in it more than [`MAX_ROUNDS`] data stood side
    /// by side, each hiding the next.
    pub(crate) fn redact<'t>(&self, text: &'t str, counts: &mut [u64; 4]) -> Cow<'t, str> {
        let found = self.find(text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut redacted = String::with_capacity(text.len());
        let mut end = 0;
        for (kind, range) in found {
            counts[kind as usize] += 1;
            redacted.push_str(&text[end..range.start]);
            redacted.push_str(replacement(kind));
            end = range.end;
        }
        redacted.push_str(&text[end..]);
        Cow::Owned(redacted)
    }

    /// Where in `text` data of the wanted kinds stand, in bytes, in their order and none over another. Where two could be, keys
    /// win, then e-mail addresses, then IP addresses.
    pub(crate) fn find(&self, text: &str) -> Vec<(Redaction, Range<usize>)> {
        let mut found = Vec::new();
        self.search(&PASSES, text, &mut found, |gap| [gap, ""]);
        // What was found may have hidden what stands beside it, on its line; a line of PEM stands alone.
        let n_rounds = if found.is_empty() { 0 } else { MAX_ROUNDS };
        for _ in 0..n_rounds {
            let n_before = found.len();
            self.search(&PASSES[1..], text, &mut found, |gap| match gap.split_once('\n') {
                Some((first, rest)) => [first, rest.rsplit_once('\n').map_or(rest, |(_, last)| last)],
                None => [gap, ""],
            });
            if found.len() == n_before {
                break;
            }
        }
        found
    }

    /// Adds what the passes find in those parts of each gap between what was `found` before.
    fn search(
        &self,
        passes: &[(Redaction, Finder)],
        text: &str,
        found: &mut Vec<(Redaction, Range<usize>)>,
        parts: impl Fn(&str) -> [&str; 2],
    ) {
        for (kind, first) in passes.iter().filter(|(kind, _)| self.kinds.contains(kind)) {
            let starts = std::iter::once(0).chain(found.iter().map(|(_, range)| range.end));
            let ends = found.iter().map(|(_, range)| range.start).chain([text.len()]);
            let mut more = Vec::new();
            for (start, end) in starts.zip(ends) {
                let [head, tail] = parts(&text[start..end]);
                for (mut start, part) in [(start, head), (end - tail.len(), tail)] {
                    let end = start + part.len();
                    while let Some(range) = first(self, &text[start..end]) {
                        more.push((*kind, start + range.start..start + range.end));
                        start += range.end;
                    }
                }
            }
            if !more.is_empty() {
                found.append(&mut more);
                found.sort_unstable_by_key(|(_, range)| range.start);
            }
        }
    }

    /// A line of a key in PEM: 64 columns of base64 (RFC 7468), or the 70 of OpenSSH, and nothing else. A hash in hexadecimal is
    /// none, for it has letters of one case.
    fn pem_line(&self, text: &str) -> Option<Range<usize>> {
        let is_body = |line: &str| {
            matches!(line.len(), 64 | 70)
                && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
                && line.bytes().any(|byte| byte.is_ascii_uppercase())
                && line.bytes().any(|byte| byte.is_ascii_lowercase())
                && line.bytes().any(|byte| byte.is_ascii_digit())
        };
        let mut start = 0;
        for end in memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
            if end - start >= 64 {
                let line = text[start..end].trim_ascii_start();
                let begin = end - line.len();
                let line = line.trim_ascii_end();
                if is_body(line) {
                    return Some(begin..begin + line.len());
                }
            }
            start = end + 1;
        }
        None
    }

    /// A token of a known form, or a value that is assigned to the name of a secret.
    fn key(&self, text: &str) -> Option<Range<usize>> {
        self.anchors.find_iter(text).find_map(|anchor| {
            let (start, which) = (anchor.start(), anchor.pattern().as_usize());
            let rest = &text[start..];
            if let Some((_, _, needs_digit)) = TOKENS.get(which) {
                // A token that begins within another run of its letters is none; so each run is read once.
                let before = text[..start].bytes().next_back();
                if !rest.starts_with('-') && before.is_some_and(|byte| is_word(byte) || byte == b'-') {
                    return None;
                }
                let token = self.tokens[which].find(rest)?;
                return (!needs_digit || token.as_str().bytes().any(|byte| byte.is_ascii_digit())).then(|| start..start + token.end());
            }
            let groups = self.assignment.captures(rest)?;
            let value = groups.get(1).or(groups.get(2)).expect("one of both takes part");
            // Letters alone are rather a label or a kind of token; an address and a colour are no secrets.
            let is_random = value.as_str().bytes().any(|byte| byte.is_ascii_digit() || b"!@#$%^&*+=~?".contains(&byte));
            (is_random && !value.as_str().contains("://") && !value.as_str().starts_with('#'))
                .then(|| start + value.start()..start + value.end())
        })
    }

    /// An address of a local part (RFC 5321, at most 64 characters) and a domain with a dot.
    fn email(&self, text: &str) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        memchr_iter(b'@', bytes).find_map(|at| {
            let is_local = |byte: &&u8| is_word(**byte) || b".%+'-".contains(byte);
            let n_local = bytes[..at].iter().rev().take(64).take_while(is_local).count();
            let local = text[at - n_local..at].trim_start_matches(['.', '%', '+', '\'', '-']);
            if local.is_empty() || local.ends_with('.') {
                return None;
            }
            let domain = self.domain.find(&text[at + 1..])?;
            // Pictures for screens of twice the density: `icon@2x.png`.
            let is_density = matches!(domain.as_str().as_bytes(), [b'1'..=b'9', b'x', b'.', rest @ ..] if !rest.contains(&b'.'));
            (!is_density).then(|| at - local.len()..at + 1 + domain.end())
        })
    }

    /// An address that parses and lies in a range that is in use (IANA): what parses otherwise is `a::b`, a path.
    fn ipv6(&self, text: &str) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        let mut seen = 0;
        memchr_iter(b':', bytes).find_map(|colon| {
            if colon < seen {
                return None;
            }
            let is_part = |byte: &&u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
            let start = colon - bytes[..colon].iter().rev().take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
            seen = colon + bytes[colon..].iter().take_while(is_part).count();
            let mut address = text[start..seen].trim_end_matches('.');
            if !address.ends_with("::") {
                address = address.trim_end_matches(':');
            }
            let end = start + address.len();
            let in_use = |address: Ipv6Addr| match address.segments() {
                // Global; private and of a link; to many.
                [0x2000..=0x3fff | 0xfc00..=0xfdff | 0xfe80..=0xfebf | 0xff00.., ..] | [0x64, 0xff9b, ..] => true,
                _ => address.is_loopback() || address.to_ipv4_mapped().is_some(),
            };
            let parses = address.len() > 2 && is_apart(bytes, start, end) && address.parse().is_ok_and(in_use);
            parses.then_some(start..end)
        })
    }

    /// Four numbers to 255 that are not part of a longer one, such as a version's.
    fn ipv4(&self, text: &str) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let mut seen = 0;
        memchr_iter(b'.', bytes).find_map(|dot| {
            if dot <= seen || !is_digit(dot - 1) || !is_digit(dot + 1) {
                return None;
            }
            let start = dot - bytes[seen..dot].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
            seen = dot + bytes[dot..].iter().take_while(|byte| byte.is_ascii_digit() || **byte == b'.').count();
            let address = text[start..seen].trim_end_matches('.');
            let end = start + address.len();
            // 1.2.3.4-beta.
            let is_version = bytes.get(end) == Some(&b'-') && bytes.get(end + 1).is_some_and(u8::is_ascii_alphabetic);
            let is_part = bytes[..start].ends_with(b".");
            let parses = is_apart(bytes, start, end) && !is_part && !is_version && address.parse::<Ipv4Addr>().is_ok();
            parses.then_some(start..end)
        })
    }

    /// A number as it is written for people, with 7 to 15 digits (E.164), which no other number goes on.
    fn phone(&self, text: &str) -> Option<Range<usize>> {
        let bytes = text.as_bytes();
        let mut from = 0;
        while let Some(digit) = bytes[from..].iter().position(u8::is_ascii_digit).map(|n| from + n) {
            let run = &bytes[digit..bytes.len().min(digit + PHONE_BYTES)];
            let n_run = run.iter().take_while(|byte| byte.is_ascii_digit() || b" +()./-".contains(byte)).count();
            if run[..n_run].iter().filter(|byte| byte.is_ascii_digit()).count() >= 7 {
                let is_lead = |byte: &u8| matches!(byte, b'+' | b'(');
                let starts = (digit.saturating_sub(2).max(from)..=digit).filter(|start| bytes[*start..digit].iter().all(is_lead));
                let mut found = starts.filter_map(|start| Some(start..self.phone_at(text, start, digit + n_run)?));
                if let Some(found) = found.next() {
                    return Some(found);
                }
            }
            from = digit + run.iter().take_while(|byte| byte.is_ascii_digit()).count();
        }
        None
    }

    /// The end of the longest number that begins at `start`, looked for to `limit`.
    fn phone_at(&self, text: &str, start: usize, mut limit: usize) -> Option<usize> {
        let bytes = text.as_bytes();
        let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
        let joins = |at: usize| bytes.get(at).is_some_and(|byte| matches!(byte, b'.' | b'-'));
        if start > 0 && (is_word(bytes[start - 1]) || start > 1 && joins(start - 1) && is_digit(start - 2)) {
            return None;
        }
        while let Some(number) = self.phone.find(&text[start..limit]) {
            let number = number.as_str();
            let end = start + number.len();
            let n_digits = number.bytes().filter(u8::is_ascii_digit).count();
            let groups = || number.split(|character: char| !character.is_ascii_digit()).filter(|group| !group.is_empty());
            let is_whole = match number.trim_start_matches('(').as_bytes()[0] {
                // Where an area code begins with 0: not a date, a code of a place in the USA or a row of small numbers.
                b'0' => {
                    let is_postal = groups().map(str::len).eq([5, 4]) && number.as_bytes()[5] == b'-';
                    let is_row = groups().filter(|group| group.len() == 2 && group.starts_with('0')).count() > 2;
                    (9..=12).contains(&n_digits) && !is_postal && !is_row
                }
                // Not a difference, a decimal fraction or a row of small numbers.
                b'+' => match groups().count() {
                    1 => n_digits >= 10,
                    2 if number.contains('.') => false,
                    n_groups => (7..=15).contains(&n_digits) && n_digits + 2 >= 2 * n_groups,
                },
                _ => true,
            };
            // An extension may follow: 415-555-2671x5.
            let next = bytes.get(end).copied().unwrap_or(b' ');
            let goes_on = is_word(next) && next != b'x' || joins(end) && is_digit(end + 1);
            if is_whole && !goes_on {
                return Some(end);
            }
            limit = start + number.trim_end_matches(|character: char| character.is_ascii_digit()).len();
        }
        None
    }
}

/// Letters, digits and the low line.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether no word goes into `start..end` or on behind it.
fn is_apart(bytes: &[u8], start: usize, end: usize) -> bool {
    let is_apart = |beside: Option<&u8>| !beside.is_some_and(|byte| is_word(*byte));
    is_apart(bytes[..start].last()) && is_apart(bytes.get(end))
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(&Redaction::ALL));

    fn redact(text: &str) -> String {
        REDACTOR.redact(text, &mut [0; 4]).into_owned()
    }

    /// What stands in `⟦⟧` in a text is to be found.
    #[track_caller]
    fn check(kind: Redaction, texts: &[&str]) {
        for marked in texts {
            let text = marked.replace(['⟦', '⟧'], "");
            let expected: Vec<_> = marked.split('⟦').skip(1).map(|part| (kind, part.split('⟧').next().unwrap())).collect();
            let found: Vec<_> = REDACTOR.find(&text).into_iter().map(|(kind, range)| (kind, &text[range])).collect();
            assert_eq!(found, expected, "in {text:?}");
        }
    }

    #[test]
    fn email_addresses() {
        let found = [
            "⟦ada@example.com⟧",
            "Write to ⟦ada.lovelace@example.com⟧.",
            "⟦ada+lists@mail.example.co.uk⟧, ⟦BOB@EXAMPLE.ORG⟧; ⟦x_y@a-b.io⟧",
            "<a href=\"mailto:⟦ada@example.com⟧\">",
            "<⟦ada@example.com⟧>",
            "'⟦o'brien@example.ie⟧'",
            "请发邮件到⟦li@example.cn⟧。",
            "https://user:⟦hunter2@example.com⟧/",
            "(⟦a@b.de⟧)",
            "⟦ada@example.com⟧\n⟦bob@example.com⟧",
            "--⟦ada@example.com⟧--",
            "x@⟦ada@example.com⟧",
            "⟦ada@example.museum⟧!",
            "⟦ada@xn--bcher-kva.example⟧",
            "⟦ada@example.xn--p1ai⟧",
            "⟦a@b.com⟧-1",
            "⟦1234567890@qq.com⟧",
            "e.g.:⟦a%b@c.net⟧,",
        ];
        check(Redaction::Email, &found);
        let not_found = [
            "@ada",
            "ada@",
            "ada@localhost",
            "a @ b.com",
            "react@18.2.0",
            "icon@2x.png",
            "ada@example.c",
            "ada@example.c1",
            "@media screen",
            "n @ 1..=5",
            "ada@.com",
            "ada.@example.com",
            "ada@\nexample.com",
            "ada@-example",
            "{@link Foo.bar}",
            "a@b",
            "@types/node.js",
            "user@10.0.0",
            "http://medium.com/@ada.b",
            "<email>",
        ];
        check(Redaction::Email, &not_found);
    }

    #[test]
    fn telephone_numbers() {
        let found = [
            "⟦+14155552671⟧",
            "⟦+1 415 555 2671⟧",
            "⟦+1 (415) 555-2671⟧",
            "call ⟦(555) 123-4567⟧.",
            "⟦555-123-4567⟧, ⟦555.123.4567⟧",
            "⟦1-800-555-1234⟧",
            "⟦555-123-4567⟧x89",
            "⟦(555)123-4567⟧",
            "(⟦555-123-4567⟧)",
            "⟦+44 20 7946 0958⟧",
            "⟦+49 (0)30 123456⟧",
            "⟦(+49) 30 123456⟧ (⟦+49 30 123456⟧)",
            "tel:⟦+4930123456⟧",
            "⟦+33 1 23 45 67 89⟧",
            "⟦01 23 45 67 89⟧ ⟦06.12.34.56.78⟧",
            "⟦0171/1234567⟧ ⟦030 123456⟧",
            "⟦(020) 7946 0958⟧",
            "⟦07700 900123⟧",
            "⟦+41 44 668 18 00⟧",
            "⟦+86 138 0013 8000⟧",
            "电话⟦138-0013-8000⟧，⟦138 0013 8000⟧",
            "电话：⟦010-12345678⟧",
            "⟦0755-12345678⟧",
            "⟦+86-10-12345678⟧",
            "⟦090-1234-5678⟧",
            "⟦+7 (495) 123-45-67⟧",
            "⟦+1.415.555.2671⟧",
            "⟦555-123-4567⟧\n⟦555-123-4568⟧",
            "⟦555-123-4567⟧,⟦555-123-4568⟧ 2 times",
            "2024 ⟦555-123-4567⟧",
        ];
        check(Redaction::Phone, &found);
        let not_found = [
            "4155552671",
            "13800138000",
            "2024-01-15",
            "15.01.2024",
            "01/02/2024",
            "01-02-2024 10:30",
            "2024-01-15 10:30:00",
            "20240115123456",
            "978-0-306-40615-7",
            "0-306-40615-2",
            "0306-40615-2",
            "ISBN 9780306406157",
            "$1,234,567.89",
            "1.234.567,89 €",
            "1 234 567",
            "+1234567",
            "+1.23456789",
            "+1 2 3 4 5 6 7 8",
            "+12.50 13.75",
            "123-45-6789",
            "4111 1111 1111 1111",
            "0000-0002-1825-0097",
            "550e8400-e29b-41d4-a716-446655440000",
            "555-123-4567-890",
            "12-555-123-4567",
            "v555.123.4567",
            "1.2.3.4.5",
            "3.14159265358979",
            "0x12345678",
            "0.123.4567890",
            "555-\n123-4567",
            "arXiv:2204.02311",
            "10:30:45.123456",
            "1e+10",
            "192-168-1234",
            "012 345",
            "<phone>",
            "555 123 4567",
            "0317-8471",
            "MA 02110-1301, USA",
            "01 02 03 04 05",
            "A555-123-4567",
        ];
        check(Redaction::Phone, &not_found);
    }

    #[test]
    fn ip_addresses() {
        let found = [
            "⟦127.0.0.1⟧",
            "⟦8.8.8.8⟧, ⟦255.255.255.255⟧.",
            "http://⟦192.168.0.1⟧:8080/",
            "⟦10.0.0.0⟧/8",
            "⟦10.0.0.1⟧-⟦10.0.0.9⟧",
            "\"⟦0.0.0.0⟧\"",
            "user@⟦10.1.2.3⟧",
            "地址⟦10.1.2.3⟧。",
            "⟦10.1.2.3⟧...",
            "::⟦1.2.3.4⟧",
            "⟦::1⟧",
            "[⟦::1⟧]:8080",
            "⟦2001:db8::1⟧",
            "⟦2001:0db8:85a3:0000:0000:8a2e:0370:7334⟧",
            "⟦fe80::1⟧%eth0",
            "⟦2001:db8::⟧/32",
            "⟦::ffff:192.0.2.1⟧",
            "⟦64:ff9b::192.0.2.33⟧",
            "at ⟦fe80::dead:beef⟧: up",
            "at ⟦FD00::1⟧.",
        ];
        check(Redaction::Ip, &found);
        let not_found = [
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3",
            "v1.2.3.4",
            "1.2.3.4-beta",
            "01.02.03.04",
            "1.2.3.4b",
            "1..2.3.4",
            "1.2.3.\n4",
            ".1.2.3.4",
            "1.2.3.4567",
            "std::fs",
            "a::b",
            "std::f64::consts::E",
            "f32::",
            "dead::beef",
            "12:30:45",
            "::",
            "x[::2]",
            "00:1a:2b:3c:4d:5e",
            "add::f00d",
            "1::2::3",
            "use b::{c}",
            "x :: Int",
            "12345::1",
            "2001:db8",
            "g2001::1",
            "aa:bb:cc:dd:ee:ff:00:11",
            "<ip>",
            "<<1::8>>",
        ];
        check(Redaction::Ip, &not_found);
    }

    #[test]
    fn keys_and_tokens() {
        // Put together here, so that nobody who looks for leaked keys finds them.
        let random = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0";
        let line = "MIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9OiJjRazXBZ1BjP5CE/Wm/Rr500P";
        let tokens = [
            ["AK", "IAIOSFODNN7EXAMPLE"].concat(),
            ["AS", "IAIOSFODNN7EXAMPLE"].concat(),
            ["gh", "p_", &random[..36]].concat(),
            ["gh", "o_", &random[..36]].concat(),
            ["gh", "s_", &random[..36]].concat(),
            ["github", "_pat_", &random[..22]].concat(),
            ["gl", "pat-", &random[..20]].concat(),
            ["xo", "xb-123456789012-", &random[..24]].concat(),
            ["s", "k-", random].concat(),
            ["s", "k-ant-api03-", random].concat(),
            ["AI", "za", &random[..35]].concat(),
            ["sk", "_live_", &random[..24]].concat(),
            ["rk", "_live_", &random[..24]].concat(),
            ["np", "m_", &random[..36]].concat(),
            ["h", "f_", &random[..34]].concat(),
            ["ey", "JhbGciOiJIUzI1NiJ9.ey", "JzdWIiOiIxMjM0In0.", random].concat(),
            ["-----BEGIN ", "PRIVATE KEY-----\\nMIIE\\n-----END ", "PRIVATE KEY-----"].concat(),
        ];
        for token in &tokens {
            for (before, after) in [("", ""), ("key: ", "\n"), ("\"", "\","), ("钥匙", "。"), ("=", " ")] {
                check(Redaction::Key, &[&format!("{before}⟦{token}⟧{after}")]);
            }
            for without in [format!("x{token}"), token[..token.len() / 3].to_owned(), token.replace(|c: char| c.is_ascii_digit(), "\n")] {
                let without = without.replace("-----BEGIN", "-----BEGAN");
                check(Redaction::Key, &[&without]);
            }
        }
        let found = [
            "password = \"⟦hunter2⟧\"",
            "DB_PASSWORD='⟦correct-horse-7⟧'",
            "\"api_key\": \"⟦0123456789abcdef⟧\",",
            "client_secret: '⟦a1b2c3d4e5⟧'",
            "const TOKEN: &str = \"⟦t0k3n-abc⟧\";",
            "let secret_key := `⟦s3cr3t!⟧`",
            "accessToken => '⟦abc123def⟧'",
            "{\\\"password\\\":\\\"⟦hunter22⟧\\\"}",
            "config['token'] = '⟦abc123⟧'",
            "passwd=\"⟦pässw0rt⟧\"",
            &format!("aws_secret_access_key = ⟦{random}⟧"),
            &format!("AWS_SECRET_ACCESS_KEY=⟦{random}⟧\n"),
            &format!("⟦{line}⟧\n⟦{line}⟧\nabc="),
            &format!("  ⟦{line}⟧  \n"),
            "password = \"⟦a@example.com⟧\"",
            "token = \"⟦10.0.0.1⟧\"",
        ];
        check(Redaction::Key, &found);
        let not_found = [
            "password = \"\"",
            "password: \"Passwort\"",
            "token_type = \"bearer\"",
            "token == \"identifier\"",
            "let token = \"fn\";",
            "secret = \"${SECRET_1}\"",
            "token: '{{ token1 }}'",
            "password = \"<password1>\"",
            "password = input(\"Your password 1\")",
            "token_url = \"https://example.com/oauth2\"",
            "the secret: \"he came at 5\"",
            "password = \"<key>\"",
            "token = \"#dcdcc7\"",
            "task-force-and-other-words-1234",
            "sk-learn-contrib-with-words",
            "hf_hub_download",
            "ghp_short",
            "a token = 5",
            "password\n= \"hunter2\"",
            &line[1..],
            &format!("{line}="),
            &format!("x {line}"),
            &"0123456789abcdef".repeat(4),
            "secret santa",
            "eyJ.eyJ.x",
            "-----BEGIN PUBLIC KEY-----MIIE-----END PUBLIC KEY-----",
            "<key>",
        ];
        check(Redaction::Key, &not_found);
    }

    #[test]
    fn what_is_found_is_replaced_and_counted() {
        let text = "ada@example.com, 10.0.0.1, +1 415 555 2671, password = \"hunter2\", bob@example.com";
        let mut counts = [0; 4];
        let redacted = REDACTOR.redact(text, &mut counts).into_owned();
        assert_eq!(redacted, "<email>, <ip>, <phone>, password = \"<key>\", <email>");
        assert_eq!(counts, [2, 1, 1, 1]);
        let only = Redactor::new(&[Redaction::Ip]).redact(text, &mut counts).into_owned();
        assert_eq!(only, text.replace("10.0.0.1", "<ip>"));
        assert!(matches!(REDACTOR.redact("no data here, 5 of 7", &mut counts), Cow::Borrowed(_)));
    }

    /// Beginnings and ends that look like data, put against each other.
    fn fragments() -> impl Strategy<Value = String> {
        let fragment = prop::sample::select(vec![
            "a@b.com",
            "ada",
            "@",
            ".",
            "..",
            "-",
            "+",
            "(",
            ")",
            "(030)",
            "030",
            "1",
            "12",
            "555",
            "555-123-4567",
            "123 4567",
            "10.0.0.1",
            "1.2",
            ".3.4",
            ":",
            "::",
            "::1",
            "fe80::1",
            "2001:db8",
            ":1:2",
            "token=",
            "password",
            " = ",
            "\"",
            "'",
            "x1y2z3w4",
            "sk-",
            "_",
            "/",
            " ",
            " ",
            "\n",
            "é",
            "中",
            "+49 30 123456",
            "0171 1234567",
            "01 23 45 67 89",
            "138 0013 8000",
            "<ip>",
            "<",
            ">",
            "00",
            "x",
            "99",
            "AKIAIOSFODNN7EXAMPL3",
            "MIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9OiJjRazXBZ1BjP5CE/Wm/Rr500P",
        ]);
        prop::collection::vec(fragment, 0..16).prop_map(|fragments| fragments.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_redacted_stays_as_it_is(text in fragments(), kinds in prop::sample::subsequence(Redaction::ALL.to_vec(), 1..=4)) {
            let redactor = Redactor { kinds, ..REDACTOR.clone() };
            let once = redactor.redact(&text, &mut [0; 4]).into_owned();
            let mut counts = [0; 4];
            prop_assert_eq!(redactor.redact(&once, &mut counts), once.as_str());
            prop_assert_eq!(counts, [0; 4]);
        }

        #[test]
        fn lines_are_redacted_each_by_itself(text in fragments()) {
            prop_assert_eq!(text.split_inclusive('\n').map(redact).collect::<String>(), redact(&text));
        }

        #[test]
        fn matches_are_in_order_and_within_lines(text in fragments()) {
            let mut end = 0;
            for (_, range) in REDACTOR.find(&text) {
                prop_assert!(end <= range.start && range.start < range.end);
                end = range.end;
                prop_assert!(!text[range].contains(['\n', '<', '>']));
            }
        }

        #[test]
        fn no_text_is_too_odd(text in any::<String>()) {
            let once = redact(&text);
            prop_assert_eq!(redact(&once), once);
        }
    }
}
