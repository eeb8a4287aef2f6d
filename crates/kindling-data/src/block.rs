//! Files to blocks: what one thread reads, before others make text of it. Knows no UTF-8 and no JSON.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::examples::{Fields, Templates};
use crate::files::Found;
use crate::parquet_rows;
use crate::{DataError, ReadOptions};

/// About how much a block holds: small, so that a file's blocks are worked on by all threads.
const BLOCK_BYTES: usize = 1 << 20;
/// How long a row may be. More is a file that is not what its name says, or one that was packed to do harm.
const MAX_ROW_BYTES: u64 = 1 << 28;
/// Rows of a Parquet column that are taken at once.
const COLUMN_ROWS: usize = 1024;

/// A part of a file as it was read.
pub(crate) struct Block {
    /// Which of the files.
    pub(crate) file: usize,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    /// A stretch of a file that is one document, from byte `offset` on.
    Text {
        bytes: Vec<u8>,
        begins: bool,
        ends: bool,
        offset: u64,
    },
    /// Whole lines, the first of them numbered `first`, from 1.
    Lines {
        bytes: Vec<u8>,
        first: u64,
    },
    Rows(Vec<Row>),
    /// A file without a byte.
    Empty,
    /// The end of a file; whether it was left out because it is binary, and what damage left its rest out.
    End {
        binary: bool,
        damage: Option<String>,
    },
}

/// A row of a table, or what is wrong with it.
pub(crate) struct Row {
    /// From 1.
    pub(crate) row: u64,
    /// Where it stands; of a Parquet file the row.
    pub(crate) line: u64,
    pub(crate) text: Result<Vec<u8>, String>,
}

impl Content {
    pub(crate) fn n_bytes(&self) -> usize {
        match self {
            Self::Text { bytes, .. } | Self::Lines { bytes, .. } => bytes.len(),
            Self::Rows(rows) => rows.iter().map(|row| row.text.as_ref().map_or(0, Vec::len)).sum(),
            Self::Empty | Self::End { .. } => 0,
        }
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

fn format_of(file: &Found) -> (Format, Packing) {
    let name = file.path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Packing::Gzip),
        Some((stem, "zst")) => (stem, Packing::Zstd),
        _ => (&*name, Packing::Plain),
    };
    let format = match stem.rsplit_once('.') {
        _ if file.is_text => Format::Text,
        Some((_, "jsonl" | "ndjson")) => Format::JsonLines,
        Some((_, "csv")) => Format::Separated(b','),
        Some((_, "tsv")) => Format::Separated(b'\t'),
        Some((_, "parquet")) => Format::Parquet,
        _ => Format::Text,
    };
    (format, packing)
}

/// Whether a file of this name has rows, and is not one text.
pub fn has_rows(path: &Path) -> bool {
    format_of(&Found::new(path.to_owned(), String::new(), true)).0 != Format::Text
}

/// Takes a block, and how many bytes of all files have been read; says whether more are wanted.
type TakeFn<'a> = dyn FnMut(Block, u64) -> bool + 'a;

/// Reads the files in their order; gives back how many bytes of them were read.
///
/// # Errors
/// [`DataError`] of the first file that cannot be read. What is wrong with a text or a row is found later.
pub(crate) fn read_blocks(files: &[Found], options: ReadOptions<'_>, take: &mut TakeFn<'_>) -> Result<u64, DataError> {
    let n_read = Arc::new(AtomicU64::new(0));
    for (number, file) in files.iter().enumerate() {
        let mut reading = Reading { file, number, options, n_read: &n_read, take, wants_more: true };
        let mut binary = false;
        let result = match format_of(file) {
            (Format::Text, _) if options.has_rows() => Err(DataError::NoRows(file.told())),
            (Format::Text, _) => reading.text().map(|is_binary| binary = is_binary),
            (Format::JsonLines, _) => reading.json_lines(),
            (Format::Separated(byte), _) => reading.separated(byte),
            (Format::Parquet, packing) => reading.parquet(packing),
        };
        let damage = match result {
            Err(DataError::Packed { message, .. }) if options.skip_bad => Some(message),
            result => result.map(|()| None)?,
        };
        reading.send(Content::End { binary, damage });
        if !reading.wants_more {
            break;
        }
    }
    Ok(n_read.load(Ordering::Relaxed))
}

