//! A token shard on disk: a header of 64 bytes, then token ids. Documented in `docs/formats.md`. Reads no text.

use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs_err::File;
use memmap2::Mmap;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{DataError, mmap};

/// Version of the shard format that this crate writes.
pub const SHARD_VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"KNDLSHRD";
const HEADER_LEN: usize = 64;
/// Where the header's own checksum stands; it covers everything before it.
const HEADER_SUM_AT: usize = 40;

/// Writes one shard. The file is only valid after [`ShardWriter::finish`], which writes the header and syncs.
pub struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    sum: Xxh3,
    width: u32,
    vocab_size: u64,
    n_tokens: u64,
}

impl ShardWriter {
    /// Begins a shard; ids are stored in two bytes where `vocab_size` allows it, else in four.
    ///
    /// # Errors
    /// I/O, with the path.
    pub fn create(path: &Path, vocab_size: usize) -> Result<Self, DataError> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&[0; HEADER_LEN])?;
        let width = width(vocab_size);
        Ok(Self { path: path.to_owned(), file, sum: Xxh3::new(), width, vocab_size: vocab_size as u64, n_tokens: 0 })
    }

    /// Appends ids.
    ///
    /// # Errors
    /// I/O, with the path.
    ///
    /// # Panics
    /// If an id is not below `vocab_size`: a tokenizer never yields one.
    pub fn write(&mut self, ids: &[u32]) -> Result<(), DataError> {
        self.append(&packed(ids, self.vocab_size as usize))
    }

    /// Appends ids that are [packed] for this vocabulary.
    pub(crate) fn append(&mut self, packed: &[u8]) -> Result<(), DataError> {
        self.sum.update(packed);
        self.file.write_all(packed)?;
        self.n_tokens += (packed.len() / self.width as usize) as u64;
        Ok(())
    }

    pub(crate) fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// Writes the header, syncs, and gives back the number of tokens and the checksum of the payload.
    ///
    /// # Errors
    /// I/O, with the path.
    pub fn finish(self) -> Result<(u64, u64), DataError> {
        let (n_tokens, sum, file) = self.finish_unsynced()?;
        file.sync_all()?;
        Ok((n_tokens, sum))
    }

    /// As [`finish`](Self::finish), but leaves it to the caller to sync the file.
    pub(crate) fn finish_unsynced(mut self) -> Result<(u64, u64, File), DataError> {
        let sum = self.sum.digest();
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&SHARD_VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.width.to_le_bytes());
        header[16..24].copy_from_slice(&self.n_tokens.to_le_bytes());
        header[24..32].copy_from_slice(&self.vocab_size.to_le_bytes());
        header[32..40].copy_from_slice(&sum.to_le_bytes());
        let header_sum = xxh3_64(&header[..HEADER_SUM_AT]);
        header[HEADER_SUM_AT..48].copy_from_slice(&header_sum.to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header)?;
        let file = self.file.into_inner().map_err(|error| with_path(error.into_error(), &self.path))?;
        Ok((self.n_tokens, sum, file))
    }
}

/// Bytes that an id takes.
fn width(vocab_size: usize) -> u32 {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

/// Ids as they stand in a shard.
///
/// # Panics
/// If an id is not below `vocab_size`: a tokenizer never yields one.
pub(crate) fn packed(ids: &[u32], vocab_size: usize) -> Vec<u8> {
    let largest = ids.iter().copied().max().unwrap_or(0);
    assert!((largest as usize) < vocab_size || ids.is_empty(), "token id {largest} is below the vocabulary size {vocab_size}");
    if width(vocab_size) == 2 {
        ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect()
    } else {
        ids.iter().flat_map(|id| id.to_le_bytes()).collect()
    }
}

fn with_path(error: std::io::Error, path: &Path) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("cannot write `{}`: {error}", path.display()))
}

/// A shard mapped into memory, its checksums verified.
#[derive(Debug)]
pub(crate) struct Shard {
    map: Mmap,
    width: usize,
    pub(crate) n_tokens: u64,
    pub(crate) vocab_size: u64,
    pub(crate) sum: u64,
}

