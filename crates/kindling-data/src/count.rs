//! The texts of files for a tokenizer, to train it on or to try it: of many files a part is in memory at a time. Makes no shards.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use kindling_tokenizer::{PreTokenCounts, TokenizerError};

use crate::files::{self, Found};
use crate::read::{is_plain_text, read_documents};
use crate::{CorpusStats, DataError, ReadOptions};

/// About how much text is read at once. A larger file is read in parts.
const BATCH_BYTES: u64 = 64 << 20;

/// Adds every file that `paths` mean to `counts`: files, the files of folders, and what globs match, less what `exclude` matches.
/// Calls `progress(bytes_done, bytes_total)`. What comes back has no hash.
///
/// # Errors
/// [`DataError`] with the file and the place of the first problem.
pub fn count_files(
    paths: &[PathBuf],
    exclude: &[String],
    options: ReadOptions<'_>,
    counts: &mut PreTokenCounts,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CorpusStats, DataError> {
    let found = Files::find(paths, exclude)?;
    let mut stats = CorpusStats::default();
    found.for_each_batch(progress, &mut |files, bytes, progress| {
        if bytes > BATCH_BYTES && !options.lossy && is_plain_text(&files[0].path) {
            return count_large(&files[0], counts, &mut stats, progress);
        }
        let documents = read_documents(files, options, &mut stats)?;
        stats.n_documents += documents.len();
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        counts.add(&texts).map_err(|source| DataError::Tokenizer { place: "counting pre-tokens".into(), source })
    })?;
    stats.n_bytes = counts.n_bytes();
    check_not_empty(paths, &stats)?;
    Ok(stats)
}

/// Hands every text that `paths` mean to `f`, a batch of them at a time. Calls `progress(bytes_done, bytes_total)`.
///
/// # Errors
/// [`DataError`] with the file and the place of the first problem; a mistake that `f` finds.
pub fn for_each_text(
    paths: &[PathBuf],
    options: ReadOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
    f: &mut dyn FnMut(&[&str]) -> Result<(), TokenizerError>,
) -> Result<(), DataError> {
    let mut stats = CorpusStats::default();
    Files::find(paths, &[])?.for_each_batch(progress, &mut |files, _, _| {
        let documents = read_documents(files, options, &mut stats)?;
        stats.n_documents += documents.len();
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        f(&texts).map_err(|source| DataError::Tokenizer { place: "encoding".into(), source })
    })?;
    check_not_empty(paths, &stats)
}

fn check_not_empty(paths: &[PathBuf], stats: &CorpusStats) -> Result<(), DataError> {
    if stats.n_documents == 0 {
        let names = paths.iter().map(|path| path.display().to_string());
        return Err(DataError::Empty(names.collect::<Vec<_>>().join(", ")));
    }
    Ok(())
}

/// Files, and how large each is.
struct Files {
    files: Vec<Found>,
    sizes: Vec<u64>,
}

/// What is done with a batch of files and their size, and how it says what it has read.
type BatchFn<'a> = dyn FnMut(&[Found], u64, &mut dyn FnMut(u64)) -> Result<(), DataError> + 'a;

impl Files {
    fn find(paths: &[PathBuf], exclude: &[String]) -> Result<Self, DataError> {
        let files = files::expand(paths, exclude)?;
        let sizes = files.iter().map(|file| Ok(fs_err::metadata(&file.path)?.len())).collect::<Result<Vec<_>, DataError>>()?;
        Ok(Self { files, sizes })
    }

    /// Batches of about [`BATCH_BYTES`]; a file that is larger is one alone.
    fn for_each_batch(&self, progress: &mut dyn FnMut(u64, u64), f: &mut BatchFn<'_>) -> Result<(), DataError> {
        let total = self.sizes.iter().sum();
        let (mut done, mut start) = (0, 0);
        progress(0, total);
        while start < self.files.len() {
            let mut end = start + 1;
            let mut bytes = self.sizes[start];
            while end < self.files.len() && bytes + self.sizes[end] <= BATCH_BYTES {
                bytes += self.sizes[end];
                end += 1;
            }
            f(&self.files[start..end], bytes, &mut |read| progress(done + read, total))?;
            start = end;
            done += bytes;
            progress(done, total);
        }
        Ok(())
    }
}

/// A file that is larger than a batch, read in parts: once for what is no text, and once for the text.
fn count_large(file: &Found, counts: &mut PreTokenCounts, stats: &mut CorpusStats, progress: &mut dyn FnMut(u64)) -> Result<(), DataError> {
    if let Some(offset) = first_nul(&file.path)? {
        stats.binary_skipped += 1;
        return if file.explicit { Err(DataError::Binary { path: file.path.clone(), offset }) } else { Ok(()) };
    }
    stats.n_documents += 1;
    let mut opened = fs_err::File::open(&file.path)?;
    let mut head = [0; 3];
    // A byte-order mark is no part of the text.
    let has_bom = opened.read_exact(&mut head).is_ok() && head == *b"\xef\xbb\xbf";
    opened.seek(SeekFrom::Start(if has_bom { 3 } else { 0 }))?;
    let mut reader = Told { inner: opened, read: 0, progress };
    counts.add_reader(&mut reader).map_err(|source| match source {
        TokenizerError::Read { source, .. } => DataError::Io(source),
        source => DataError::Tokenizer { place: format!("`{}`", file.path.display()), source },
    })
}

/// Where the first NUL byte of a file is.
fn first_nul(path: &Path) -> Result<Option<usize>, DataError> {
    let mut reader = BufReader::with_capacity(1 << 20, fs_err::File::open(path)?);
    let mut before = 0;
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            return Ok(None);
        }
        if let Some(at) = block.iter().position(|&byte| byte == 0) {
            return Ok(Some(before + at));
        }
        let n = block.len();
        before += n;
        reader.consume(n);
    }
}

/// Says how much has been read.
struct Told<'a, R> {
    inner: R,
    read: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        (self.progress)(self.read);
        Ok(n)
    }
}
