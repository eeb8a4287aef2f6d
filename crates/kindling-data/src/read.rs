//! Files to documents: plain text, JSON lines, CSV, TSV and Parquet, plain or compressed. Looks for no files and splits nothing.
//!
//! What a file is follows from its name: `.jsonl` (also `.ndjson`), `.csv`, `.tsv` and `.parquet` hold a document a row, in the
//! field that the user names; with `.gz` or `.zst` behind they are unpacked first; everything else is one document.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use kindling_config::DataConfig;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use rayon::prelude::*;
use serde_json::value::RawValue;

use crate::files::Found;
use crate::{CorpusStats, DataError, Document};

/// How files are read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// The field of a row that is its text.
    pub text_field: &'a str,
    /// Leave rows out that cannot be read, and count them.
    pub skip_bad: bool,
    /// Replace invalid UTF-8 by U+FFFD.
    pub lossy: bool,
}

impl<'a> From<&'a DataConfig> for ReadOptions<'a> {
    fn from(config: &'a DataConfig) -> Self {
        Self { text_field: &config.text_field, skip_bad: config.skip_bad, lossy: config.lossy }
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// One document.
    Text,
    JsonLines,
    /// With this byte between fields.
    Separated(u8),
    Parquet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

fn format_of(path: &Path) -> (Format, Packing) {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Packing::Gzip),
        Some((stem, "zst")) => (stem, Packing::Zstd),
        _ => (&*name, Packing::Plain),
    };
    let format = match stem.rsplit_once('.') {
        Some((_, "jsonl" | "ndjson")) => Format::JsonLines,
        Some((_, "csv")) => Format::Separated(b','),
        Some((_, "tsv")) => Format::Separated(b'\t'),
        Some((_, "parquet")) => Format::Parquet,
        _ => Format::Text,
    };
    (format, packing)
}

/// Whether a file is one document as it lies there, so that it can be read in parts.
pub(crate) fn is_plain_text(path: &Path) -> bool {
    format_of(path) == (Format::Text, Packing::Plain)
}

/// The documents of all the files in their order, read on all threads; counts in `stats` what is left out.
///
/// # Errors
/// [`DataError`] of the first file that has one.
pub(crate) fn read_documents(files: &[Found], options: ReadOptions<'_>, stats: &mut CorpusStats) -> Result<Vec<Document>, DataError> {
    let read: Vec<Result<_, DataError>> = files
        .par_iter()
        .map(|file| {
            let (mut documents, mut stats) = (Vec::new(), CorpusStats::default());
            for_each_document(file, options, &mut stats, &mut |document| documents.push(document))?;
            Ok((documents, stats))
        })
        .collect();
    let mut documents = Vec::with_capacity(files.len());
    for read in read {
        let (of_file, stats_of_file) = read?;
        documents.extend(of_file);
        stats.left_out(&stats_of_file);
    }
    Ok(documents)
}

/// The documents of a file in its order, each handed to `f`; counts in `stats` what is left out. Rows are named after the file
/// and their place in it, from 1, so that the order of names is theirs.
///
/// # Errors
/// [`DataError`] with the file, and the line or row.
fn for_each_document(
    file: &Found,
    options: ReadOptions<'_>,
    stats: &mut CorpusStats,
    f: &mut dyn FnMut(Document),
) -> Result<(), DataError> {
    let (format, packing) = format_of(&file.path);
    let mut rows = Rows { file, options, stats, f, row: 0, n_kept: 0, replaced: false };
    match format {
        Format::Text => return rows.whole(open(&file.path, packing)?),
        Format::JsonLines => rows.json_lines(open(&file.path, packing)?)?,
        Format::Separated(byte) => rows.separated(open(&file.path, packing)?, byte)?,
        Format::Parquet => rows.parquet(packing)?,
    }
    if rows.n_kept == 0 && file.explicit {
        return Err(DataError::Empty(file.path.display().to_string()));
    }
    Ok(())
}

/// Reads one file that the user named as one text, whatever it is called; a byte-order mark is dropped, and with `lossy` invalid
/// bytes are replaced by U+FFFD.
///
/// # Errors
/// A file that is unreadable, empty, binary or not UTF-8.
pub fn read_document(path: &Path, lossy: bool) -> Result<String, DataError> {
    let file = Found { path: path.to_owned(), name: String::new(), package: None, explicit: true };
    let options = ReadOptions { text_field: "", skip_bad: false, lossy };
    let (mut text, mut stats) = (String::new(), CorpusStats::default());
    let mut rows =
        Rows { file: &file, options, stats: &mut stats, f: &mut |document| text = document.text, row: 0, n_kept: 0, replaced: false };
    rows.whole(open(path, format_of(path).1)?)?;
    Ok(text)
}

