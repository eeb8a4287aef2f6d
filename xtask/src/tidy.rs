//! `cargo xtask tidy`: the rules of the workspace that no lint knows. Collects the facts; the rules lie in the modules
//! and are functions of the facts alone.

mod lexer;
mod manifests;
mod sources;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::manifests::Package;
use self::sources::Source;
use crate::workspace::Workspace;

/// Folders whose Rust files are ours.
const SOURCE_FOLDERS: &[&str] = &["crates", "tests", "xtask"];

/// Folders in them that hold no source of ours: build outputs, and files that are data to a test.
const NO_SOURCE: &[&str] = &["target", "golden"];

/// All that the rules look at.
#[derive(Default)]
struct Facts {
    packages: Vec<Package>,
    sources: Vec<Source>,
    /// Names of the files at the root.
    root_files: BTreeSet<String>,
}

/// A rule that does not hold, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    /// From the root, with forward slashes.
    file: String,
    place: Place,
    found: String,
    expected: String,
    hint: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    File,
    /// Counted from 1.
    Line(usize),
    /// A key of a manifest.
    Key(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.file)?;
        match &self.place {
            Place::File => write!(f, ": ")?,
            Place::Line(line) => write!(f, ":{line}: ")?,
            Place::Key(key) => write!(f, ": {key}: ")?,
        }
        writeln!(f, "found {}, expected {}", self.found, self.expected)?;
        write!(f, "hint: {}", self.hint)
    }
}

/// `cargo xtask tidy`: prints every violation and returns 1 if there is one.
pub(crate) fn command(workspace: &Workspace) -> Result<u8> {
    let facts = collect(workspace)?;
    let violations = check(&facts);
    for violation in &violations {
        println!("{violation}\n");
    }
    println!("tidy: {} violations in {} manifests and {} source files", violations.len(), facts.packages.len(), facts.sources.len());
    Ok(u8::from(!violations.is_empty()))
}

/// Every rule over all the facts.
fn check(facts: &Facts) -> Vec<Violation> {
    let mut violations = manifests::check(&facts.packages);
    violations.extend(facts.sources.iter().flat_map(sources::check));
    violations.extend(check_root(&facts.root_files));
    violations
}

/// What has to lie at the root.
fn check_root(files: &BTreeSet<String>) -> Vec<Violation> {
    [
        ("Cargo.lock", "`cargo generate-lockfile`, and commit it"),
        ("LICENSE-MIT", "add the text of the MIT license"),
        ("LICENSE-APACHE", "add the text of the Apache License 2.0"),
    ]
    .into_iter()
    .filter(|(name, _)| !files.contains(*name))
    .map(|(name, hint)| Violation {
        file: name.into(),
        place: Place::File,
        found: "no such file".into(),
        expected: "it at the root of the workspace".into(),
        hint: hint.into(),
    })
    .collect()
}

fn collect(workspace: &Workspace) -> Result<Facts> {
    let root = &workspace.root;
    let mut facts = Facts {
        packages: workspace.metadata.workspace_packages().into_iter().map(|package| Package::new(root, package)).collect(),
        ..Facts::default()
    };
    for path in list(root)? {
        if path.is_file() {
            facts.root_files.insert(file_name(&path));
        }
    }
    for folder in SOURCE_FOLDERS {
        let folder = root.join(folder);
        if folder.is_dir() {
            walk(root, &folder, &mut facts.sources)?;
        }
    }
    Ok(facts)
}

fn walk(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for path in list(folder)? {
        let name = file_name(&path);
        if path.is_dir() {
            if !NO_SOURCE.contains(&name.as_str()) && !name.starts_with('.') {
                walk(root, &path, sources)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(Source { file: relative(root, &path), text: fs::read_to_string(&path).with_context(|| cannot_read(&path))? });
        }
    }
    Ok(())
}

/// What lies in a folder, sorted, so that two runs print the same.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
        .with_context(|| cannot_read(folder))?;
    paths.sort();
    Ok(paths)
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read `{}`", path.display())
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A path from the root, with forward slashes on every system.
fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_at_the_root_is_found() {
        let all: BTreeSet<String> = ["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"].map(String::from).into();
        assert_eq!(check_root(&all), []);
        for name in &all {
            let mut files = all.clone();
            files.remove(name);
            let violations = check_root(&files);
            assert_eq!(violations.len(), 1, "{violations:?}");
            assert_eq!(&violations[0].file, name);
        }
    }

    #[test]
    fn every_kind_of_fact_reaches_its_rules() {
        let facts = Facts {
            packages: vec![Package::named("kindling-unheard-of")],
            sources: vec![Source { file: "crates/a/src/lib.rs".into(), text: "fn main() {}".into() }],
            root_files: ["Cargo.lock", "LICENSE-MIT"].map(String::from).into(),
        };
        let files: Vec<String> = check(&facts).into_iter().map(|v| v.file).collect();
        assert_eq!(files, ["crates/kindling-unheard-of/Cargo.toml", "crates/a/src/lib.rs", "LICENSE-APACHE"]);
    }

    #[test]
    fn a_violation_reads_as_an_error_with_a_hint() {
        let violation = Violation {
            file: "crates/a/src/lib.rs".into(),
            place: Place::Line(12),
            found: "x".into(),
            expected: "y".into(),
            hint: "do z".into(),
        };
        assert_eq!(violation.to_string(), "error: crates/a/src/lib.rs:12: found x, expected y\nhint: do z");
    }
}