/// A file, unpacked.
pub(crate) fn open(file: &Found) -> Result<Box<dyn BufRead>, DataError> {
    open_counted(file, &Arc::default())
}

fn open_counted(file: &Found, n_read: &Arc<AtomicU64>) -> Result<Box<dyn BufRead>, DataError> {
    let opened = BufReader::with_capacity(1 << 16, Counted { inner: fs_err::File::open(&file.path)?, n_read: Arc::clone(n_read) });
    Ok(match format_of(file).1 {
        Packing::Plain => Box::new(opened),
        // One after the other, as `cat` and parallel packers leave them.
        Packing::Gzip => Box::new(BufReader::with_capacity(1 << 16, flate2::bufread::MultiGzDecoder::new(opened))),
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(opened).map_err(|error| packed(&file.path, &error))?;
            Box::new(BufReader::with_capacity(1 << 16, decoder))
        }
    })
}

/// An error of unpacking names no file by itself.
fn packed(path: &Path, error: &std::io::Error) -> DataError {
    DataError::Packed { path: path.to_owned(), message: error.to_string() }
}

/// Adds up what is read.
struct Counted<R> {
    inner: R,
    n_read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.n_read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A file that is being read.
struct Reading<'a, 'f> {
    file: &'a Found,
    number: usize,
    options: ReadOptions<'a>,
    n_read: &'a Arc<AtomicU64>,
    take: &'a mut TakeFn<'f>,
    wants_more: bool,
}

impl Reading<'_, '_> {
    fn send(&mut self, content: Content) {
        let block = Block { file: self.number, content };
        self.wants_more = self.wants_more && (self.take)(block, self.n_read.load(Ordering::Relaxed));
    }

    fn packed(&self, error: &std::io::Error) -> DataError {
        packed(&self.file.path, error)
    }

    /// The file as one document; whether it is binary, and not wanted by name. A byte-order mark is dropped.
    fn text(&mut self) -> Result<bool, DataError> {
        let mut reader = open_counted(self.file, self.n_read)?;
        let mut bytes = Vec::new();
        let mut offset = 0;
        let mut begins = true;
        let mut is_looked_through = self.file.explicit;
        while self.wants_more {
            let before = bytes.len();
            let n = (&mut reader).take(BLOCK_BYTES as u64).read_to_end(&mut bytes);
            let damage = n.as_ref().err().map(|error| self.packed(error));
            let ends = damage.is_some() || bytes.len() - before < BLOCK_BYTES;
            if let Some(at) = bytes[before..].iter().position(|&byte| byte == 0) {
                if self.file.explicit {
                    let offset = offset + (before + at) as u64;
                    return Err(DataError::Binary { path: self.file.told(), offset });
                }
                return Ok(true);
            }
            // A file is left out whole, so it is looked through before its first block is handed over.
            if !ends && !std::mem::replace(&mut is_looked_through, true) && has_nul(self.file)? {
                return Ok(true);
            }
            if offset == 0 && bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
                offset = 3;
            }
            if damage.is_some() {
                drop_part_of_character(&mut bytes);
            }
            if begins && ends && bytes.is_empty() && damage.is_none() {
                self.send(Content::Empty);
                return Ok(false);
            }
            let cut = if ends { Some(bytes.len()) } else { last_cut(&bytes, before) };
            if let Some(cut) = cut {
                let rest = bytes.split_off(cut);
                let n_bytes = bytes.len() as u64;
                // Empty only where nothing else says that the text ends.
                if n_bytes > 0 || !begins {
                    self.send(Content::Text { bytes: std::mem::replace(&mut bytes, rest), begins, ends, offset });
                    begins = false;
                }
                offset += n_bytes;
            }
            match damage {
                Some(damage) => return Err(damage),
                None if ends => break,
                None => {}
            }
        }
        Ok(false)
    }

