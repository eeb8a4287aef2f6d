//! Rows of a Parquet file as objects of JSON, for examples. A single column of texts is read by `block.rs`.

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::FileReader;
use parquet::record::{Field, Row};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

use crate::block::column_rows;
use crate::examples::Fields;

/// A row, or what is wrong with it; says whether more are wanted.
type TakeFn<'a> = dyn FnMut(Result<Map<String, Value>, String>) -> bool + 'a;

/// Hands over all rows, with the fields that are used; others are not read, whatever they hold. Of a whole row these are the fields that an
/// example can say something of.
///
/// # Errors
/// In words: a file that is damaged, or a field that holds neither texts nor numbers.
pub(crate) fn for_each(reader: &impl FileReader, used: &Fields, lossy: bool, take: &mut TakeFn<'_>) -> Result<(), String> {
    let schema = reader.metadata().file_metadata().schema();
    let fields: Vec<&TypePtr> =
        schema.get_fields().iter().filter(|field| used.has(field.name()) && (!used.is_all() || check(field).is_ok())).collect();
    let is_text = |field: &&TypePtr| {
        let info = field.get_basic_info();
        field.is_primitive() && field.get_physical_type() == Physical::BYTE_ARRAY && info.repetition() != Repetition::REPEATED
    };
    fields.iter().try_for_each(|field| check(field))?;
    if !fields.is_empty() && fields.iter().all(is_text) {
        return texts(reader, &fields, lossy, take);
    }
    let columns = fields.into_iter().cloned().collect();
    let columns = Type::group_type_builder(schema.name()).with_fields(columns).build().map_err(|error| error.to_string())?;
    for row in reader.get_row_iter(Some(columns)).map_err(|error| error.to_string())? {
        let row = row.map_err(|error| error.to_string())?;
        if !take(as_json(&row, lossy)) {
            break;
        }
    }
    Ok(())
}

/// The same of columns of texts: one that is not UTF-8 is a matter of its row.
fn texts(reader: &impl FileReader, fields: &[&TypePtr], lossy: bool, take: &mut TakeFn<'_>) -> Result<(), String> {
    let columns = reader.metadata().file_metadata().schema_descr().columns();
    let leaf = |field: &&TypePtr| columns.iter().position(|column| column.path().parts() == [field.name()]);
    let leaves: Vec<usize> = fields.iter().filter_map(leaf).collect();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(|error| error.to_string())?;
        let mut readers = Vec::new();
        for leaf in &leaves {
            match group.get_column_reader(*leaf).map_err(|error| error.to_string())? {
                ColumnReader::ByteArrayColumnReader(values) => readers.push((values, columns[*leaf].max_def_level())),
                _ => return Err("a column of texts holds something else".to_owned()),
            }
        }
        loop {
            let read = readers.iter_mut().map(|(values, max_def_level)| column_rows(values, *max_def_level));
            let mut read = read.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
            let n = read[0].len();
            if n == 0 {
                break;
            }
            if read.iter().any(|column| column.len() != n) {
                return Err("its columns are not of one length".to_owned());
            }
            for row in 0..n {
                let cells = fields.iter().zip(&mut read).map(|(field, column)| {
                    let cell = column[row].take().map(|bytes| text(field.name(), &bytes, lossy));
                    Ok((field.name().to_owned(), cell.transpose()?.map_or(Value::Null, Value::from)))
                });
                if !take(cells.collect()) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn text(name: &str, bytes: &[u8], lossy: bool) -> Result<String, String> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) if lossy => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Err(error) => Err(format!("byte {} of the field `{name}` is not UTF-8", error.valid_up_to() + 1)),
    }
}

/// Whether a field is of what examples can say.
fn check(field: &Type) -> Result<(), String> {
    use ConvertedType::{ENUM, INT_8, INT_16, INT_32, INT_64, JSON, NONE, UINT_8, UINT_16, UINT_32, UINT_64, UTF8};
    let (info, physical) = match field {
        Type::GroupType { fields, .. } => return fields.iter().try_for_each(|field| check(field)),
        Type::PrimitiveType { physical_type, .. } => (field.get_basic_info(), physical_type),
    };
    let is_plain = matches!(
        info.logical_type_ref(),
        None | Some(LogicalType::Integer(_) | LogicalType::String | LogicalType::Enum | LogicalType::Json)
    );
    let fits = match physical {
        Physical::BYTE_ARRAY => matches!(info.converted_type(), NONE | UTF8 | ENUM | JSON),
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => info.converted_type() == NONE,
        Physical::INT32 | Physical::INT64 => {
            matches!(info.converted_type(), NONE | INT_8 | INT_16 | INT_32 | INT_64 | UINT_8 | UINT_16 | UINT_32 | UINT_64)
        }
        _ => false,
    };
    if fits && is_plain { Ok(()) } else { Err(format!("the field `{}` holds neither texts nor numbers", field.name())) }
}

fn as_json(row: &Row, lossy: bool) -> Result<Map<String, Value>, String> {
    row.get_column_iter().map(|(name, field)| Ok((name.clone(), value(name, field, lossy)?))).collect()
}

fn value(name: &str, field: &Field, lossy: bool) -> Result<Value, String> {
    Ok(match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => text(name, bytes.data(), lossy)?.into(),
        Field::Group(row) => as_json(row, lossy)?.into(),
        Field::ListInternal(list) => list.elements().iter().map(|field| value(name, field, lossy)).collect::<Result<Value, _>>()?,
        _ => return Err(format!("the field `{name}` holds neither texts nor numbers")),
    })
}
