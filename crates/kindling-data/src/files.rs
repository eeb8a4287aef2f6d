//! Paths, folders and globs to files. Knows nothing of packages or tokens, and reads nothing but standard input.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;
use kindling_config::DataConfig;

use crate::block::has_rows;
use crate::{DataError, aligned, packages};

/// A file that holds documents.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// As messages call it, where that is not its path.
    pub(crate) told: Option<PathBuf>,
    /// A name that does not depend on the machine: a path relative to the folder or package.
    pub(crate) name: String,
    /// Named by the user himself, so that a binary file is an error and not left out.
    pub(crate) explicit: bool,
    /// One text, whatever it is called.
    pub(crate) is_text: bool,
    /// Held out for validation by its place.
    pub(crate) validates: bool,
    /// Held out of training and validation.
    pub(crate) tests: bool,
    /// Which of the sources it is of.
    pub(crate) source: usize,
}

impl Found {
    pub(crate) fn new(path: PathBuf, name: String, explicit: bool) -> Self {
        Self { path, told: None, name, explicit, is_text: false, validates: false, tests: false, source: 0 }
    }

    /// The path that a user knows it by.
    pub(crate) fn told(&self) -> PathBuf {
        self.told.as_ref().unwrap_or(&self.path).clone()
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
        let mut expansion =
            Expansion { exclude: &config.exclude, spool, aligned: config.examples.is_some(), lossy: config.lossy, spooled: Vec::new() };
        let mut find = |paths: &[PathBuf]| expansion.expand(paths);
        let mut tests = find(&config.test_paths)?;
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
        if !tests.is_empty() {
            let tested: std::collections::HashSet<PathBuf> = tests.iter().map(place).collect();
            let names = || files.iter().map(|file| format!("`{}`", file.told().display())).collect::<Vec<_>>().join(", ");
            if !files.is_empty() && files.iter().all(|file| tested.contains(&place(file))) {
                return Err(DataError::AllTested(names()));
            }
            files.retain(|file| !tested.contains(&place(file)));
            held_out.retain(|file| !tested.contains(&place(file)));
            tests.iter_mut().for_each(|file| (file.tests, file.source) = (true, config.sources.len()));
        }
        files.sort_by(|a, b| (a.source, &a.name).cmp(&(b.source, &b.name)));
        held_out.sort_by(|a, b| a.name.cmp(&b.name));
        tests.sort_by(|a, b| a.name.cmp(&b.name));
        // First, so that of two documents that are the same the one that is held out stays.
        files.splice(..0, tests.into_iter().chain(held_out));
        Self::new(files, is_split, expansion.spooled)
    }

    /// The files of some paths, whose rows are examples.
    pub(crate) fn of_rows(config: &DataConfig, paths: &[PathBuf], spool: &Path) -> Result<Self, DataError> {
        let mut expansion = Expansion { exclude: &config.exclude, spool, aligned: true, lossy: config.lossy, spooled: Vec::new() };
        let files = expansion.expand(paths)?;
        Self::new(files, false, expansion.spooled)
    }

    /// Whether a configuration names standard input.
    pub(crate) fn reads_standard_input(config: &DataConfig) -> bool {
        let sources = config.sources.iter().flat_map(|source| &source.paths);
        let mut paths = config.paths.iter().chain(&config.validation_paths).chain(&config.test_paths).chain(sources);
        paths.any(|path| standard_input(&path.to_string_lossy()).is_some())
    }

