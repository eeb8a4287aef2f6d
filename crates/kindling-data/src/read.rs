//! Files to pieces of documents: plain text, JSON lines, CSV, TSV and Parquet, plain or compressed, block by block. Looks for no
//! files and splits nothing.
//!
//! What a file is follows from its name: `.jsonl` (also `.ndjson`), `.csv`, `.tsv` and `.parquet` hold a document a row, in the
//! field that the user names; with `.gz` or `.zst` behind they are unpacked first; everything else is one document.
//!
//! One thread reads [blocks](Block); all threads together turn them into [pieces](Piece), which come in the order of the files.
//! How files are cut into pieces follows from the files alone.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc;

use kindling_config::{DataConfig, ExamplesConfig};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::block::{Block, Content, Row, open, read_blocks};
use crate::examples::Templates;
use crate::files::Found;
use crate::{CorpusStats, DataError};

/// About how much is read before it is handed over.
const BATCH_BYTES: usize = 16 << 20;
/// Small files among it at most.
const BATCH_BLOCKS: usize = 4096;

/// How files are read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions<'a> {
    /// The field of a row that is its text.
    pub text_field: &'a str,
    /// Leave out rows that cannot be read, and what stands behind the damage of a packed file, and count both.
    pub skip_bad: bool,
    /// Replace invalid UTF-8 by U+FFFD.
    pub lossy: bool,
    /// Rows are examples, made by these templates, and not texts.
    pub examples: Option<&'a ExamplesConfig>,
    /// Names of the fields of tables whose first line is a row.
    pub columns: &'a [String],
    /// Rows come as lines of JSON, with all their fields.
    pub(crate) whole_rows: bool,
}

impl<'a> ReadOptions<'a> {
    /// Of texts, in this field of rows.
    pub fn texts(text_field: &'a str) -> Self {
        Self { text_field, skip_bad: false, lossy: false, examples: None, columns: &[], whole_rows: false }
    }

    /// Whether a row is more than a text.
    pub(crate) fn has_rows(&self) -> bool {
        self.whole_rows || self.examples.is_some()
    }
}

impl<'a> From<&'a DataConfig> for ReadOptions<'a> {
    fn from(config: &'a DataConfig) -> Self {
        let DataConfig { text_field, skip_bad, lossy, examples, columns, .. } = config;
        Self { skip_bad: *skip_bad, lossy: *lossy, examples: examples.as_ref(), columns, ..Self::texts(text_field) }
    }
}

/// A stretch of a document: all of it, unless it is a long file. It ends behind a line feed if it can, else behind a character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Which of the files.
    pub(crate) file: usize,
    /// Which row of it, from 1; 0 where the file is one document. Of JSON lines the line.
    pub(crate) row: u64,
    pub(crate) text: String,
    /// Whether the document begins here.
    pub(crate) begins: bool,
    /// Whether it ends here.
    pub(crate) ends: bool,
}

/// What a document is called: the file, and the row where it has rows.
pub(crate) fn name(file: &Found, row: u64) -> String {
    if row == 0 { file.name.clone() } else { format!("{}#{row:09}", file.name) }
}

/// Pieces, and how many bytes of the files have been read by then.
pub(crate) struct Batch {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) n_read: u64,
}

/// Hands over what the files hold, a batch at a time; counts in `stats` what is left out.
///
/// # Errors
/// [`DataError`] with the file, and the line or row, of the first mistake; or the first one of `f`.
pub(crate) fn for_each_batch(
    files: &[Found],
    options: ReadOptions<'_>,
    stats: &mut CorpusStats,
    f: &mut dyn FnMut(Batch) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut decoding = Decoding { files, options, stats, n_kept: 0, replaced_in: None };
    std::thread::scope(|scope| {
        // A thread of its own, and not one of rayon's pool, which may be as small as the thread that waits here.
        let (sender, receiver) = mpsc::sync_channel::<(Vec<Block>, u64)>(2);
        let reader = scope.spawn(move || {
            let (mut blocks, mut n_bytes) = (Vec::new(), 0);
            let result = read_blocks(files, options, &mut |block, n_read| {
                n_bytes += block.content.n_bytes();
                blocks.push(block);
                if n_bytes < BATCH_BYTES && blocks.len() < BATCH_BLOCKS {
                    return true;
                }
                n_bytes = 0;
                sender.send((std::mem::take(&mut blocks), n_read)).is_ok()
            });
            // What came before a mistake is looked at first: an earlier mistake may be in it.
            let n_read = *result.as_ref().unwrap_or(&0);
            let _ = sender.send((blocks, n_read));
            result
        });
        for (blocks, n_read) in receiver {
            f(Batch { pieces: decoding.decode(blocks)?, n_read })?;
        }
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|_| ())
    })
}