fn open(path: &Path, packing: Packing) -> Result<Box<dyn BufRead>, DataError> {
    let file = BufReader::with_capacity(1 << 16, fs_err::File::open(path)?);
    Ok(match packing {
        Packing::Plain => Box::new(file),
        // One after the other, as `cat` and parallel packers leave them.
        Packing::Gzip => Box::new(BufReader::with_capacity(1 << 16, flate2::bufread::MultiGzDecoder::new(file))),
        Packing::Zstd => {
            Box::new(BufReader::with_capacity(1 << 16, zstd::stream::read::Decoder::with_buffer(file).map_err(|e| packed(path, &e))?))
        }
    })
}

/// An error of unpacking names no file by itself.
fn packed(path: &Path, error: &std::io::Error) -> DataError {
    DataError::Packed { path: path.to_owned(), message: error.to_string() }
}

/// A file that is being read.
struct Rows<'a> {
    file: &'a Found,
    options: ReadOptions<'a>,
    stats: &'a mut CorpusStats,
    f: &'a mut dyn FnMut(Document),
    /// Rows so far.
    row: u64,
    n_kept: u64,
    /// Whether bytes of it were replaced.
    replaced: bool,
}

impl Rows<'_> {
    /// The file as one document. A byte-order mark is dropped.
    fn whole(&mut self, mut reader: Box<dyn BufRead>) -> Result<(), DataError> {
        let path = &self.file.path;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(|error| self.read_error(&error))?;
        // Offsets are told as the file has them.
        let bom = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let bytes = if bom > 0 { bytes[bom..].to_vec() } else { bytes };
        if bytes.is_empty() {
            self.stats.empty_skipped += 1;
            return if self.file.explicit { Err(DataError::Empty(path.display().to_string())) } else { Ok(()) };
        }
        if let Some(offset) = bytes.iter().position(|byte| *byte == 0) {
            self.stats.binary_skipped += 1;
            return if self.file.explicit { Err(DataError::Binary { path: path.clone(), offset: offset + bom }) } else { Ok(()) };
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if self.options.lossy => {
                self.stats.lossy_files += 1;
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            }
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                let bytes = error.as_bytes();
                let line = 1 + bytes[..offset].iter().filter(|byte| **byte == b'\n').count();
                return Err(DataError::Utf8 { path: path.clone(), line, offset: offset + bom, byte: bytes[offset] });
            }
        };
        (self.f)(Document { name: self.file.name.clone(), package: self.file.package.clone(), text });
        Ok(())
    }

    fn json_lines(&mut self, mut reader: Box<dyn BufRead>) -> Result<(), DataError> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            if reader.read_until(b'\n', &mut line).map_err(|error| self.read_error(&error))? == 0 {
                break;
            }
            let line = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.note(line);
            let text = json_text(line, self.options);
            self.take(number, text)?;
        }
        Ok(())
    }

    fn separated(&mut self, reader: Box<dyn BufRead>, byte: u8) -> Result<(), DataError> {
        let n_quotes = Cell::new(0u64);
        // Tab-separated values know no quotes (IANA, text/tab-separated-values): one in a text must not swallow lines.
        let mut reader =
            csv::ReaderBuilder::new().delimiter(byte).quoting(byte != b'\t').from_reader(Quotes { inner: reader, n: &n_quotes });
        let headers = reader.byte_headers().map_err(|error| self.csv_error(&error))?;
        let names: Vec<String> = headers.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        let first = headers.clone();
        let wanted = self.options.text_field;
        // A byte-order mark belongs to no name.
        let named = names.iter().position(|name| name.trim_start_matches('\u{feff}') == wanted);
        let column = match (named, wanted.parse::<usize>()) {
            // A number is a column of a table without names, also where the first row holds that number: it is a document too.
            (_, Ok(number)) if (1..=names.len()).contains(&number) => {
                let field = first[number - 1].strip_prefix(b"\xef\xbb\xbf").unwrap_or(&first[number - 1]);
                self.note(field);
                let text = utf8(field, self.options.lossy);
                self.take(1, text.map(Cow::into_owned))?;
                number - 1
            }
            (Some(column), _) => column,
            _ if names.is_empty() => return Ok(()),
            _ => return Err(self.no_field(&names)),
        };
        let (mut record, mut last_line) = (csv::ByteRecord::new(), 1);
        loop {
            match reader.read_byte_record(&mut record) {
                // What stands behind a quote that nothing closes is taken for one field, to the end of the file.
                Ok(false) if byte != b'\t' && n_quotes.get() % 2 == 1 => {
                    let message = "a quoted field is not closed: the file has an odd number of quotes".to_owned();
                    return Err(DataError::Row { path: self.file.path.clone(), line: last_line, message });
                }
                Ok(false) => return Ok(()),
                Ok(true) => {
                    let line = record.position().map_or(0, csv::Position::line);
                    last_line = line;
                    let field = record.get(column).unwrap_or_default();
                    self.note(field);
                    let text = utf8(field, self.options.lossy).map(Cow::into_owned);
                    self.take(line, text)?;
                }
                // Of a ragged row it is not known which field is which.
                Err(error) if matches!(error.kind(), csv::ErrorKind::UnequalLengths { .. }) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    let message = match error.kind() {
                        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!("{len} fields, expected {expected_len}"),
                        _ => error.to_string(),
                    };
                    self.take(line, Err(message))?;
                }
                Err(error) => return Err(self.csv_error(&error)),
            }
        }
    }

    fn parquet(&mut self, packing: Packing) -> Result<(), DataError> {
        let path = self.file.path.clone();
        let broken = |message: String| DataError::Packed { path: path.clone(), message };
        if packing != Packing::Plain {
            return Err(broken("a Parquet file is compressed within, expected none around it".into()));
        }
        let file = std::fs::File::open(&path)
            .map_err(|error| std::io::Error::new(error.kind(), format!("cannot open `{}`: {error}", path.display())))?;
        let reader = SerializedFileReader::new(file).map_err(|error| broken(error.to_string()))?;
        let schema = reader.metadata().file_metadata().schema().clone();
        let names: Vec<String> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        let Some(column) = schema.get_fields().iter().find(|field| field.name() == self.options.text_field) else {
            return Err(self.no_field(&names));
        };
        if !column.is_primitive() || column.get_physical_type() != parquet::basic::Type::BYTE_ARRAY {
            return Err(broken(format!("the field `{}` holds no texts", self.options.text_field)));
        }
        // That column alone is read.
        let projection = parquet::schema::types::Type::group_type_builder(schema.name()).with_fields(vec![column.clone()]).build();
        let rows = projection.and_then(|projection| reader.get_row_iter(Some(projection))).map_err(|error| broken(error.to_string()))?;
        for row in rows {
            let row = row.map_err(|error| broken(error.to_string()))?;
            let text = match row.get_string(0) {
                Ok(text) => Ok(text.clone()),
                Err(_) => match row.get_bytes(0) {
                    Ok(bytes) => {
                        self.note(bytes.data());
                        utf8(bytes.data(), self.options.lossy).map(Cow::into_owned)
                    }
                    Err(_) => Err(format!("field `{}` is `null`, expected a text", self.options.text_field)),
                },
            };
            let number = self.row + 1;
            self.take(number, text)?;
        }
        Ok(())
    }

    /// Notes whether bytes of a row will be replaced.
    fn note(&mut self, bytes: &[u8]) {
        if self.options.lossy && !self.replaced && str::from_utf8(bytes).is_err() {
            self.replaced = true;
            self.stats.lossy_files += 1;
        }
    }

    /// A row's text, or what is wrong with it; `line` is where it stands, or its number where rows have no lines.
    fn take(&mut self, line: u64, text: Result<String, String>) -> Result<(), DataError> {
        self.row += 1;
        match text {
            Ok(text) if text.is_empty() => self.stats.empty_skipped += 1,
            Ok(text) => {
                self.n_kept += 1;
                let name = format!("{}#{:09}", self.file.name, self.row);
                (self.f)(Document { name, package: self.file.package.clone(), text });
            }
            Err(_) if self.options.skip_bad => self.stats.bad_rows_skipped += 1,
            Err(message) => return Err(DataError::Row { path: self.file.path.clone(), line, message }),
        }
        Ok(())
    }

    fn no_field(&self, names: &[String]) -> DataError {
        DataError::NoField { path: self.file.path.clone(), field: self.options.text_field.to_owned(), found: names.join(", ") }
    }

    fn read_error(&self, error: &std::io::Error) -> DataError {
        packed(&self.file.path, error)
    }

    fn csv_error(&self, error: &csv::Error) -> DataError {
        DataError::Packed { path: self.file.path.clone(), message: error.to_string() }
    }
}

