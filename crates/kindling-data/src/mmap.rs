//! The one place of this crate with `unsafe`: mapping a file into memory, read-only.
#![allow(unsafe_code, reason = "a memory map is unsafe by nature; the reason it is sound here stands at the call")]

use std::path::Path;

use memmap2::Mmap;

use crate::DataError;

/// Maps `path` into memory.
pub(crate) fn map(path: &Path) -> Result<Mmap, DataError> {
    let file = fs_err::File::open(path)?;
    // SAFETY: the map is read-only and private to this process. Shards are written beside, renamed into place and
    // never changed afterwards, so no part of Kindling modifies or truncates a mapped file. Another program that
    // does breaks its own files; the bytes are only ever read as plain integers, for which every value is valid.
    unsafe { Mmap::map(file.file()) }
        .map_err(|error| std::io::Error::new(error.kind(), format!("cannot map `{}`: {error}", path.display())).into())
}
