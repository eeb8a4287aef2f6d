//! Paths, folders and globs to files. Knows nothing of packages or tokens, and reads nothing but standard input.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;
use kindling_config::DataConfig;

use crate::{DataError, packages};

/// A file that holds documents.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// A name that does not depend on the machine: a path relative to the folder or package.
    pub(crate) name: String,
    /// Named by the user himself, so that a binary file is an error and not left out.
    pub(crate) explicit: bool,
    /// One text, whatever it is called.
    pub(crate) is_text: bool,
    /// Held out for validation by its place.
    pub(crate) validates: bool,
    /// Which of the sources it is of.
    pub(crate) source: usize,
}

impl Found {
    pub(crate) fn new(path: PathBuf, name: String, explicit: bool) -> Self {
        Self { path, name, explicit, is_text: false, validates: false, source: 0 }
    }
}

/// The files of a corpus, in the order of their sources and names.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) files: Vec<Found>,
    /// Bytes of all of them as they lie on disk.
    pub(crate) n_bytes: u64,
    /// Whether places say what validates.
    pub(crate) is_split: bool,
    /// What standard input was written to, as long as it is read.
    _spooled: Vec<tempfile::TempPath>,
}

impl Files {
    /// What a configuration names: its sources, or its paths, or else the packages of the workspace at `workspace`.
    pub(crate) fn of(config: &DataConfig, workspace: &Path, spool: &Path) -> Result<Self, DataError> {
        let mut spooled = Vec::new();
        let mut find = |paths: &[PathBuf]| expand(paths, &config.exclude, spool, &mut spooled);
        let mut held_out = find(&config.validation_paths)?;
        let mut files = Vec::new();
        if !config.sources.is_empty() {
            for (source, named) in config.sources.iter().enumerate() {
                files.extend(find(&named.paths)?.into_iter().map(|file| Found { source, ..file }));
            }
        } else if !config.paths.is_empty() {
            files = find(&config.paths)?;
        } else {
            files = packages::sources(&config.packages, &config.validation_packages, &config.exclude, workspace)?;
        }
        let is_split = !held_out.is_empty() || files.iter().any(|file| file.validates);
        if !held_out.is_empty() {
            // What a glob of training files also matches is held out.
            let held: std::collections::HashSet<PathBuf> = held_out.iter().map(place).collect();
            files.retain(|file| !held.contains(&place(file)));
            held_out.iter_mut().for_each(|file| (file.validates, file.source) = (true, config.sources.len()));
        }
        files.sort_by(|a, b| (a.source, &a.name).cmp(&(b.source, &b.name)));
        held_out.sort_by(|a, b| a.name.cmp(&b.name));
        // First, so that of two documents that are the same the one that is held out stays.
        files.splice(..0, held_out);
        Self::new(files, is_split, spooled)
    }

    /// Whether a configuration names standard input.
    pub(crate) fn reads_standard_input(config: &DataConfig) -> bool {
        let sources = config.sources.iter().flat_map(|source| &source.paths);
        let mut paths = config.paths.iter().chain(&config.validation_paths).chain(sources);
        paths.any(|path| standard_input(&path.to_string_lossy()).is_some())
    }

    /// What paths name.
    pub(crate) fn find(paths: &[PathBuf], exclude: &[String]) -> Result<Self, DataError> {
        let mut spooled = Vec::new();
        let files = expand(paths, exclude, &std::env::temp_dir(), &mut spooled)?;
        Self::new(files, false, spooled)
    }

    fn new(files: Vec<Found>, is_split: bool, spooled: Vec<tempfile::TempPath>) -> Result<Self, DataError> {
        let mut n_bytes = 0;
        for file in &files {
            n_bytes += fs_err::metadata(&file.path)?.len();
        }
        Ok(Self { files, n_bytes, is_split, _spooled: spooled })
    }
}

/// A file that is named twice, by different ways, is one.
fn place(file: &Found) -> PathBuf {
    std::fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone())
}