impl Shard {
    /// Maps a shard and verifies header, length and payload.
    pub(crate) fn open(path: &Path) -> Result<Self, DataError> {
        let damaged = |what, found: String, expected: String| DataError::Damaged { path: path.to_owned(), what, found, expected };
        let map = if fs_err::metadata(path)?.len() < HEADER_LEN as u64 {
            return Err(damaged("the length", format!("{} bytes", fs_err::metadata(path)?.len()), format!("at least {HEADER_LEN}")));
        } else {
            mmap::map(path)?
        };
        let u32_at = |at: usize| u32::from_le_bytes(map[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(map[at..at + 8].try_into().expect("eight bytes"));
        if &map[..8] != MAGIC {
            return Err(damaged("the magic number", format!("{:?}", String::from_utf8_lossy(&map[..8])), "`KNDLSHRD`".into()));
        }
        if u32_at(8) != SHARD_VERSION {
            return Err(DataError::Version { path: path.to_owned(), found: u32_at(8).to_string(), expected: SHARD_VERSION });
        }
        let header_sum = xxh3_64(&map[..HEADER_SUM_AT]);
        if u64_at(HEADER_SUM_AT) != header_sum {
            return Err(damaged("the header checksum", format!("{:016x}", u64_at(HEADER_SUM_AT)), format!("{header_sum:016x}")));
        }
        let (width, n_tokens, vocab_size, sum) = (u32_at(12) as usize, u64_at(16), u64_at(24), u64_at(32));
        if !matches!(width, 2 | 4) {
            return Err(damaged("the width of an id", format!("{width} bytes"), "2 or 4".into()));
        }
        let expected = HEADER_LEN as u64 + n_tokens.saturating_mul(width as u64);
        if map.len() as u64 != expected {
            return Err(damaged("the length", format!("{} bytes", map.len()), format!("{expected}")));
        }
        let payload = payload_sum(path)?;
        if payload != sum {
            return Err(damaged("the checksum", format!("{payload:016x}"), format!("{sum:016x}")));
        }
        Ok(Self { map, width, n_tokens, vocab_size, sum })
    }

    /// Appends the tokens of `[start, end)` to `out`.
    pub(crate) fn read(&self, start: u64, end: u64, out: &mut Vec<u32>) {
        let at = |token: u64| HEADER_LEN + token as usize * self.width;
        let bytes = &self.map[at(start)..at(end)];
        if self.width == 2 {
            out.extend(bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))));
        } else {
            out.extend(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
    }
}

/// The checksum of what stands behind the header, read block by block: what is read through the map counts as memory of the process.
fn payload_sum(path: &Path) -> Result<u64, DataError> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(HEADER_LEN as u64))?;
    let (mut sum, mut block) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(sum.digest()),
            n => sum.update(&block[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn written(vocab_size: usize, ids: &[u32]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let mut writer = ShardWriter::create(&path, vocab_size).unwrap();
        let (head, tail) = ids.split_at(ids.len() / 2);
        writer.write(head).unwrap();
        writer.write(tail).unwrap();
        writer.finish().unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_written_is_read_in_both_widths() {
        for vocab_size in [1 << 16, (1 << 16) + 1] {
            let ids: Vec<u32> = (0..1000).map(|i| (i * 7919) % vocab_size as u32).collect();
            let (_dir, path) = written(vocab_size, &ids);
            let shard = Shard::open(&path).unwrap();
            let mut out = Vec::new();
            shard.read(0, shard.n_tokens, &mut out);
            assert_eq!((out, shard.vocab_size), (ids.clone(), vocab_size as u64));
            let mut part = Vec::new();
            shard.read(10, 20, &mut part);
            assert_eq!(part, ids[10..20]);
        }
    }

    #[test]
    fn every_edited_byte_and_every_truncation_is_noticed() {
        let (_dir, path) = written(300, &(0..40).collect::<Vec<_>>());
        let good = fs_err::read(&path).unwrap();
        // The reserved end of the header, bytes 48 to 64, carries no meaning in this version.
        for at in (0..48).chain(64..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs_err::write(&path, &bad).unwrap();
            assert!(matches!(Shard::open(&path), Err(DataError::Damaged { .. } | DataError::Version { .. })), "byte {at}");
        }
        for len in 0..good.len() {
            fs_err::write(&path, &good[..len]).unwrap();
            assert!(matches!(Shard::open(&path), Err(DataError::Damaged { .. })), "length {len}");
        }
    }
}
