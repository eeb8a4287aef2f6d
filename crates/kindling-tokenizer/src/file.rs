//! Puts a text file in place as a whole or not at all. Knows nothing of what is in it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::TokenizerError;

/// Reads a whole file of text.
pub(crate) fn read(path: &Path) -> Result<String, TokenizerError> {
    fs::read_to_string(path).map_err(|source| TokenizerError::Io { action: "read", path: path.to_owned(), source })
}

/// Writes beside, syncs, renames: a reader sees the old file or the new one, also after a crash.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), TokenizerError> {
    replace(path, text).map_err(|source| TokenizerError::Io { action: "write", path: path.to_owned(), source })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tokenizer-").suffix(".tmp");
    // A temporary file is private by default; this one becomes an ordinary file, under the user's umask.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut beside = builder.tempfile_in(folder)?;
    beside.write_all(text.as_bytes())?;
    beside.as_file().sync_all()?;
    beside.persist(path)?;
    // The rename itself is in the folder.
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}