/// The documents that files hold, whole, in batches of about 16 MB or one long document.
///
/// # Errors
/// As [`for_each_batch`].
pub(crate) fn for_each_document_batch(
    files: &[Found],
    options: ReadOptions<'_>,
    stats: &mut CorpusStats,
    f: &mut dyn FnMut(Vec<Piece>, u64) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let mut unfinished: Option<Piece> = None;
    for_each_batch(files, options, stats, &mut |batch| {
        let mut whole = Vec::with_capacity(batch.pieces.len());
        for piece in batch.pieces {
            let document = match unfinished.take() {
                Some(mut document) => {
                    document.text.push_str(&piece.text);
                    Piece { ends: piece.ends, ..document }
                }
                None => piece,
            };
            if document.ends {
                whole.push(document);
            } else {
                unfinished = Some(document);
            }
        }
        f(whole, batch.n_read)
    })
}

/// Reads one file that the user named as one text, whatever it is called; a byte-order mark is dropped, and with `lossy` invalid
/// bytes are replaced by U+FFFD.
///
/// # Errors
/// A file that is unreadable, empty, binary or not UTF-8.
pub fn read_document(path: &Path, lossy: bool) -> Result<String, DataError> {
    let files = [Found { is_text: true, ..Found::new(path.to_owned(), String::new(), true) }];
    let options = ReadOptions { lossy, ..ReadOptions::texts("") };
    let mut text = String::new();
    for_each_batch(&files, options, &mut CorpusStats::default(), &mut |batch| {
        batch.pieces.iter().for_each(|piece| text.push_str(&piece.text));
        Ok(())
    })?;
    Ok(text)
}

/// What goes on from block to block.
struct Decoding<'a> {
    files: &'a [Found],
    options: ReadOptions<'a>,
    stats: &'a mut CorpusStats,
    /// Documents of the file that is being read.
    n_kept: u64,
    /// The last file in which bytes were replaced.
    replaced_in: Option<usize>,
}

/// What came of a block.
#[derive(Default)]
struct Decoded {
    pieces: Vec<Piece>,
    n_empty: usize,
    n_bad: usize,
    /// Whether bytes were replaced.
    replaced: bool,
}

impl Decoding<'_> {
    fn decode(&mut self, blocks: Vec<Block>) -> Result<Vec<Piece>, DataError> {
        let (files, options) = (self.files, self.options);
        let decoded: Vec<_> = blocks
            .into_par_iter()
            .map(|block| {
                let (file, content) = (block.file, block.content);
                let end = match content {
                    Content::End { binary, ref damage } => Some((binary, damage.clone())),
                    _ => None,
                };
                (file, end, decode(&files[file], file, content, options))
            })
            .collect();
        let mut pieces = Vec::new();
        for (file, end, decoded) in decoded {
            let decoded = decoded?;
            self.stats.empty_skipped += decoded.n_empty;
            self.stats.bad_rows_skipped += decoded.n_bad;
            if decoded.replaced && self.replaced_in != Some(file) {
                self.replaced_in = Some(file);
                self.stats.lossy_files += 1;
            }
            self.n_kept += decoded.pieces.iter().filter(|piece| piece.begins).count() as u64;
            pieces.extend(decoded.pieces);
            if let Some((binary, damage)) = end {
                self.stats.binary_skipped += usize::from(binary);
                self.stats.damaged_skipped += usize::from(damage.is_some());
                if std::mem::take(&mut self.n_kept) == 0 && files[file].explicit {
                    let path = files[file].told();
                    return Err(match damage {
                        Some(message) => DataError::Packed { path, message },
                        None => DataError::Empty(path.display().to_string()),
                    });
                }
            }
        }
        Ok(pieces)
    }
}

