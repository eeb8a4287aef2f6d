//! Checks the settings of a tokenizer.json one by one. Accepts only those that change nothing we do.

use serde_json::{Map, Value};

use crate::TokenizerError;

/// A setting of a component and the values it may have.
pub(super) struct Rule {
    key: &'static str,
    allowed: Allowed,
}

enum Allowed {
    Anything,
    Only(Value),
    OnlyOrAbsent(Value),
}

/// A setting that changes neither ids nor text.
pub(super) fn any(key: &'static str) -> Rule {
    Rule { key, allowed: Allowed::Anything }
}

/// A setting that must be there.
pub(super) fn only(key: &'static str, value: impl Into<Value>) -> Rule {
    Rule { key, allowed: Allowed::Only(value.into()) }
}

/// A setting that has this value if it is not there.
pub(super) fn only_or_absent(key: &'static str, value: impl Into<Value>) -> Rule {
    Rule { key, allowed: Allowed::OnlyOrAbsent(value.into()) }
}

/// The `type` of a component, or `null` if the component is absent or has none.
pub(super) fn type_of(component: Option<&Value>) -> Value {
    component.and_then(|value| value.get("type")).cloned().unwrap_or(Value::Null)
}

/// Refuses a component that is there at all.
pub(super) fn expect_none(field: &str, component: Option<&Value>) -> Result<(), TokenizerError> {
    match component {
        None | Some(Value::Null) => Ok(()),
        Some(found) => {
            let found = match found.get("type") {
                Some(name) => name,
                None => found,
            };
            Err(wrong(field, found, "`null`"))
        }
    }
}

/// Refuses a component of another type, with a setting that has no rule, or with another value than its rule's.
pub(super) fn expect_component(field: &str, component: Option<&Value>, expected_type: &str, rules: &[Rule]) -> Result<(), TokenizerError> {
    let expected = format!("`{expected_type}`");
    if type_of(component) != expected_type {
        return Err(wrong(&format!("{field}.type"), &type_of(component), &expected));
    }
    let empty = Map::new();
    let settings = component.and_then(Value::as_object).unwrap_or(&empty);
    for (key, found) in settings {
        if key != "type" && !rules.iter().any(|rule| rule.key == key) {
            return Err(wrong(&format!("{field}.{key}"), found, &format!("no such setting of {expected}")));
        }
    }
    for rule in rules {
        let (value, may_be_absent) = match &rule.allowed {
            Allowed::Anything => continue,
            Allowed::Only(value) => (value, false),
            Allowed::OnlyOrAbsent(value) => (value, true),
        };
        match settings.get(rule.key) {
            Some(found) if found == value => {}
            None if may_be_absent => {}
            found => {
                let found = found.unwrap_or(&Value::Null);
                return Err(wrong(&format!("{field}.{}", rule.key), found, &format!("`{}`", shown(value))));
            }
        }
    }
    Ok(())
}

/// The error for a field with a value that is not understood.
pub(super) fn wrong(field: &str, found: &Value, expected: &str) -> TokenizerError {
    TokenizerError::Field { field: field.to_owned(), found: shown(found), expected: expected.to_owned() }
}

/// A value as a message shows it: bare if it is a string, and never a page long.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
