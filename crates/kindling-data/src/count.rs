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
    // Of the document, bytes that may still be counted.
    let most = counts.max_document_bytes().unwrap_or(usize::MAX);
    let mut left = most;
    progress(0, found.n_bytes);
    for_each_batch(&found.files, options, &mut stats, &mut |batch| {
        let mut texts = Vec::with_capacity(batch.pieces.len());
        for piece in batch.pieces {
            n_documents += usize::from(piece.begins);
            left = if piece.begins { most } else { left };
            let n_counted = piece.text.floor_char_boundary(left);
            left -= if n_counted < piece.text.len() { left } else { n_counted };
            let mut text = std::mem::take(&mut rest);
            text.push_str(&piece.text[..n_counted]);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use kindling_tokenizer::SplitPattern;

    use super::*;

    #[test]
    fn of_a_long_file_as_much_is_counted_as_of_a_short_one() {
        let dir = tempfile::tempdir().unwrap();
        let options = ReadOptions::texts("text");
        for n_lines in [100, 300_000] {
            let path = dir.path().join("a.txt");
            fs_err::write(&path, "größer as a line\n".repeat(n_lines)).unwrap();
            for max in [0, 4, 1000, 1_700_000] {
                let mut counts = PreTokenCounts::new(SplitPattern::Gpt2).with_max_document_bytes(Some(max));
                let stats = count_files(std::slice::from_ref(&path), &[], options, &mut counts, &mut |_, _| {}).unwrap();
                let most = max.min(19 * n_lines) as u64;
                assert!((most.saturating_sub(1)..=most).contains(&stats.n_bytes), "{} of {most}, {n_lines} lines", stats.n_bytes);
            }
        }
    }
}