/// Counts the quotes that pass.
struct Quotes<'a, R> {
    inner: R,
    n: &'a Cell<u64>,
}

impl<R: Read> Read for Quotes<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.n.set(self.n.get() + buffer[..n].iter().filter(|&&byte| byte == b'"').count() as u64);
        Ok(n)
    }
}

/// The text of a line of JSON.
fn json_text(line: &[u8], options: ReadOptions<'_>) -> Result<String, String> {
    let line = utf8(line, options.lossy)?;
    // Only the field that is wanted is looked into.
    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(&line).map_err(|error| {
        let message = error.to_string();
        format!("not an object of JSON: {}", message.split(" at line").next().unwrap_or(&message))
    })?;
    let Some(value) = fields.get(options.text_field) else {
        let mut names: Vec<&str> = fields.keys().map(|name| &**name).collect();
        names.sort_unstable();
        return Err(format!("no field `{}`, found {}", options.text_field, shortened(&names.join(", "))));
    };
    serde_json::from_str(value.get()).map_err(|_| format!("field `{}` is {}, expected a text", options.text_field, shortened(value.get())))
}

fn utf8(bytes: &[u8], lossy: bool) -> Result<Cow<'_, str>, String> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) if lossy => Ok(String::from_utf8_lossy(bytes)),
        Err(error) => Err(format!("byte {} of the row is not UTF-8", error.valid_up_to() + 1)),
    }
}

