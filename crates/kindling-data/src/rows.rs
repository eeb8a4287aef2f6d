//! The rows of a task, whole and in memory: those that a model is tested with, and those that it is compared by. Makes no tokens.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use kindling_config::DataConfig;
use serde_json::{Map, Value};

use crate::examples::{Fields, Templates, prompt_hash};
use crate::files::Files;
use crate::read::{for_each_batch, json_object};
use crate::scan::is_held_out;
use crate::words::{Runs, for_each_word};
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

/// The rows of one file, whatever they mean, and how many were left out because they are bad; `columns` names the fields of a table
/// without names.
///
/// # Errors
/// A file or row that cannot be read, unless bad rows are left out.
pub fn read_plain_rows(path: &Path, columns: &[String], lossy: bool, skip_bad: bool) -> Result<(Vec<PlainRow>, usize), DataError> {
    let options = ReadOptions { lossy, skip_bad, columns, whole_rows: true, ..ReadOptions::texts("") };
    let files = Files::find(&[path.to_owned()], &[])?;
    let (mut rows, mut n_bad, mut stats) = (Vec::new(), 0, CorpusStats::default());
    for_each_batch(&files.files, options, &mut stats, &mut |batch| {
        for piece in batch.pieces {
            match json_object(&piece.text) {
                Ok(fields) => rows.push(PlainRow { place: format!("{}, line {}", path.display(), piece.row), fields }),
                Err(_) if skip_bad => n_bad += 1,
                Err(message) => return Err(DataError::Row { path: path.to_owned(), line: piece.row, message }),
            }
        }
        Ok(())
    })?;
    Ok((rows, n_bad + stats.bad_rows_skipped))
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
            let place = format!("{}, line {}", path.display(), piece.row);
            let read = json_object(&piece.text).and_then(|fields: Map<String, Value>| {
                if !wanted(&templates.document(&fields)?) {
                    return Ok(Vec::new());
                }
                if let Some((field, _)) = templates.turns_of(&fields).filter(|_| which == RowsOf::Test) {
                    return Err(format!("field `{field}` asks several things; a row of a test asks one, so give a test its own files"));
                }
                let row = |fields: Cow<'_, Map<String, Value>>| {
                    let (prompt, target) = templates.pair(&fields)?;
                    Ok(TestRow { place: place.clone(), fields: fields.into_owned(), prompt, target })
                };
                templates.turns(&fields)?.into_iter().map(row).collect()
            });
            match read {
                Ok(rows) => found.rows.extend(rows),
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

/// Runs of words that a test shares with training: what may be known by heart.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RowOverlap {
    /// Words of a run.
    pub n: usize,
    /// Test rows that have as many words in their fields together.
    pub n_rows: usize,
    /// Of those, rows with a run that stands in a training row too.
    pub n_shared: usize,
    /// Share of the runs of the test that stand in training rows.
    pub share: f64,
}

/// How many runs of `n` words in `fields` of the rows of a test stand in training rows too; words are those of an
/// [`audit`](crate::audit()). What a template says beside them stands in all rows, and counts in none.
pub fn overlap(training: &[TestRow], rows: &[TestRow], fields: &Fields, n: usize) -> RowOverlap {
    let runs_of = |row: &TestRow| {
        let (mut runs, mut found) = (Runs::new(n), Vec::new());
        for (_, value) in row.fields.iter().filter(|(name, _)| fields.has(name)) {
            let texts = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for text in texts.iter().filter_map(Value::as_str) {
                for_each_word(text, |word, _| found.extend(runs.push(word)));
            }
        }
        found
    };
    let known: HashSet<u64> = training.iter().flat_map(runs_of).collect();
    let mut found = RowOverlap { n, n_rows: 0, n_shared: 0, share: 0.0 };
    let (mut all, mut shared) = (0usize, 0usize);
    for runs in rows.iter().map(runs_of) {
        let of_row = runs.iter().filter(|run| known.contains(run)).count();
        found.n_rows += usize::from(!runs.is_empty());
        found.n_shared += usize::from(of_row > 0);
        (shared, all) = (shared + of_row, all + runs.len());
    }
    found.share = shared as f64 / all.max(1) as f64;
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn runs_of_words_are_shared_whatever_their_case() {
        let config = kindling_config::ExamplesConfig {
            prompt: "words that stand in each row: {{ p }}".into(),
            completion: "{{ t }}".into(),
            ..Default::default()
        };
        let templates = Templates::new(&config).unwrap();
        let row = |prompt: &str, target: &str| {
            let fields = serde_json::json!({ "p": prompt, "t": target, "id": "a field that no template has" });
            let fields = fields.as_object().unwrap().clone();
            let (prompt, target) = templates.pair(&fields).unwrap();
            TestRow { place: String::new(), fields, prompt, target }
        };
        let training = [row("One two, three four!", "five")];
        let rows = [row("so ONE two three four", "five six"), row("two three", "four"), row("one two three", "five four")];
        let found = overlap(&training, &rows, &templates.fields(), 4);
        // The first has four runs of four words, of which two are known; the second is too short; of the third none of two.
        assert_eq!((found.n_rows, found.n_shared), (2, 1));
        assert!((found.share - 2.0 / 6.0).abs() < 1e-12, "{found:?}");
    }
}