    fn json_lines(&mut self) -> Result<(), DataError> {
        let mut reader = open_counted(self.file, self.n_read)?;
        let (mut bytes, mut first) = (Vec::new(), 1);
        while self.wants_more {
            let before = bytes.len();
            let n = (&mut reader).take(BLOCK_BYTES as u64).read_to_end(&mut bytes);
            let damage = n.as_ref().err().map(|error| self.packed(error));
            let ends = damage.is_some() || bytes.len() - before < BLOCK_BYTES;
            // Of a file that is damaged, the last line may be a part of one.
            let cut = match bytes[before..].iter().rposition(|&byte| byte == b'\n') {
                Some(at) if damage.is_some() || !ends => Some(before + at + 1),
                None if damage.is_some() => Some(0),
                _ if ends => Some(bytes.len()),
                _ => None,
            };
            if let Some(cut) = cut {
                let rest = bytes.split_off(cut);
                let n_lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
                self.send(Content::Lines { bytes: std::mem::replace(&mut bytes, rest), first });
                first += n_lines;
            } else if bytes.len() as u64 > MAX_ROW_BYTES {
                let message = format!("longer than {MAX_ROW_BYTES} bytes, expected a row on each line");
                return Err(DataError::Row { path: self.file.told(), line: first, message });
            }
            match damage {
                Some(damage) => return Err(damage),
                None if ends => break,
                None => {}
            }
        }
        Ok(())
    }

