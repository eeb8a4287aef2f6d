//! The rows of a task, whole and in memory: those that a model is tested with, and those that it is compared by. Makes no tokens.

use std::path::Path;

use kindling_config::DataConfig;
use serde_json::{Map, Value};

use crate::examples::{Templates, prompt_hash};
use crate::files::Files;
use crate::read::{for_each_batch, json_object};
use crate::scan::is_held_out;
use crate::{CorpusStats, DataError, ReadOptions};

/// A row, whatever it means.
#[derive(Clone, Debug, PartialEq)]
pub struct PlainRow {
    /// The file and the line, or the row of a Parquet file; or what else messages call it.
    pub place: String,
    /// All its fields.
    pub fields: Map<String, Value>,
}

/// A row with what its templates make of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TestRow {
    /// The file and the line, or the row of a Parquet file.
    pub place: String,
    /// All its fields.
    pub fields: Map<String, Value>,
    /// What is given.
    pub prompt: String,
    /// What is to be said.
    pub target: String,
}

/// Which rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOf {
    /// What no training sees.
    Test,
    /// All others, those that validate among them.
    Training,
}

/// Rows, and how many could not be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestRows {
    /// In the order of the files.
    pub rows: Vec<TestRow>,
    /// Rows that were left out because they are bad.
    pub n_bad: usize,
}

/// The rows of one file, whatever they mean; `columns` names the fields of a table without names.
///
/// # Errors
/// A file or row that cannot be read, unless bad rows are left out.
pub fn read_plain_rows(path: &Path, columns: &[String], lossy: bool, skip_bad: bool) -> Result<Vec<PlainRow>, DataError> {
    let options = ReadOptions { lossy, skip_bad, columns, whole_rows: true, ..ReadOptions::texts("") };
    let files = Files::find(&[path.to_owned()], &[])?;
    let mut rows = Vec::new();
    for_each_batch(&files.files, options, &mut CorpusStats::default(), &mut |batch| {
        for piece in batch.pieces {
            match json_object(&piece.text) {
                Ok(fields) => rows.push(PlainRow { place: format!("{}, line {}", path.display(), piece.row), fields }),
                Err(_) if skip_bad => {}
                Err(message) => return Err(DataError::Row { path: path.to_owned(), line: piece.row, message }),
            }
        }
        Ok(())
    })?;
    Ok(rows)
}

/// Reads rows of the examples that `config` names. Rows of a test are those of its own files, or a share of the prompts of all. What has to
/// be written to a file before it is read is put below `spool`.
///
/// # Errors
/// A file or row that cannot be read, unless bad rows are left out; a test without a row.
pub fn read_rows(config: &DataConfig, which: RowsOf, spool: &Path) -> Result<TestRows, DataError> {
    let has_files = !config.test_paths.is_empty();
    let files = Files::of_rows(config, if has_files && which == RowsOf::Test { &config.test_paths } else { &config.paths }, spool)?;
    let Some(examples) = &config.examples else { return Ok(TestRows::default()) };
    let templates = Templates::new(examples)?;
    let wanted = |document: &str| has_files || is_held_out(prompt_hash(document), config.test_fraction) == (which == RowsOf::Test);
    let options = ReadOptions { examples: None, whole_rows: true, ..ReadOptions::from(config) };
    let mut stats = CorpusStats::default();
    let mut found = TestRows::default();
    for_each_batch(&files.files, options, &mut stats, &mut |batch| {
        for piece in batch.pieces {
            let path = files.files[piece.file].told();
            let read = json_object(&piece.text).and_then(|fields: Map<String, Value>| {
                let document = templates.document(&fields)?;
                let (prompt, target) = templates.pair(&fields)?;
                Ok(wanted(&document).then_some((fields, prompt, target)))
            });
            match read {
                Ok(Some((fields, prompt, target))) => {
                    found.rows.push(TestRow { place: format!("{}, line {}", path.display(), piece.row), fields, prompt, target });
                }
                Ok(None) => {}
                Err(_) if config.skip_bad => found.n_bad += 1,
                Err(message) => return Err(DataError::Row { path, line: piece.row, message }),
            }
        }
        Ok(())
    })?;
    found.n_bad += stats.bad_rows_skipped;
    if found.rows.is_empty() && which == RowsOf::Test {
        let names = files.files.iter().map(|file| file.told().display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(DataError::NoTestRows(names));
    }
    Ok(found)
}
