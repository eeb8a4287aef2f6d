//! What a command answered, and the rules that every error follows.

use std::fmt;
use std::process::Output;

use serde_json::Value;

/// A command, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// The command.
    pub line: String,
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` gave code {}\nstdout: {}\nstderr: {}", self.line, self.code, self.out.trim_end(), self.err.trim_end())
    }
}

impl Said {
    /// # Panics
    /// If the command wrote anything that is not UTF-8: it never should.
    pub fn new(line: &str, output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap_or_else(|error| panic!("`{line}` wrote invalid UTF-8: {error}"));
        Self { line: line.to_owned(), code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The command has succeeded.
    ///
    /// # Panics
    /// If it has not.
    pub fn ok(self) -> Self {
        assert!(self.code == 0 && !self.err.contains("error: "), "{self}");
        self
    }

    /// The command has succeeded, and its output is one JSON document.
    ///
    /// # Panics
    /// If it has not, or is not.
    pub fn json(self) -> Value {
        let said = self.ok();
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("not JSON: {error}: {said}"))
    }

    /// The command has failed, with an error in which all the fragments occur.
    ///
    /// # Panics
    /// If anything is wrong with the error.
    pub fn fails(self, expected: &[&str]) -> Self {
        let faults = self.faults(expected);
        assert!(faults.is_empty(), "{}", faults.join("\n\n"));
        self
    }

    /// What is wrong with the error: exit code 1, one line that begins with `error: ` and says it once, one that begins with
    /// `hint: `, and no panic. A fragment that begins with `!` must not occur.
    pub(crate) fn faults(&self, expected: &[&str]) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        check(self.code == 1, &format!("exit code {}, expected 1", self.code));
        // Progress may stand before it.
        let is_error = |line: &&str| line.starts_with("error: ");
        check(self.err.lines().filter(is_error).count() == 1, "expected one line that begins with `error: `");
        check(self.err.lines().any(|line| line.starts_with("hint: ") && line.len() > 10), "no hint");
        let text = self.err.find("error: ").map_or("", |at| &self.err[at..]);
        check(text.matches("(os error").count() < 2, "the cause is said twice");
        for word in ["panicked", "internal error", "backtrace"] {
            check(!self.err.contains(word), &format!("a mistake of the program: `{word}`"));
        }
        for fragment in expected {
            match fragment.strip_prefix('!') {
                Some(fragment) => check(!text.contains(fragment), &format!("found `{fragment}`, which is wrong here")),
                None => check(text.contains(fragment), &format!("no `{fragment}`")),
            }
        }
        if faults.is_empty() { faults } else { vec![format!("{}\n  -> {}", self, faults.join("\n  -> "))] }
    }
}

/// The command was refused as it is written: exit code 2, and where help can be found.
///
/// # Panics
/// If it was not.
pub fn check_usage(said: &Said, expected: &str) {
    assert!(said.code == 2 && said.err.contains("--help") && said.err.contains(expected) && said.out.is_empty(), "{expected}: {said}");
}
