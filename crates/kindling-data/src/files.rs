//! Paths, folders and globs to text. Knows nothing of packages, splits or tokens.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;

use crate::DataError;

/// A file that will become a document.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) package: Option<String>,
    /// Named by the user himself, so that a binary file is an error and not left out.
    pub(crate) explicit: bool,
}

/// Every file that `paths` mean: a file itself, a folder's files (`.gitignore` is respected), or a glob's matches.
pub(crate) fn expand(paths: &[PathBuf], exclude: &[String]) -> Result<Vec<Found>, DataError> {
    let mut found = Vec::new();
    for path in paths {
        let text = path.to_string_lossy();
        if path.is_dir() {
            let files = walk(path, "", None, &[], exclude)?;
            if files.is_empty() {
                return Err(DataError::Empty(text.into_owned()));
            }
            found.extend(files);
        } else if !path.exists() && text.contains(['*', '?', '[', '{']) {
            found.extend(glob(path, &text, exclude)?);
        } else {
            // Opening it later says what is wrong with it.
            let name = path.file_name().map_or_else(|| text.to_string(), |name| name.to_string_lossy().into_owned());
            found.push(Found { path: path.clone(), name, package: None, explicit: true });
        }
    }
    // A file that is named twice, by different ways, is one document.
    let place = |file: &Found| std::fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone());
    found.sort_by_cached_key(place);
    found.dedup_by_key(|file| place(file));
    Ok(found)
}

/// Files below the longest part of the pattern that has no wildcard, as far as they match.
fn glob(path: &Path, pattern: &str, exclude: &[String]) -> Result<Vec<Found>, DataError> {
    let matcher = glob_set([pattern])?;
    let base: PathBuf = path.components().take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{'])).collect();
    let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
    if !base.is_dir() {
        return Err(DataError::NotFound(path.to_owned()));
    }
    let mut found = walk(&base, "", None, &[], exclude)?;
    found.retain(|file| matcher.is_match(file.path.strip_prefix("./").unwrap_or(&file.path)) || matcher.is_match(&file.path));
    if found.is_empty() {
        return Err(DataError::NotFound(path.to_owned()));
    }
    Ok(found)
}

/// The files below `root`, named `label/relative/path`; with `extensions`, only those.
pub(crate) fn walk(
    root: &Path,
    label: &str,
    package: Option<&str>,
    extensions: &[&str],
    exclude: &[String],
) -> Result<Vec<Found>, DataError> {
    let exclude = glob_set(exclude.iter().map(String::as_str))?;
    let mut found = Vec::new();
    // A package's own ignore files do not concern what its author published.
    for entry in WalkBuilder::new(root).standard_filters(package.is_none()).build() {
        let entry = entry.map_err(|error| match error.io_error().map(std::io::Error::kind) {
            Some(kind) => std::io::Error::new(kind, error.to_string()),
            None => std::io::Error::other(error.to_string()),
        })?;
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let path = entry.into_path();
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let wanted = extensions.is_empty() || path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x));
        if wanted && !exclude.is_match(relative) {
            // The same name on every platform.
            let parts = relative.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
            let name = if label.is_empty() { parts } else { format!("{label}/{parts}") };
            found.push(Found { path, name, package: package.map(str::to_owned), explicit: false });
        }
    }
    Ok(found)
}

fn glob_set<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<GlobSet, DataError> {
    let mut builder = GlobSetBuilder::new();
    for pattern in patterns {
        let malformed = |error: globset::Error| DataError::Glob { pattern: pattern.to_owned(), message: error.kind().to_string() };
        // `*` stays within a folder, as in a shell; `**` crosses.
        builder.add(GlobBuilder::new(pattern).literal_separator(true).build().map_err(malformed)?);
    }
    builder
        .build()
        .map_err(|error| DataError::Glob { pattern: error.glob().unwrap_or_default().to_owned(), message: error.kind().to_string() })
}