/// The pieces of a block of the file numbered `number`.
fn decode(file: &Found, number: usize, content: Content, options: ReadOptions<'_>) -> Result<Decoded, DataError> {
    let mut decoded = Decoded::default();
    let templates = options.examples.map(Templates::new).transpose()?;
    // What is read of a row: its text, or as an example all of it.
    let of_line = |line: &str| match &templates {
        Some(templates) => json_object(line).and_then(|row| templates.document(&row)),
        None if options.whole_rows => Ok(line.to_owned()),
        None => json_text(line, options.text_field),
    };
    match content {
        Content::Text { bytes, begins, ends, offset } => {
            let text = match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) if options.lossy => {
                    decoded.replaced = true;
                    String::from_utf8_lossy(error.as_bytes()).into_owned()
                }
                Err(error) => {
                    let at = error.utf8_error().valid_up_to();
                    let offset = offset + at as u64;
                    return Err(DataError::Utf8 { path: file.told(), line: line_of(file, offset)?, offset, byte: error.as_bytes()[at] });
                }
            };
            decoded.pieces.push(Piece { file: number, row: 0, text, begins, ends });
        }
        Content::Empty => decoded.n_empty += 1,
        Content::Lines { bytes, first } => {
            let bytes = if first == 1 { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { &bytes };
            for (line, place) in bytes.split(|&byte| byte == b'\n').zip(first..) {
                if !line.iter().all(u8::is_ascii_whitespace) {
                    let text = utf8(line, options.lossy, &mut decoded.replaced).and_then(|line| of_line(&line));
                    decoded.take(file, number, place, place, text, options)?;
                }
            }
        }
        Content::Rows(rows) => {
            for Row { row, line, text } in rows {
                let text = text.and_then(|bytes| match String::from_utf8(bytes) {
                    Ok(text) => Ok(text),
                    Err(error) => utf8(error.as_bytes(), options.lossy, &mut decoded.replaced).map(Cow::into_owned),
                });
                // All fields of a row of a table come as a line of JSON.
                let text = if options.has_rows() { text.and_then(|line| of_line(&line)) } else { text };
                decoded.take(file, number, row, line, text, options)?;
            }
        }
        Content::End { .. } => {}
    }
    Ok(decoded)
}

impl Decoded {
    /// A row's text, or what is wrong with it; `line` is where it stands, or its number where rows have no lines.
    fn take(
        &mut self,
        file: &Found,
        number: usize,
        row: u64,
        line: u64,
        text: Result<String, String>,
        options: ReadOptions<'_>,
    ) -> Result<(), DataError> {
        match text {
            Ok(text) if text.is_empty() => self.n_empty += 1,
            Ok(text) => self.pieces.push(Piece { file: number, row, text, begins: true, ends: true }),
            Err(_) if options.skip_bad => self.n_bad += 1,
            Err(message) => return Err(DataError::Row { path: file.told(), line, message }),
        }
        Ok(())
    }
}

/// The line in which a byte of a text file stands, from 1.
fn line_of(file: &Found, offset: u64) -> Result<usize, DataError> {
    let mut reader = open(file)?;
    let (mut line, mut left) = (1, offset);
    loop {
        let block = std::io::BufRead::fill_buf(&mut reader)?;
        let n = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if n == 0 {
            return Ok(line);
        }
        line += block[..n].iter().filter(|&&byte| byte == b'\n').count();
        std::io::BufRead::consume(&mut reader, n);
        left -= n as u64;
    }
}