    fn separated(&mut self, byte: u8) -> Result<(), DataError> {
        let n_quotes = Cell::new(0u64);
        let reader = Quotes { inner: open_counted(self.file, self.n_read)?, n: &n_quotes };
        // Tab-separated values know no quotes (IANA, text/tab-separated-values): one in a text must not swallow lines.
        let mut reader = csv::ReaderBuilder::new().delimiter(byte).quoting(byte != b'\t').from_reader(reader);
        let first = reader.byte_headers().map_err(|error| self.csv_error(&error))?.clone();
        let names: Vec<String> = first.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        // A byte-order mark belongs to no name.
        let mut names: Vec<&str> = names.iter().map(|name| name.trim_start_matches('\u{feff}')).collect();
        let wanted = self.options.text_field;
        let mut rows = Rows::default();
        let columns = self.options.columns;
        if !columns.is_empty() && !first.is_empty() {
            // The first line is a row as well.
            if columns.len() != first.len() {
                let found = format!("{} fields, and `data.columns` names {}", first.len(), columns.len());
                return Err(DataError::Row { path: self.file.told(), line: 1, message: found });
            }
            names = columns.iter().map(String::as_str).collect();
        }
        let mut first_row = (!columns.is_empty() && !first.is_empty()).then(|| {
            let fields = first.iter().enumerate();
            fields
                .map(|(i, field)| if i == 0 { field.strip_prefix(b"\xef\xbb\xbf").unwrap_or(field) } else { field })
                .collect::<csv::ByteRecord>()
        });
        let named = names.iter().position(|name| *name == wanted);
        let column = match (named, wanted.parse::<usize>()) {
            _ if self.options.has_rows() => {
                if let Some(twice) = names.iter().enumerate().find_map(|(i, name)| names[..i].contains(name).then_some(name)) {
                    let message = format!("two fields are called `{twice}`, expected a name of its own for each");
                    return Err(DataError::Row { path: self.file.told(), line: 1, message });
                }
                0
            }
            // A number is a column of a table without names, also where the first row holds that number: it is a document too.
            (_, Ok(number)) if columns.is_empty() && (1..=names.len()).contains(&number) => {
                let field = first[number - 1].strip_prefix(b"\xef\xbb\xbf").unwrap_or(&first[number - 1]);
                rows.push(1, Ok(field.to_vec()), self);
                number - 1
            }
            (Some(column), _) => column,
            _ if names.is_empty() => return Ok(()),
            _ => return Err(self.no_field(&names.join(", "))),
        };
        let (mut record, mut last_line) = (csv::ByteRecord::new(), 1);
        let of_record = |record: &csv::ByteRecord, options: ReadOptions<'_>| {
            if options.has_rows() { as_json(&names, record, options.lossy) } else { Ok(record.get(column).unwrap_or_default().to_vec()) }
        };
        if let Some(first) = first_row.take() {
            rows.push(1, of_record(&first, self.options), self);
        }
        while self.wants_more {
            match reader.read_byte_record(&mut record) {
                // What stands behind a quote that nothing closes is taken for one field, to the end of the file.
                Ok(false) if byte != b'\t' && n_quotes.get() % 2 == 1 => {
                    let message = "a quoted field is not closed: the file has an odd number of quotes".to_owned();
                    return Err(DataError::Row { path: self.file.told(), line: last_line, message });
                }
                Ok(false) => break,
                Ok(true) => {
                    last_line = record.position().map_or(0, csv::Position::line);
                    rows.push(last_line, of_record(&record, self.options), self);
                }
                // Of a ragged row it is not known which field is which.
                Err(error) if matches!(error.kind(), csv::ErrorKind::UnequalLengths { .. }) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    let message = match error.kind() {
                        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!("{len} fields, expected {expected_len}"),
                        _ => error.to_string(),
                    };
                    rows.push(line, Err(message), self);
                }
                Err(error) => {
                    rows.send(self);
                    return Err(self.csv_error(&error));
                }
            }
        }
        rows.send(self);
        Ok(())
    }

    fn parquet(&mut self, packing: Packing) -> Result<(), DataError> {
        let path = self.file.told();
        let broken = |message: String| DataError::Packed { path: path.clone(), message };
        if packing != Packing::Plain {
            return Err(broken("a Parquet file is compressed within, expected none around it".into()));
        }
        let file = fs_err::File::open(&path)?;
        let n_bytes = file.metadata()?.len();
        let reader = SerializedFileReader::new(file.into_file()).map_err(|error| broken(error.to_string()))?;
        let schema = reader.metadata().file_metadata().schema_descr();
        let fields = schema.root_schema().get_fields();
        if self.options.has_rows() {
            let used = self.options.examples.map(Templates::new).transpose()?.map_or_else(Fields::all, |templates| templates.fields());
            return self.parquet_rows(&reader, &used, n_bytes);
        }
        let wanted = self.options.text_field;
        let Some(field) = fields.iter().find(|field| field.name() == wanted) else {
            return Err(self.no_field(&fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(", ")));
        };
        let leaf = schema.columns().iter().position(|column| column.path().parts() == [wanted]);
        let is_text = field.is_primitive() && field.get_physical_type() == parquet::basic::Type::BYTE_ARRAY;
        let Some((leaf, column)) =
            leaf.map(|leaf| (leaf, schema.column(leaf))).filter(|(_, column)| is_text && column.max_rep_level() == 0)
        else {
            return Err(broken(format!("the field `{wanted}` holds no texts")));
        };
        let mut rows = Rows::default();
        let n_groups = reader.num_row_groups();
        for group in 0..n_groups {
            // That column alone is read.
            let mut values = match reader.get_row_group(group).and_then(|group| group.get_column_reader(leaf)) {
                Ok(ColumnReader::ByteArrayColumnReader(values)) => values,
                Ok(_) => return Err(broken(format!("the field `{wanted}` holds no texts"))),
                Err(error) => {
                    rows.send(self);
                    return Err(broken(error.to_string()));
                }
            };
            while self.wants_more {
                match column_rows(&mut values, column.max_def_level()) {
                    Ok(texts) if texts.is_empty() => break,
                    Ok(texts) => {
                        for text in texts {
                            let line = rows.row + 1;
                            rows.push(line, text.ok_or_else(|| format!("field `{wanted}` is `null`, expected a text")), self);
                        }
                    }
                    Err(error) => {
                        rows.send(self);
                        return Err(broken(error.to_string()));
                    }
                }
            }
            self.n_read.fetch_add(n_bytes / n_groups as u64, Ordering::Relaxed);
        }
        rows.send(self);
        Ok(())
    }

    /// Rows of a Parquet file, as lines of JSON, of the fields that are used.
    fn parquet_rows(&mut self, reader: &SerializedFileReader<std::fs::File>, used: &Fields, n_bytes: u64) -> Result<(), DataError> {
        let path = self.file.told();
        let broken = |message: String| DataError::Packed { path: path.clone(), message };
        let mut rows = Rows::default();
        let lossy = self.options.lossy;
        let read = parquet_rows::for_each(reader, used, lossy, &mut |row| {
            let line = rows.row + 1;
            rows.push(line, row.map(|row| serde_json::to_vec(&row).expect("plain data serialises")), self);
            self.wants_more
        });
        if let Err(message) = read {
            rows.send(self);
            return Err(broken(message));
        }
        self.n_read.fetch_add(n_bytes, Ordering::Relaxed);
        rows.send(self);
        Ok(())
    }

    fn no_field(&self, found: &str) -> DataError {
        DataError::NoField { path: self.file.told(), field: self.options.text_field.to_owned(), found: found.to_owned() }
    }

    fn csv_error(&self, error: &csv::Error) -> DataError {
        DataError::Packed { path: self.file.told(), message: error.to_string() }
    }
}