    /// What paths name.
    pub(crate) fn find(paths: &[PathBuf], exclude: &[String]) -> Result<Self, DataError> {
        let mut expansion = Expansion { exclude, spool: &std::env::temp_dir(), aligned: false, lossy: false, spooled: Vec::new() };
        let files = expansion.expand(paths)?;
        Self::new(files, false, expansion.spooled)
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

/// How paths become files.
struct Expansion<'a> {
    exclude: &'a [String],
    /// A folder for what has to be written to a file before it is read.
    spool: &'a Path,
    /// Whether `{a,b}` names fields of rows, and not two files.
    aligned: bool,
    lossy: bool,
    spooled: Vec<tempfile::TempPath>,
}

impl Expansion<'_> {
    /// Every file that `paths` mean: a file itself, a folder's files (`.gitignore` is respected), a glob's matches, files whose lines
    /// belong together, or standard input: `-`, or `-.jsonl` and the like where it is not one text. The last two are written to a file,
    /// since they are read more than once.
    fn expand(&mut self, paths: &[PathBuf]) -> Result<Vec<Found>, DataError> {
        let mut found = Vec::new();
        for path in paths {
            let text = path.to_string_lossy();
            if let Some(suffix) = standard_input(&text) {
                let file = self.keep(&mut std::io::stdin().lock(), suffix)?;
                found.push(Found::new(file, format!("stdin{suffix}"), true));
            } else if path.is_dir() {
                let files = walk(path, "", false, &[], self.exclude)?;
                if files.is_empty() {
                    return Err(DataError::Empty(text.into_owned()));
                }
                found.extend(files);
            } else if let Some(files) = aligned::files_of(path).filter(|files| self.is_aligned(path, files)) {
                let mut file = self.spool_file(".jsonl")?;
                {
                    let mut out = std::io::BufWriter::new(&mut file);
                    aligned::join(&files, self.lossy, &mut out)?;
                    std::io::Write::flush(&mut out)?;
                }
                let name = path.file_name().map_or_else(|| text.to_string(), |name| name.to_string_lossy().into_owned());
                found.push(Found { told: Some(path.clone()), ..Found::new(self.kept(file), name, true) });
            } else if !path.exists() && text.contains(['*', '?', '[', '{']) {
                found.extend(glob(path, &text, self.exclude)?);
            } else {
                let name = path.file_name().map_or_else(|| text.to_string(), |name| name.to_string_lossy().into_owned());
                let mut file = Found::new(path.clone(), name, true);
                // A pipe can be read once. Of what is not there, opening it later says so.
                if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
                    // What its name says of its format stays.
                    let suffix = file.name.find('.').map_or("", |at| &file.name[at..]);
                    file.path = self.keep(&mut fs_err::File::open(path)?, suffix)?;
                }
                found.push(file);
            }
        }
        found.sort_by_cached_key(place);
        found.dedup_by_key(|file| place(file));
        Ok(found)
    }

    /// Whether a path with `{a,b}` means fields of rows: of files that have rows themselves it is a glob.
    fn is_aligned(&self, path: &Path, files: &[(String, PathBuf)]) -> bool {
        self.aligned && !path.exists() && !files.iter().any(|(_, file)| has_rows(file))
    }

    /// What can be read once, as a file, which is removed with the files that are found.
    fn keep(&mut self, reader: &mut dyn std::io::Read, suffix: &str) -> Result<PathBuf, DataError> {
        let mut file = self.spool_file(suffix)?;
        std::io::copy(reader, &mut file).map_err(|error| cannot_keep(self.spool, &error))?;
        Ok(self.kept(file))
    }

    fn spool_file(&self, suffix: &str) -> Result<tempfile::NamedTempFile, DataError> {
        fs_err::create_dir_all(self.spool)?;
        let file = tempfile::Builder::new().prefix(".stdin-").suffix(suffix).tempfile_in(self.spool);
        Ok(file.map_err(|error| cannot_keep(self.spool, &error))?)
    }

    fn kept(&mut self, file: tempfile::NamedTempFile) -> PathBuf {
        let path = file.into_temp_path();
        self.spooled.push(path);
        self.spooled.last().expect("it was put there").to_path_buf()
    }
}

fn cannot_keep(spool: &Path, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("cannot keep what is read in `{}`: {error}", spool.display()))
}

/// The ending that a path gives standard input, if it means that.
fn standard_input(path: &str) -> Option<&str> {
    path.strip_prefix('-').filter(|suffix| suffix.is_empty() || suffix.starts_with('.'))
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