/// As a message shows it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("`{}…`", &text[..cut]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    const OPTIONS: ReadOptions<'_> = ReadOptions { text_field: "text", skip_bad: false, lossy: false };

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn parquet_file(column: &str, texts: &[Option<&str>]) -> Vec<u8> {
        use parquet::data_type::{ByteArray, ByteArrayType};
        let schema = format!("message rows {{ required int32 id; optional binary {column} (UTF8); }}");
        let schema = Arc::new(parquet::schema::parser::parse_message_type(&schema).unwrap());
        let mut bytes = Vec::new();
        let mut writer = parquet::file::writer::SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<i32> = (0..texts.len() as i32).collect();
        let mut ids_column = group.next_column().unwrap().unwrap();
        ids_column.typed::<parquet::data_type::Int32Type>().write_batch(&ids, None, None).unwrap();
        ids_column.close().unwrap();
        let levels: Vec<i16> = texts.iter().map(|text| i16::from(text.is_some())).collect();
        let values: Vec<ByteArray> = texts.iter().flatten().map(|text| ByteArray::from(*text)).collect();
        let mut text_column = group.next_column().unwrap().unwrap();
        text_column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        text_column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    fn read(name: &str, bytes: &[u8], options: ReadOptions<'_>) -> (Result<Vec<String>, DataError>, CorpusStats) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        let file = Found { path, name: name.into(), package: None, explicit: true };
        let (mut texts, mut stats) = (Vec::new(), CorpusStats::default());
        let result = for_each_document(&file, options, &mut stats, &mut |document| texts.push(document.text));
        (result.map(|()| texts), stats)
    }

    #[test]
    fn every_format_gives_its_documents_packed_or_not() {
        let check = |name: &str, bytes: &[u8], expected: &[&str]| {
            assert_eq!(read(name, bytes, OPTIONS).0.unwrap(), expected, "{name}");
            if name.ends_with(".parquet") {
                return;
            }
            assert_eq!(read(&format!("{name}.gz"), &gzip(bytes), OPTIONS).0.unwrap(), expected, "{name}.gz");
            let twice = [gzip(&bytes[..bytes.len() / 2]), gzip(&bytes[bytes.len() / 2..])].concat();
            assert_eq!(read(&format!("{name}.gz"), &twice, OPTIONS).0.unwrap(), expected, "{name}.gz of two parts");
            let packed = zstd::encode_all(bytes, 1).unwrap();
            assert_eq!(read(&format!("{name}.zst"), &packed, OPTIONS).0.unwrap(), expected, "{name}.zst");
        };
        check("a.txt", b"one\ntwo\n", &["one\ntwo\n"]);
        check("README", b"\xef\xbb\xbfone", &["one"]);
        check("a.jsonl", "{\"id\":1,\"text\":\"o\\nne\"}\n\n  {\"text\":\"é\\u00e9\",\"x\":[{}]}\r\n".as_bytes(), &["o\nne", "éé"]);
        check("a.NDJSON", b"\xef\xbb\xbf{\"text\":\"no line end\"}", &["no line end"]);
        check("a.csv", b"id,text\n1,one\n2,\"t\"\"w\"\"o,\nlines\"\n", &["one", "t\"w\"o,\nlines"]);
        check("a.tsv", b"\xef\xbb\xbftext\tid\r\none, two\t1\r\n\"three\t2\nfour\"\t3\n", &["one, two", "\"three", "four\""]);
        check("a.parquet", &parquet_file("text", &[Some("one"), Some("zwei"), Some("")]), &["one", "zwei"]);
    }

    #[test]
    fn rows_are_named_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        fs_err::write(&path, "{\"text\":\"a\"}\n{\"text\":\"\"}\n{\"text\":\"b\"}\n").unwrap();
        let file = Found { path, name: "sub/a.jsonl".into(), package: None, explicit: false };
        let (mut names, mut stats) = (Vec::new(), CorpusStats::default());
        for_each_document(&file, OPTIONS, &mut stats, &mut |document| names.push(document.name)).unwrap();
        assert_eq!(names, ["sub/a.jsonl#000000001", "sub/a.jsonl#000000003"]);
        assert_eq!(stats.empty_skipped, 1);
    }

    #[test]
    fn another_field_can_be_the_text() {
        let numbered = ReadOptions { text_field: "2", ..OPTIONS };
        assert_eq!(read("a.csv", b"a,b\nc,d\n", numbered).0.unwrap(), ["b", "d"]);
        assert_eq!(read("a.tsv", b"a text\t2\nc\t2\n", ReadOptions { text_field: "1", ..OPTIONS }).0.unwrap(), ["a text", "c"]);
        assert_eq!(read("a.tsv", b"2\tb\nc\td\n", numbered).0.unwrap(), ["b", "d"], "it is no name");
        assert!(matches!(read("a.csv", b"a\nb\n", numbered).0, Err(DataError::NoField { .. })));
        let options = ReadOptions { text_field: "content", ..OPTIONS };
        assert_eq!(read("a.jsonl", b"{\"text\":\"no\",\"content\":\"yes\"}", options).0.unwrap(), ["yes"]);
        assert_eq!(read("a.csv", b"text,content\nno,yes\n", options).0.unwrap(), ["yes"]);
        assert_eq!(read("a.parquet", &parquet_file("content", &[Some("yes")]), options).0.unwrap(), ["yes"]);
    }

    #[test]
    fn a_bad_row_is_told_with_its_line_or_skipped_and_counted() {
        let good = "{\"text\":\"a\"}\n";
        let check = |name: &str, bytes: &[u8], message: &str, kept: &[&str]| {
            let error = read(name, bytes, OPTIONS).0.unwrap_err();
            assert!(error.to_string().ends_with(message), "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(error.hint().is_some());
            let (texts, stats) = read(name, bytes, ReadOptions { skip_bad: true, ..OPTIONS });
            assert_eq!((texts.unwrap(), stats.bad_rows_skipped), (kept.iter().map(|&text| text.to_owned()).collect(), 1), "{name}");
        };
        let line = |bad: &str| format!("{good}\n{bad}\n{good}").into_bytes();
        check("a.jsonl", &line("{\"txt\":1}"), "line 3: no field `text`, found `txt`", &["a", "a"]);
        check("a.jsonl", &line("{\"text\":[1]}"), "line 3: field `text` is `[1]`, expected a text", &["a", "a"]);
        check("a.jsonl", &line("{\"text\":"), "line 3: not an object of JSON: EOF while parsing a value", &["a", "a"]);
        check("a.jsonl", &line("[1]"), "line 3: not an object of JSON: invalid type: sequence, expected a map", &["a", "a"]);
        let latin = [good.as_bytes(), b"{\"text\":\"\xe9\"}\n", good.as_bytes()].concat();
        check("a.jsonl", &latin, "line 2: byte 10 of the row is not UTF-8", &["a", "a"]);
        check("a.csv", b"id,text\n1,a\n2\n3,b\n", "line 3: 1 fields, expected 2", &["a", "b"]);
        check("a.csv", b"id,text\n1,\xe9\n3,b\n", "line 2: byte 1 of the row is not UTF-8", &["b"]);
        check("a.parquet", &parquet_file("text", &[Some("a"), None]), "line 2: field `text` is `null`, expected a text", &["a"]);
    }

    #[test]
    fn what_is_no_such_file_is_refused_also_when_bad_rows_are_skipped() {
        let check = |name: &str, bytes: &[u8], message: &str| {
            for skip_bad in [false, true] {
                let error = read(name, bytes, ReadOptions { skip_bad, ..OPTIONS }).0.unwrap_err();
                assert!(error.to_string().contains(message), "{name}: {error}");
                assert!(error.to_string().contains(name), "{error}");
                assert!(error.hint().is_some());
            }
        };
        check("a.csv", b"id,content\n1,a\n", "has no field `text`, found id, content");
        check("a.parquet", &parquet_file("content", &[Some("a")]), "has no field `text`, found id, content");
        check("a.csv", b"id,text\n1,a\n2,\"open\n3,b\n", "line 3: a quoted field is not closed");
        check("a.parquet", &parquet_file("content", &[Some("a")]), "no field");
        check("a.parquet", b"PAR1 is not enough", "cannot be read");
        check("a.parquet.gz", b"", "cannot be read");
        let packed = gzip(&b"{\"text\":\"a\"}\n".repeat(1000));
        check("a.jsonl.gz", &packed[..packed.len() / 2], "cannot be read");
        check("a.txt.gz", b"plain", "cannot be read");
        let mut edited = gzip(&b"some text".repeat(1000));
        let at = edited.len() - 6;
        edited[at] ^= 1;
        check("a.txt.gz", &edited, "cannot be read");
        check("a.txt.zst", b"plain", "cannot be read");
        check("a.jsonl", b"", "holds no text");
        check("a.csv", b"", "holds no text");
        check("a.csv", b"text\n", "holds no text");
    }

    #[test]
    fn invalid_utf8_is_replaced_if_that_is_asked_for() {
        let options = ReadOptions { lossy: true, ..OPTIONS };
        assert_eq!(read("a.jsonl", b"{\"text\":\"\xe9\"}\n", options).0.unwrap(), ["\u{fffd}"]);
        let (texts, stats) = read("a.csv", b"text\n\xe9\n\xe9\n", options);
        assert_eq!((texts.unwrap(), stats.lossy_files), (vec!["\u{fffd}".to_owned(); 2], 1));
        let (texts, stats) = read("a.txt", b"a\xe9", options);
        assert_eq!((texts.unwrap(), stats.lossy_files), (vec!["a\u{fffd}".to_owned()], 1));
    }

    /// Seeded, for what panics must do so again.
    #[test]
    fn files_with_random_mistakes_are_errors_and_never_panics() {
        let rows = b"{\"id\":1,\"text\":\"a\\u00e9\"}\n{\"text\":\"b\",\"x\":[1,{}]}\n".repeat(4);
        let table = b"id,text\n1,\"a \"\"quoted\"\"\nb\"\n2,c\n".repeat(3);
        let files: Vec<(&str, Vec<u8>)> = vec![
            ("a.jsonl", rows.clone()),
            ("a.csv", table),
            ("a.txt", b"some text\xc3\xa9\n".repeat(3)),
            ("a.jsonl.gz", gzip(&rows)),
            ("a.jsonl.zst", zstd::encode_all(&rows[..], 1).unwrap()),
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            // Xorshift (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let folder = tempfile::tempdir().unwrap();
        let mut n_errors = 0;
        for round in 0..3000 {
            let (name, good) = &files[round % files.len()];
            let mut bytes = good.clone();
            for _ in 0..=next(3) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] = next(256) as u8,
                    1 => bytes[at] ^= 1 << next(8),
                    2 => bytes.insert(at, b"\"{},\n\0\xff[\\"[next(9)]),
                    _ => drop(bytes.drain(at..(at + 1 + next(8)).min(bytes.len() - 1).max(at))),
                }
            }
            let path = folder.path().join(name);
            fs_err::write(&path, &bytes).unwrap();
            let file = Found { path, name: (*name).into(), package: None, explicit: true };
            let mut stats = CorpusStats::default();
            let result = for_each_document(&file, OPTIONS, &mut stats, &mut |_| {});
            let options = ReadOptions { skip_bad: true, lossy: true, ..OPTIONS };
            let lax = for_each_document(&file, options, &mut stats, &mut |_| {});
            assert!(result.is_err() || lax.is_ok(), "what can be read can be read with less care");
            if let Err(error) = result {
                n_errors += 1;
                assert!(error.to_string().contains(name) && error.hint().is_some(), "{error}");
            }
        }
        assert!((300..2900).contains(&n_errors), "{n_errors}");
    }
}