/// Every file that `paths` mean: a file itself, a folder's files (`.gitignore` is respected), a glob's matches, or standard input,
/// which is written to a file below `spool` since it is read more than once: `-`, or `-.jsonl` and the like where it is not one text.
fn expand(paths: &[PathBuf], exclude: &[String], spool: &Path, spooled: &mut Vec<tempfile::TempPath>) -> Result<Vec<Found>, DataError> {
    let mut found = Vec::new();
    for path in paths {
        let text = path.to_string_lossy();
        if let Some(suffix) = standard_input(&text) {
            let file = kept(&mut std::io::stdin().lock(), suffix, spool)?;
            found.push(Found::new(file.to_path_buf(), format!("stdin{suffix}"), true));
            spooled.push(file);
        } else if path.is_dir() {
            let files = walk(path, "", false, &[], exclude)?;
            if files.is_empty() {
                return Err(DataError::Empty(text.into_owned()));
            }
            found.extend(files);
        } else if !path.exists() && text.contains(['*', '?', '[', '{']) {
            found.extend(glob(path, &text, exclude)?);
        } else {
            let name = path.file_name().map_or_else(|| text.to_string(), |name| name.to_string_lossy().into_owned());
            let mut file = Found::new(path.clone(), name, true);
            // A pipe can be read once. Of what is not there, opening it later says so.
            if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
                // What its name says of its format stays.
                let suffix = file.name.find('.').map_or("", |at| &file.name[at..]);
                let pipe = kept(&mut fs_err::File::open(path)?, suffix, spool)?;
                file.path = pipe.to_path_buf();
                spooled.push(pipe);
            }
            found.push(file);
        }
    }
    found.sort_by_cached_key(place);
    found.dedup_by_key(|file| place(file));
    Ok(found)
}

/// The ending that a path gives standard input, if it means that.
fn standard_input(path: &str) -> Option<&str> {
    path.strip_prefix('-').filter(|suffix| suffix.is_empty() || suffix.starts_with('.'))
}

/// What can be read once, as a file, which is removed with what comes back.
fn kept(reader: &mut dyn std::io::Read, suffix: &str, spool: &Path) -> Result<tempfile::TempPath, DataError> {
    let context =
        |error: std::io::Error| std::io::Error::new(error.kind(), format!("cannot keep standard input in `{}`: {error}", spool.display()));
    fs_err::create_dir_all(spool)?;
    let mut file = tempfile::Builder::new().prefix(".stdin-").suffix(suffix).tempfile_in(spool).map_err(context)?;
    std::io::copy(reader, &mut file).map_err(context)?;
    Ok(file.into_temp_path())
}

/// Files below the longest part of the pattern that has no wildcard, as far as they match.
fn glob(path: &Path, pattern: &str, exclude: &[String]) -> Result<Vec<Found>, DataError> {
    let matcher = glob_set([pattern])?;
    let base: PathBuf = path.components().take_while(|part| !part.as_os_str().to_string_lossy().contains(['*', '?', '[', '{'])).collect();
    let base = if base.as_os_str().is_empty() { PathBuf::from(".") } else { base };
    if !base.is_dir() {
        return Err(DataError::NotFound(path.to_owned()));
    }
    let mut found = walk(&base, "", false, &[], exclude)?;
    found.retain(|file| matcher.is_match(file.path.strip_prefix("./").unwrap_or(&file.path)) || matcher.is_match(&file.path));
    if found.is_empty() {
        return Err(DataError::NotFound(path.to_owned()));
    }
    Ok(found)
}

/// The files below `root`, named `label/relative/path`; with `extensions`, only those.
pub(crate) fn walk(root: &Path, label: &str, is_package: bool, extensions: &[&str], exclude: &[String]) -> Result<Vec<Found>, DataError> {
    let exclude = glob_set(exclude.iter().map(String::as_str))?;
    let mut found = Vec::new();
    // A package's own ignore files do not concern what its author published.
    for entry in WalkBuilder::new(root).standard_filters(!is_package).build() {
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
            found.push(Found::new(path, name, false));
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
