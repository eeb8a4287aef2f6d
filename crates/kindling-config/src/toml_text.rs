//! TOML in, with overrides and errors that name the key. Knows nothing of what the keys mean.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::ConfigError;

/// Reads `text`, applies `overrides` (`section.key=value`, the value in TOML or a bare word), and gives back a `T`.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, source_name: &str, overrides: &[String]) -> Result<T, ConfigError> {
    if overrides.is_empty() {
        // Straight from the text, so that the parser can say line and column.
        return toml::from_str(text).map_err(|error| explain(&error, source_name, text));
    }
    let mut table: Table = toml::from_str(text).map_err(|error| explain(&error, source_name, text))?;
    for item in overrides {
        apply(&mut table, item)?;
    }
    T::deserialize(Value::Table(table)).map_err(|error| match toml::from_str::<T>(text).err() {
        // The file's own mistake: the parser knows its place.
        Some(in_file) if in_file.message() == error.message() => explain(&in_file, source_name, text),
        _ => explain(&error, "--set", ""),
    })
}

fn apply(table: &mut Table, item: &str) -> Result<(), ConfigError> {
    let malformed = || ConfigError::Override { found: item.to_owned() };
    let (path, value) = item.split_once('=').ok_or_else(malformed)?;
    let keys: Vec<&str> = path.trim().split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(malformed());
    }
    // What is not a TOML value is taken as a bare string: `--set tokenizer.kind=char`.
    let value = toml::from_str::<Table>(&format!("v = {value}"))
        .ok()
        .filter(|parsed| parsed.len() == 1)
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let (last, sections) = keys.split_last().ok_or_else(malformed)?;
    let mut at = table;
    for section in sections {
        at = at.entry(*section).or_insert_with(|| Value::Table(Table::new())).as_table_mut().ok_or_else(malformed)?;
    }
    // `lr=1` for a key that holds a float would be a type error that no user means.
    let value = match (at.get(*last), value) {
        (Some(Value::Float(_)), Value::Integer(i)) => Value::Float(i as f64),
        (_, value) => value,
    };
    at.insert((*last).to_owned(), value);
    Ok(())
}

/// Turns a TOML error into ours: unknown keys apart, so that they can carry a suggestion, and types in plain words.
fn explain(error: &toml::de::Error, source_name: &str, text: &str) -> ConfigError {
    let source_name = source_name.to_owned();
    if let Some(rest) = error.message().strip_prefix("unknown field ") {
        let mut names = rest.split('`').skip(1).step_by(2).map(str::to_owned);
        if let Some(key) = names.next() {
            let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            return ConfigError::UnknownKey { source_name, line, key, expected: names.collect() };
        }
    }
    let mut message = error.to_string();
    for (rust, plain) in [("usize", "a whole number, 0 or above"), ("u64", "a whole number, 0 or above"), ("f64", "a number")] {
        message = message.replace(&format!("expected {rust}"), &format!("expected {plain}"));
    }
    for (rust, plain) in [("struct ", "a table, "), ("sequence", "list"), ("a boolean", "true or false")] {
        message = message.replace(&format!("expected {rust}"), &format!("expected {plain}"));
    }
    // On one line where there is no piece of the file to show.
    let message = if error.span().is_some() { message.trim_end().to_owned() } else { message.trim_end().replace('\n', ", ") };
    ConfigError::Parse { source_name, message }
}