/// A line as an object of JSON.
pub(crate) fn json_object<'l, T: Deserialize<'l>>(line: &'l str) -> Result<T, String> {
    serde_json::from_str(line).map_err(|error| {
        let message = error.to_string();
        format!("not an object of JSON: {}", message.split(" at line").next().unwrap_or(&message))
    })
}

/// The text of a line of JSON.
fn json_text(line: &str, field: &str) -> Result<String, String> {
    // Only the field that is wanted is looked into.
    let fields: HashMap<Cow<'_, str>, &RawValue> = json_object(line)?;
    let Some(value) = fields.get(field) else {
        let mut names: Vec<&str> = fields.keys().map(|name| &**name).collect();
        names.sort_unstable();
        return Err(format!("no field `{field}`, found {}", shortened(&names.join(", "))));
    };
    serde_json::from_str(value.get()).map_err(|_| format!("field `{field}` is {}, expected a text", shortened(value.get())))
}

fn utf8<'b>(bytes: &'b [u8], lossy: bool, replaced: &mut bool) -> Result<Cow<'b, str>, String> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) if lossy => {
            *replaced = true;
            Ok(String::from_utf8_lossy(bytes))
        }
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

    const OPTIONS: ReadOptions<'_> =
        ReadOptions { text_field: "text", skip_bad: false, lossy: false, examples: None, columns: &[], whole_rows: false };

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
        let mut stats = CorpusStats::default();
        let documents = documents(&[Found::new(path, name.into(), true)], options, &mut stats);
        (documents.map(|documents| documents.into_iter().map(|document| document.text).collect()), stats)
    }

    fn documents(files: &[Found], options: ReadOptions<'_>, stats: &mut CorpusStats) -> Result<Vec<Piece>, DataError> {
        let mut documents = Vec::new();
        for_each_document_batch(files, options, stats, &mut |batch, _| {
            documents.extend(batch);
            Ok(())
        })?;
        Ok(documents)
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
        let files = [Found::new(path, "sub/a.jsonl".into(), false)];
        let mut stats = CorpusStats::default();
        let names: Vec<String> =
            documents(&files, OPTIONS, &mut stats).unwrap().iter().map(|piece| name(&files[piece.file], piece.row)).collect();
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
        check("a.txt.gz", b"plain", "cannot be read");
        check("a.txt.zst", b"plain", "cannot be read");
        check("a.jsonl", b"", "holds no text");
        check("a.csv", b"", "holds no text");
        check("a.csv", b"text\n", "holds no text");
    }

    #[test]
    fn what_stands_before_the_damage_of_a_packed_file_is_kept_if_that_is_asked_for() {
        let skipping = ReadOptions { skip_bad: true, ..OPTIONS };
        let rows: Vec<u8> = (0..40_000).flat_map(|i| format!("{{\"text\":\"row {i} of {}\"}}\n", i * i % 977).into_bytes()).collect();
        for (name, bytes) in [("a.jsonl.gz", gzip(&rows)), ("a.jsonl.zst", zstd::encode_all(&rows[..], 1).unwrap())] {
            let cut = &bytes[..bytes.len() / 2];
            let error = read(name, cut, OPTIONS).0.unwrap_err();
            assert!(matches!(&error, DataError::Packed { .. }) && error.hint().is_some_and(|hint| hint.contains("--skip-bad")), "{error}");
            let (texts, stats) = read(name, cut, skipping);
            let texts = texts.unwrap();
            assert!((5_000..35_000).contains(&texts.len()), "{name}: {}", texts.len());
            assert!(texts.iter().enumerate().all(|(i, text)| *text == format!("row {i} of {}", i * i % 977)), "no row is cut");
            assert_eq!((stats.damaged_skipped, stats.bad_rows_skipped), (1, 0));
        }
        // Behind the beginning of a character.
        let text: String = (0..20_000u32).filter_map(|i| char::from_u32(0x4e00 + i * i % 20_011)).collect();
        let whole = gzip(text.as_bytes());
        for len in whole.len() / 2..whole.len() / 2 + 40 {
            let texts = read("a.txt.gz", &whole[..len], skipping).0.unwrap();
            assert!(text.starts_with(&texts[0]) && texts[0].len() > 1000, "{len}");
        }
        let mut edited = gzip(&b"some text".repeat(1000));
        let at = edited.len() - 6;
        edited[at] ^= 1;
        assert!(matches!(read("a.txt.gz", &edited, OPTIONS).0, Err(DataError::Packed { .. })));
        let (texts, stats) = read("a.txt.gz", &edited, skipping);
        assert_eq!((texts.unwrap(), stats.damaged_skipped), (vec!["some text".repeat(1000)], 1));
    }

    #[test]
    fn long_files_come_in_pieces_and_nothing_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let line = |i: usize| format!("line {i}: größer als {}\r\n", i * i);
        let lines: String = (0..150_000).map(line).collect();
        let one_line = lines.replace("\r\n", " ");
        let no_space = "é".repeat(17 << 20);
        for text in [&lines, &one_line, &no_space] {
            for (name, bytes) in [("a.txt", text.as_bytes().to_vec()), ("a.txt.gz", gzip(text.as_bytes()))] {
                let path = folder.path().join(name);
                fs_err::write(&path, bytes).unwrap();
                let files = [Found::new(path, name.into(), false)];
                let mut pieces = Vec::new();
                let mut stats = CorpusStats::default();
                for_each_batch(&files, OPTIONS, &mut stats, &mut |batch| {
                    pieces.extend(batch.pieces);
                    Ok(())
                })
                .unwrap();
                assert!(pieces.len() > 1 || text.len() < 16 << 20, "{name}: {} pieces", pieces.len());
                let (first, last) = (pieces.first().unwrap(), pieces.last().unwrap());
                assert!(first.begins && last.ends && pieces[1..].iter().all(|piece| !piece.begins));
                assert!(pieces[..pieces.len() - 1].iter().all(|piece| !piece.ends));
                assert!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>() == *text, "{name}");
                assert_eq!(documents(&files, OPTIONS, &mut stats).unwrap().len(), 1);
            }
        }
    }

    #[test]
    fn a_mistake_far_in_a_long_file_is_placed() {
        let mut bytes = b"a line of text\n".repeat(300_000);
        let at = bytes.len() - 20;
        bytes[at] = 0xff;
        let error = read("a.txt", &bytes, OPTIONS).0.unwrap_err();
        let line = 1 + bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
        assert!(matches!(error, DataError::Utf8 { line: found, offset, .. } if (found, offset) == (line, at as u64)), "{error}");
        bytes[at] = 0;
        assert!(matches!(read("a.txt", &bytes, OPTIONS).0, Err(DataError::Binary { offset, .. }) if offset == at as u64));
        // In a folder it is left out, and nothing of it is handed over before that is known.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs_err::write(&path, &bytes).unwrap();
        let (mut stats, mut n_pieces) = (CorpusStats::default(), 0);
        let files = [Found::new(path, "a.txt".into(), false)];
        for_each_batch(&files, OPTIONS, &mut stats, &mut |batch| {
            n_pieces += batch.pieces.len();
            Ok(())
        })
        .unwrap();
        assert_eq!((n_pieces, stats.binary_skipped), (0, 1));
        let row = [b"{\"text\":\"a\"}\n".repeat(200_000), b"{\"txt\":1}\n".to_vec()].concat();
        assert!(read("a.jsonl", &row, OPTIONS).0.unwrap_err().to_string().contains("line 200001: no field"));
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
            let files = [Found::new(path, (*name).into(), true)];
            let mut stats = CorpusStats::default();
            let result = documents(&files, OPTIONS, &mut stats);
            let options = ReadOptions { skip_bad: true, lossy: true, ..OPTIONS };
            let lax = documents(&files, options, &mut stats);
            assert!(result.is_err() || lax.is_ok(), "what can be read can be read with less care");
            if let Err(error) = result {
                n_errors += 1;
                assert!(error.to_string().contains(name) && error.hint().is_some(), "{error}");
            }
        }
        assert!((300..2900).contains(&n_errors), "{n_errors}");
    }
}
