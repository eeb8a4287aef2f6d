//! The texts of files for a tokenizer, to train it on or to try it: of many files a part is in memory at a time. Makes no shards.

use std::path::PathBuf;

use kindling_tokenizer::{PreTokenCounts, TokenizerError};

use crate::files::Files;
use crate::read::{for_each_batch, for_each_document_batch};
use crate::{CorpusStats, DataError, ReadOptions};

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
    let mut n_documents = 0;
    // Of a long document, what a safe cut has not reached yet, and whether it is over.
    let mut rest = String::new();
    progress(0, found.n_bytes);
    for_each_batch(&found.files, 0, options, &mut stats, &mut |batch| {
        let mut texts = Vec::with_capacity(batch.pieces.len());
        for piece in batch.pieces {
            n_documents += usize::from(piece.begins);
            let mut text = std::mem::take(&mut rest);
            text.push_str(&piece.text);
            if !piece.ends {
                rest = text.split_off(counts.pattern().last_safe_cut(text.as_bytes()).unwrap_or(0));
            }
            texts.push(text);
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        counts.add(&texts).map_err(|source| DataError::Tokenizer { place: "counting pre-tokens".into(), source })?;
        progress(batch.n_read, found.n_bytes);
        Ok(())
    })?;
    progress(found.n_bytes, found.n_bytes);
    (stats.n_documents, stats.n_bytes) = (n_documents, counts.n_bytes());
    check_not_empty(paths, &stats)?;
    Ok(stats)
}

/// Hands every text that `paths` mean to `f`, whole, a batch of them at a time. Calls `progress(bytes_done, bytes_total)`.
///
/// # Errors
/// [`DataError`] with the file and the place of the first problem; a mistake that `f` finds.
pub fn for_each_text(
    paths: &[PathBuf],
    options: ReadOptions<'_>,
    progress: &mut dyn FnMut(u64, u64),
    f: &mut dyn FnMut(&[&str]) -> Result<(), TokenizerError>,
) -> Result<(), DataError> {
    let found = Files::find(paths, &[])?;
    let mut stats = CorpusStats::default();
    progress(0, found.n_bytes);
    let mut n_documents = 0;
    for_each_document_batch(&found.files, options, &mut stats, &mut |documents, n_read| {
        n_documents += documents.len();
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        f(&texts).map_err(|source| DataError::Tokenizer { place: "encoding".into(), source })?;
        progress(n_read, found.n_bytes);
        Ok(())
    })?;
    progress(found.n_bytes, found.n_bytes);
    stats.n_documents = n_documents;
    check_not_empty(paths, &stats)
}

fn check_not_empty(paths: &[PathBuf], stats: &CorpusStats) -> Result<(), DataError> {
    if stats.n_documents == 0 {
        let names = paths.iter().map(|path| path.display().to_string());
        return Err(DataError::Empty(names.collect::<Vec<_>>().join(", ")));
    }
    Ok(())
}
