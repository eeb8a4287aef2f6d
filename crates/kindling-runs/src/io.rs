//! Writing so that nothing half-done ever stands under its final name.

use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use crate::RunsError;

/// What the names of files and folders begin with as long as they are being written.
pub(crate) const UNFINISHED: &str = ".writing-";

/// Writes beside, syncs, renames.
///
/// # Errors
/// I/O; what stood there before stays.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = |error: std::io::Error| std::io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()));
    let mut temp = builder(UNFINISHED, 0o666).tempfile_in(dir).map_err(context)?;
    temp.write_all(bytes).and_then(|()| temp.as_file().sync_all()).map_err(context)?;
    temp.persist(path).map_err(|error| context(error.error))?;
    sync_dir(dir)
}

/// A folder beside the final place, removed by itself unless it is renamed there.
pub(crate) fn temp_dir(parent: &Path, prefix: &str) -> std::io::Result<tempfile::TempDir> {
    let context = |error: std::io::Error| std::io::Error::new(error.kind(), format!("cannot write into `{}`: {error}", parent.display()));
    builder(prefix, 0o777).tempdir_in(parent).map_err(context)
}

/// Temporary files are private by default; these become ordinary ones, under the user's umask.
fn builder(prefix: &str, mode: u32) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Makes a rename in `dir` durable, where the platform can sync folders.
pub(crate) fn sync_dir(dir: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs_err::File::open(dir)?.sync_all() } else { Ok(()) }
}

/// XXH3-128 of a file, in hexadecimal.
///
/// # Errors
/// I/O.
pub fn hash_file(path: &Path) -> std::io::Result<String> {
    Ok(format!("{:032x}", xxh3_128(&fs_err::read(path)?)))
}

/// Reads a JSON document.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, RunsError> {
    serde_json::from_slice(&fs_err::read(path)?).map_err(|error| not_json(path, &error))
}

/// Reads a JSON document that says its `format` and `version`, from 1 to `newest`, which are looked at before anything else: a
/// later version may have keys that this one does not know.
pub(crate) fn read_versioned<T: DeserializeOwned>(path: &Path, format: &'static str, newest: u32) -> Result<T, RunsError> {
    let value: Value = read_json(path)?;
    if value["format"] != format {
        let found = value["format"].to_string();
        return Err(RunsError::Damaged { path: path.to_owned(), what: "the format", found, expected: format!("\"{format}\"") });
    }
    if !value["version"].as_u64().is_some_and(|version| (1..=u64::from(newest)).contains(&version)) {
        return Err(RunsError::Version { path: path.to_owned(), found: value["version"].to_string(), newest });
    }
    T::deserialize(value).map_err(|error| not_json(path, &error))
}

fn not_json(path: &Path, error: &serde_json::Error) -> RunsError {
    let (found, expected) = (error.to_string(), "what this version writes".into());
    RunsError::Damaged { path: path.to_owned(), what: "the JSON", found, expected }
}
