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

/// What a file turned out to hold.
pub(crate) enum Text {
    Empty,
    Binary,
    Utf8 { text: String, replaced: bool },
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

/// Reads one file that the user named as UTF-8 text; a byte-order mark is dropped, and with `lossy` invalid bytes are
/// replaced by U+FFFD.
///
/// # Errors
/// A file that is unreadable, empty, binary or not UTF-8.
pub fn read_document(path: &Path, lossy: bool) -> Result<String, DataError> {
    let file = Found { path: path.to_owned(), name: String::new(), package: None, explicit: true };
    match read_text(&file, lossy)? {
        Text::Utf8 { text, .. } => Ok(text),
        Text::Empty | Text::Binary => Err(DataError::Empty(path.display().to_string())),
    }
}

/// Reads one file as UTF-8 text.
pub(crate) fn read_text(file: &Found, lossy: bool) -> Result<Text, DataError> {
    let bytes = fs_err::read(&file.path)?;
    // Offsets are told as the file has them.
    let bom = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let bytes = if bom > 0 { bytes[bom..].to_vec() } else { bytes };
    if bytes.is_empty() {
        return if file.explicit { Err(DataError::Empty(file.path.display().to_string())) } else { Ok(Text::Empty) };
    }
    if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
        return if file.explicit { Err(DataError::Binary { path: file.path.clone(), offset: offset + bom }) } else { Ok(Text::Binary) };
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text::Utf8 { text, replaced: false }),
        Err(error) if lossy => Ok(Text::Utf8 { text: String::from_utf8_lossy(error.as_bytes()).into_owned(), replaced: true }),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let line = 1 + bytes[..offset].iter().filter(|byte| **byte == b'\n').count();
            Err(DataError::Utf8 { path: file.path.clone(), line, offset: offset + bom, byte: bytes[offset] })
        }
    }
}
