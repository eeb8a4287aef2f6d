//! `cargo xtask test`: every test of the workspace, and one total over all test binaries.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::AddAssign;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::binary::{Build, build};
use crate::workspace::{Workspace, cannot_start, exit_code};

/// Crates whose tests need packages that switch on features of packages that Burn shares: tested together with the
/// others, they would have most of Burn compiled once more. Alone, they need no Burn at all.
const TESTED_ALONE: [&str; 1] = ["kindling-tokenizer"];
/// Tests of what is not built by default.
const TESTED_WITH_FEATURES: [&str; 6] = ["--package", "kindling-tokenizer", "--features", "hugging-face", "--test", "other"];

/// What the user asked for.
#[derive(clap::Args, Default)]
pub(crate) struct TestArgs {
    /// Arguments of `cargo test`: a filter, or `FILTER -- OPTIONS OF THE TESTS`
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

/// Tests counted over all binaries, doc tests among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// How the tests ended.
pub(crate) enum Tested {
    /// The binary under test did not build, so no test ran.
    NotBuilt(u8),
    Ran {
        totals: Totals,
        code: u8,
    },
}

/// `cargo xtask test`. The total is the last line on stdout.
pub(crate) fn command(workspace: &Workspace, args: &TestArgs) -> Result<u8> {
    let (totals, code) = match test(workspace, args)? {
        Tested::NotBuilt(code) => (Totals::default(), code),
        Tested::Ran { totals, code } => (totals, code),
    };
    println!("{totals}");
    Ok(code)
}

/// Builds the binary, runs the tests and echoes their output.
pub(crate) fn test(workspace: &Workspace, args: &TestArgs) -> Result<Tested> {
    // The end-to-end tests run the binary that lies in the target folder, and `cargo test` does not build it for them.
    let binary = build(workspace, &[])?;
    if let Build::Failed(code) = binary {
        return Ok(Tested::NotBuilt(code));
    }
    let mut totals = Totals::default();
    let mut code = 0;
    let excluded = TESTED_ALONE.iter().flat_map(|name| ["--exclude", name]);
    let together: Vec<&str> = ["--workspace"].into_iter().chain(excluded).collect();
    let alone: Vec<&str> = TESTED_ALONE.iter().flat_map(|name| ["--package", name]).collect();
    for packages in [together, alone, TESTED_WITH_FEATURES.to_vec()] {
        // One failing binary must not hide the count of the others.
        let mut cargo = workspace.locked_cargo(&["test", "--release", "--no-fail-fast"]);
        cargo.args(packages).args(&args.args).stdout(Stdio::piped());
        let mut child = cargo.spawn().with_context(|| cannot_start(cargo.get_program().as_ref()))?;
        let stdout = child.stdout.take().expect("stdout was piped above");
        totals += echo(BufReader::new(stdout), io::stdout().lock()).context("cannot pass on the output of the tests")?;
        code = code.max(exit_code(child.wait().context("cannot wait for the tests")?));
    }

    if totals.ignored > 0 {
        println!("{} ignored", totals.ignored);
    }
    if code != 0 && totals.failed == 0 {
        println!("no test failed, yet cargo test did: a test that does not build, or a process that died");
    }
    Ok(Tested::Ran { totals, code })
}

/// Copies the output of the tests line by line and adds up the results in it.
fn echo(mut from: impl BufRead, mut to: impl Write) -> io::Result<Totals> {
    let mut totals = Totals::default();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        if let Some(result) = result_of(&String::from_utf8_lossy(&line)) {
            totals += result;
        }
        line.clear();
    }
    Ok(totals)
}

/// The counts in `test result: ok. 3 passed; 0 failed; 1 ignored; …`, the last line of a test binary.
fn result_of(line: &str) -> Option<Totals> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        counts.split(';').find_map(|part| {
            let (number, label) = part.trim().split_once(' ')?;
            (label == name).then(|| number.parse().ok())?
        })
    };
    Some(Totals { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 4 tests
test a ... ok
test prints ... test result: none of cargo's

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 40 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s
test result: almost
";

    #[test]
    fn totals_are_summed_and_the_output_is_echoed() {
        let mut echoed = Vec::new();
        let totals = echo(OUTPUT.as_bytes(), &mut echoed).expect("writing to memory");
        assert_eq!(echoed, OUTPUT.as_bytes());
        assert_eq!(totals, Totals { passed: 43, failed: 2, ignored: 1 });
        assert_eq!(totals.to_string(), "43 passed, 2 failed");
    }

    #[test]
    fn output_that_is_not_utf8_is_echoed_as_it_is() {
        let output = b"\xff\xfe\ntest result: ok. 1 passed; 0 failed; 0 ignored;";
        let mut echoed = Vec::new();
        let totals = echo(output.as_slice(), &mut echoed).expect("writing to memory");
        assert_eq!(echoed, output);
        assert_eq!(totals.passed, 1);
    }
}
