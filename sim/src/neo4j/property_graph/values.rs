//! What a property may hold, as the real server says it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::neo4j::answer::ServerError;

/// A property is a scalar or a list of scalars of one type.
pub(super) fn check_storable(name: &str, value: &Value) -> Result<(), ServerError> {
    let refused = |what: &str| {
        ServerError::new(
            "Neo.ClientError.Statement.TypeError",
            format!(
                "property values can only be of primitive types or arrays thereof; `{name}` is {what}"
            ),
        )
    };
    match value {
        Value::Object(_) => Err(refused("a map")),
        Value::Array(items) => {
            let scalar = |item: &Value| !(item.is_object() || item.is_array() || item.is_null());
            if !items.iter().all(scalar) {
                return Err(refused("a list that holds more than scalars"));
            }
            let kinds: BTreeSet<u8> = items.iter().map(scalar_kind).collect();
            if kinds.len() > 1 {
                return Err(refused("a list of several types"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn scalar_kind(value: &Value) -> u8 {
    match value {
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        _ => 3,
    }
}

/// The map from which properties are set.
pub(super) fn map_of(value: &Value) -> Result<&serde_json::Map<String, Value>, ServerError> {
    value.as_object().ok_or_else(|| {
        ServerError::new(
            "Neo.ClientError.Statement.TypeError",
            "expected a map of properties",
        )
    })
}
