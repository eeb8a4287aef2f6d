//! Rules for Rust files. Looks at one file at a time and at words in it, never at what they mean.

use super::lexer::{is_word, split};
use super::{Place, Violation};

const MAX_LINES: usize = 800;

/// The only files where `unsafe` may stand.
const UNSAFE_FILES: &[&str] = &[
    "crates/kindling-cli/src/startup.rs",
    "crates/kindling-data/src/mmap.rs",
    "crates/kindling-kernels/src/cpu/arithmetic.rs",
    "crates/kindling-kernels/src/cpu/attention.rs",
    "crates/kindling-kernels/src/cpu/buffer.rs",
    "crates/kindling-kernels/src/cpu/embedding.rs",
    "crates/kindling-kernels/src/cpu/layer_norm.rs",
    "crates/kindling-kernels/src/cpu/matmul.rs",
    "crates/kindling-kernels/src/cpu/packed.rs",
    "crates/kindling-kernels/src/cpu/pairs.rs",
    "crates/kindling-kernels/src/cpu/tile.rs",
    "crates/kindling-tokenizer/src/split/window.rs",
];

/// Folders of binaries and tests, whose code may read the environment.
const READS_ENVIRONMENT: &[&str] = &["crates/kindling-cli/", "tests/", "xtask/"];

/// How far above an `unsafe` block its reason may begin, if other code stands in between.
const SAFETY_LINES: usize = 3;

/// A Rust file of the workspace.
pub(super) struct Source {
    /// From the root, with forward slashes.
    pub(super) file: String,
    pub(super) text: String,
}

impl Source {
    fn violation(&self, place: Place, found: &str, expected: &str, hint: &str) -> Violation {
        Violation { file: self.file.clone(), place, found: found.into(), expected: expected.into(), hint: hint.into() }
    }
}

/// Every rule on one file.
pub(super) fn check(source: &Source) -> Vec<Violation> {
    let parts = split(&source.text);
    let mut violations = Vec::new();
    violations.extend(header(source));
    violations.extend(length(source));
    violations.extend(ignored_tests(source, &parts.code));
    violations.extend(environment(source, &parts.code));
    violations.extend(unsafe_code(source, &parts.code, &parts.comments));
    violations
}

fn header(source: &Source) -> Option<Violation> {
    let first = source.text.lines().next().unwrap_or_default();
    let said = first.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty());
    (!said).then(|| {
        source.violation(
            Place::Line(1),
            &format!("`{first}`"),
            "a line that begins with `//!`",
            "say what the file is, and what it deliberately is not",
        )
    })
}

fn length(source: &Source) -> Option<Violation> {
    let n_lines = source.text.lines().count();
    (n_lines > MAX_LINES)
        .then(|| source.violation(Place::File, &format!("{n_lines} lines"), &format!("at most {MAX_LINES}"), "split the file by concept"))
}

/// `#[ignore]`, with or without a reason, and the same under `cfg_attr`.
fn ignored_tests(source: &Source, code: &str) -> Vec<Violation> {
    let ignores = |(at, _): &(usize, &str)| {
        let attribute = &code[at + 2..];
        let attribute = &attribute[..attribute_len(attribute)];
        positions(attribute, "ignore").next() == Some(0)
            || attribute.starts_with("cfg_attr") && positions(attribute, "ignore").next().is_some()
    };
    code.match_indices("#[")
        .filter(ignores)
        .map(|(at, _)| {
            source.violation(
                Place::Line(line_of(code, at)),
                "an ignored test",
                "a test that always runs",
                "make the test fast, or delete it",
            )
        })
        .collect()
}

