//! JSON on one side, PHP's bytes on the other: one character a byte.

use cloakroom::php::StartOption;
use serde_json::Value;

/// Bytes as they travel.
pub(crate) fn from_bytes(bytes: &[u8]) -> Value {
    Value::String(bytes.iter().map(|&byte| char::from(byte)).collect())
}

/// The bytes of a text that travelled. Characters above 255 are taken for what UTF-8 makes of them.
pub(crate) fn to_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u8::try_from(u32::from(character)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// A setting's value as text.
pub(crate) fn ini_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => String::from(if *flag { "1" } else { "0" }),
        other => other.to_string(),
    }
}

/// A value in an array that PHP's functions take.
pub(crate) fn option(value: &Value) -> StartOption {
    match value {
        Value::Bool(flag) => StartOption::Bool(*flag),
        Value::String(text) => StartOption::Text(text.clone()),
        Value::Number(number) => match number.as_i64() {
            Some(number) => StartOption::Int(number),
            None => StartOption::Float(number.as_f64().unwrap_or_default()),
        },
        Value::Null => StartOption::Null,
        Value::Array(_) | Value::Object(_) => StartOption::Other("array"),
    }
}

/// The pairs of an array that PHP's functions take.
pub(crate) fn options(value: Option<&Value>) -> Vec<(String, StartOption)> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), option(value))).collect()
}