/// A row of a table as a line of JSON.
fn as_json(names: &[&str], record: &csv::ByteRecord, lossy: bool) -> Result<Vec<u8>, String> {
    let mut row = serde_json::Map::new();
    for (name, field) in names.iter().zip(record) {
        let text = match str::from_utf8(field) {
            Ok(text) => text.to_owned(),
            Err(_) if lossy => String::from_utf8_lossy(field).into_owned(),
            Err(error) => return Err(format!("byte {} of the field `{name}` is not UTF-8", error.valid_up_to() + 1)),
        };
        row.insert((*name).to_owned(), text.into());
    }
    Ok(serde_json::to_vec(&row).expect("plain data serialises"))
}

/// The next rows of a column, none at its end; `None` for null.
pub(crate) fn column_rows(
    values: &mut parquet::column::reader::ColumnReaderImpl<ByteArrayType>,
    max_def_level: i16,
) -> Result<Vec<Option<Vec<u8>>>, parquet::errors::ParquetError> {
    let (mut levels, mut present) = (Vec::new(), Vec::<ByteArray>::new());
    let (n_rows, _, _) = values.read_records(COLUMN_ROWS, (max_def_level > 0).then_some(&mut levels), None, &mut present)?;
    let mut present = present.into_iter().map(|value| value.data().to_vec());
    if max_def_level == 0 {
        return Ok(present.map(Some).collect());
    }
    Ok(levels.iter().take(n_rows).map(|&level| if level == max_def_level { present.next() } else { None }).collect())
}

/// Rows that are not handed over yet.
#[derive(Default)]
struct Rows {
    /// How many there were so far.
    row: u64,
    rows: Vec<Row>,
    n_bytes: usize,
}

impl Rows {
    fn push(&mut self, line: u64, text: Result<Vec<u8>, String>, reading: &mut Reading<'_, '_>) {
        self.row += 1;
        self.n_bytes += text.as_ref().map_or(0, Vec::len) + size_of::<Row>();
        self.rows.push(Row { row: self.row, line, text });
        if self.n_bytes >= BLOCK_BYTES {
            self.send(reading);
        }
    }

    fn send(&mut self, reading: &mut Reading<'_, '_>) {
        self.n_bytes = 0;
        if !self.rows.is_empty() {
            reading.send(Content::Rows(std::mem::take(&mut self.rows)));
        }
    }
}

/// Takes away what is the beginning of a character alone, where damage has cut it.
fn drop_part_of_character(bytes: &mut Vec<u8>) {
    let start = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    if str::from_utf8(&bytes[start..]).is_err_and(|error| error.error_len().is_none()) {
        bytes.truncate(start);
    }
}

/// Where a long text is cut: behind the last line feed; in a line that is as long as several blocks behind the last space, or else
/// the last character. Nothing before `from` is a line feed.
fn last_cut(bytes: &[u8], from: usize) -> Option<usize> {
    const LONGEST_LINE: usize = 16 * BLOCK_BYTES;
    let behind_last = |wanted: u8| bytes[from..].iter().rposition(|&byte| byte == wanted).map(|at| from + at + 1);
    if bytes.len() < LONGEST_LINE {
        return behind_last(b'\n');
    }
    // In what is not UTF-8 the place does not matter.
    let character = || (bytes.len() - 4..bytes.len()).rev().find(|&at| bytes[at] & 0xc0 != 0x80).unwrap_or(bytes.len());
    behind_last(b'\n').or_else(|| behind_last(b' ')).or_else(|| Some(character()))
}

/// Whether a NUL byte is in a file.
fn has_nul(file: &Found) -> Result<bool, DataError> {
    let mut reader = open(file)?;
    loop {
        // What is damaged is found when it is read.
        let Ok(block) = reader.fill_buf() else { return Ok(false) };
        if block.is_empty() || block.contains(&0) {
            return Ok(!block.is_empty());
        }
        let n = block.len();
        reader.consume(n);
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
