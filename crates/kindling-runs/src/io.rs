//! Writing so that nothing half-done ever stands under its final name.

use std::io::Write;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

/// Writes beside, syncs, renames.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let context = |error: std::io::Error| std::io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()));
    let mut temp = builder(".writing-", 0o666).tempfile_in(dir).map_err(context)?;
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
pub(crate) fn hash_file(path: &Path) -> std::io::Result<String> {
    Ok(format!("{:032x}", xxh3_128(&fs_err::read(path)?)))
}
