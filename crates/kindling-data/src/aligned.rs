//! Files of text whose lines belong together, as translations lie: `train.{en,de}` to rows with the fields `en` and `de`.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::DataError;
use crate::block::open;
use crate::files::Found;

/// The files that a path with `{a,b}` in its file name means, each with the name of its field.
pub(crate) fn files_of(path: &Path) -> Option<Vec<(String, PathBuf)>> {
    let name = path.file_name()?.to_str()?;
    let (before, rest) = name.split_once('{')?;
    let (fields, after) = rest.split_once('}')?;
    let is_plain = |text: &str| !text.contains(['*', '?', '[', '{', '}']);
    if !(is_plain(before) && is_plain(after) && is_plain(fields) && fields.contains(',')) {
        return None;
    }
    Some(fields.split(',').map(|field| (field.to_owned(), path.with_file_name(format!("{before}{field}{after}")))).collect())
}

/// Writes line N of all files as line N of JSON lines.
///
/// # Errors
/// Files of unequal length, or one that is missing, damaged or, without `lossy`, not UTF-8.
pub(crate) fn join(files: &[(String, PathBuf)], lossy: bool, out: &mut dyn Write) -> Result<(), DataError> {
    let mut readers =
        files.iter().map(|(_, path)| open(&Found::new(path.clone(), path.display().to_string(), true))).collect::<Result<Vec<_>, _>>()?;
    let mut offsets = vec![0; files.len()];
    for line in 1.. {
        let mut row = Map::new();
        for (((field, path), reader), offset) in files.iter().zip(&mut readers).zip(&mut offsets) {
            let mut bytes = Vec::new();
            let n = reader
                .read_until(b'\n', &mut bytes)
                .map_err(|error| DataError::Packed { path: path.clone(), message: error.to_string() })?;
            if n == 0 {
                continue;
            }
            let text = match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) if lossy => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                Err(error) => {
                    let at = error.utf8_error().valid_up_to();
                    return Err(DataError::Utf8 { path: path.clone(), line, offset: *offset + at as u64, byte: error.as_bytes()[at] });
                }
            };
            *offset += n as u64;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
            row.insert(field.clone(), Value::from(text));
        }
        if row.is_empty() {
            break;
        }
        if let Some((_, short)) = files.iter().find(|(field, _)| !row.contains_key(field)) {
            let longer = files.iter().find(|(field, _)| row.contains_key(field)).map_or(short, |(_, path)| path);
            return Err(DataError::Unaligned { short: short.clone(), n_lines: line - 1, long: longer.clone() });
        }
        serde_json::to_writer(&mut *out, &row).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn a_path_names_fields_and_files() {
        let of = |path: &str| {
            let files = files_of(Path::new(path))?;
            Some(files.into_iter().map(|(field, path)| format!("{field}={}", path.display())).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("a/train.{en,de}.gz").as_deref(), Some("en=a/train.en.gz de=a/train.de.gz"));
        assert_eq!(of("{x,y,z}").as_deref(), Some("x=x y=y z=z"));
        for other in ["a/train.en", "train.{en}", "*.{en,de}", "a/{b,c}/d", "train.{en,de}.{gz,zst}"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn lines_become_rows() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs_err::write(dir.path().join(name), bytes).unwrap();
        let joined = |lossy| {
            let mut out = Vec::new();
            join(&files_of(&dir.path().join("t.{en,de}")).unwrap(), lossy, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        write("t.en", b"\xef\xbb\xbfa \"dog\"\r\n\nlast");
        write("t.de", "ein Hund\nß\tx\nletzter\n".as_bytes());
        assert_eq!(
            joined(false).unwrap(),
            "{\"en\":\"a \\\"dog\\\"\",\"de\":\"ein Hund\"}\n{\"en\":\"\",\"de\":\"ß\\tx\"}\n{\"en\":\"last\",\"de\":\"letzter\"}\n"
        );
        write("t.de", b"ein Hund\n\xff\nletzter\n");
        let error = joined(false).unwrap_err().to_string();
        assert!(error.contains("t.de` is not UTF-8: line 2, byte 9 of the file is 0xff"), "{error}");
        assert!(joined(true).unwrap().contains("\u{fffd}"));
        write("t.de", b"ein Hund\n");
        let error = joined(false).unwrap_err().to_string();
        assert!(error.contains("t.de` ends after 1 lines, and") && error.contains("t.en` goes on"), "{error}");
        fs_err::remove_file(dir.path().join("t.de")).unwrap();
        assert!(joined(false).unwrap_err().to_string().contains("t.de"));
    }
}