/// Up to the bracket that closes an attribute, its opening one left out.
fn attribute_len(text: &str) -> usize {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Only the sources of libraries: a build script has no other way, and a test may.
fn environment(source: &Source, code: &str) -> Vec<Violation> {
    let exempt = READS_ENVIRONMENT.iter().any(|folder| source.file.starts_with(folder));
    if exempt || !source.file.contains("/src/") {
        return Vec::new();
    }
    ["env::var", "env::var_os", "env::vars", "env::vars_os"]
        .into_iter()
        .flat_map(|name| positions(code, name).map(move |at| (at, name)))
        .map(|(at, name)| {
            source.violation(
                Place::Line(line_of(code, at)),
                &format!("`{name}`"),
                "no look at the environment in a library",
                "read it in kindling-cli and pass the value as an argument",
            )
        })
        .collect()
}

fn unsafe_code(source: &Source, code: &str, comments: &str) -> Vec<Violation> {
    let allowed = UNSAFE_FILES.contains(&source.file.as_str());
    let code_lines: Vec<&str> = code.lines().collect();
    let comment_lines: Vec<&str> = comments.lines().collect();
    let mut violations = Vec::new();
    for at in positions(code, "unsafe") {
        let line = line_of(code, at);
        if !allowed {
            violations.push(source.violation(
                Place::Line(line),
                "`unsafe`",
                &format!("it only in {}", UNSAFE_FILES.join(" and ")),
                "find a safe way; where there is none, name the file in xtask/src/tidy/sources.rs",
            ));
        } else if is_block(&code[at..]) && !has_reason(line - 1, &code_lines, &comment_lines) {
            violations.push(source.violation(
                Place::Line(line),
                "an `unsafe` block without a reason",
                &format!("a `// SAFETY:` comment within the {SAFETY_LINES} lines above"),
                "say why what the block relies on holds",
            ));
        }
    }
    violations
}

/// Whether `unsafe` opens a block, and not a function, a trait or an attribute.
fn is_block(code: &str) -> bool {
    code["unsafe".len()..].trim_start().starts_with('{')
}

/// Looks up a few lines, and on through a comment that is longer than those.
fn has_reason(line_idx: usize, code: &[&str], comments: &[&str]) -> bool {
    for (distance, above) in (0..line_idx).rev().enumerate() {
        let comment = comments[above].trim();
        if comment.starts_with("// SAFETY:") {
            return true;
        }
        let only_comment = code[above].trim().is_empty() && !comment.is_empty();
        if distance + 1 >= SAFETY_LINES && !only_comment {
            return false;
        }
    }
    false
}

/// Where `word` stands in `code` as a word of its own.
fn positions(code: &str, word: &str) -> impl Iterator<Item = usize> {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIBRARY: &str = "crates/kindling-model/src/gpt.rs";
    const UNSAFE: &str = UNSAFE_FILES[1];

    /// The places and findings in a file whose first line is in order; `body` begins on line 2.
    fn check_body(file: &str, body: &str, expected: &[(usize, &str)]) {
        let source = Source { file: file.into(), text: format!("//! A file.\n{body}\n") };
        let violations = check(&source);
        let found: Vec<_> = violations
            .iter()
            .map(|v| match v.place {
                Place::Line(line) => (line, v.found.as_str()),
                Place::File | Place::Key(_) => (0, v.found.as_str()),
            })
            .collect();
        assert_eq!(found, expected, "{file}: {body}");
    }

    #[test]
    fn a_missing_header_is_found() {
        for (text, n_violations) in [("//! A file.", 0), ("fn a() {}", 1), ("//!", 1), ("", 1)] {
            let source = Source { file: LIBRARY.into(), text: text.into() };
            assert_eq!(check(&source).len(), n_violations, "{text}");
        }
    }

    #[test]
    fn a_long_file_is_found() {
        check_body(LIBRARY, &"\n".repeat(MAX_LINES - 2), &[]);
        check_body(LIBRARY, &"\n".repeat(MAX_LINES - 1), &[(0, "801 lines")]);
    }

    #[test]
    fn an_ignored_test_is_found() {
        let found = "an ignored test";
        check_body(LIBRARY, "#[test]\n#[ignore]\nfn a() {}", &[(3, found)]);
        check_body(LIBRARY, "#[ignore = \"slow\"]", &[(2, found)]);
        check_body(LIBRARY, "#[cfg_attr(\n  windows,\n  ignore)]", &[(2, found)]);
        check_body(LIBRARY, "#[cfg_attr(a, b)] fn ignore() {}", &[]);
        check_body(LIBRARY, "// #[ignore]\nlet a = \"#[ignore]\";", &[]);
    }

    #[test]
    fn a_library_that_reads_the_environment_is_found() {
        let body = "let a = std::env::var(\"A\");\nlet b = env::var_os(\"B\");";
        check_body(LIBRARY, body, &[(2, "`env::var`"), (3, "`env::var_os`")]);
        for file in [
            "crates/kindling-cli/src/main.rs",
            "crates/kindling-model/build.rs",
            "crates/kindling-model/tests/golden.rs",
            "tests/src/lib.rs",
            "xtask/src/ci.rs",
        ] {
            check_body(file, body, &[]);
        }
        check_body(LIBRARY, "// env::var\nlet a = \"env::var\";", &[]);
    }

    #[test]
    fn unsafe_outside_its_places_is_found() {
        let body = "fn a() {\n  // SAFETY: no.\n  unsafe { b() }\n}";
        check_body(LIBRARY, body, &[(4, "`unsafe`")]);
        check_body(LIBRARY, "unsafe fn a() {}", &[(2, "`unsafe`")]);
        check_body(LIBRARY, "#![allow(unsafe_code)] // unsafe\nf(\"unsafe\");", &[]);
    }

    #[test]
    fn an_unsafe_block_without_a_reason_is_found() {
        let found = "an `unsafe` block without a reason";
        check_body(UNSAFE, "let a = unsafe { b() };", &[(2, found)]);
        check_body(UNSAFE, "// SAFETY: why.\n\n\n\nunsafe { b() };", &[(6, found)]);
        check_body(UNSAFE, "let a = \"// SAFETY: no\";\nunsafe { b() };", &[(3, found)]);
        check_body(UNSAFE, "// SAFETY: why.\nlet a = unsafe { b() };", &[]);
        check_body(UNSAFE, "// SAFETY: why.\nlet a =\n  c(\n  unsafe { b() });", &[]);
        check_body(UNSAFE, "// SAFETY: a\n// long\n// long\n// reason.\nunsafe { b() };", &[]);
        check_body(UNSAFE, "unsafe fn a() {}", &[]);
    }
}
