//! serde's errors in our words: what was expected and what kind of thing was found, never the thing itself.

use serde::de::{Expected, Unexpected};

use crate::error::{Error, ErrorKind};
use crate::key::KeyRef;
use crate::scan::Head;

/// What a value is called in an error; never what it is.
fn describe<'h>(head: &Head<'_>) -> Unexpected<'h> {
    match head {
        Head::Null => Unexpected::Unit,
        Head::Bool(_) => Unexpected::Other("boolean"),
        Head::Int(_) => Unexpected::Other("integer"),
        Head::Float(_) => Unexpected::Other("float"),
        Head::Str(_) | Head::Escaped(..) => Unexpected::Other("string"),
        Head::Array(_) => Unexpected::Other("array"),
        Head::Object(..) | Head::Custom(..) => Unexpected::Other("object"),
        Head::Enum(..) => Unexpected::Other("enum"),
        Head::Alias(_) | Head::Handle(_) => Unexpected::Other("reference"),
    }
}

pub(super) fn wrong(head: &Head<'_>, expected: &dyn Expected) -> Error {
    <Error as serde::de::Error>::invalid_type(describe(head), expected)
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::custom(message)
    }
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(ErrorKind::Type, format!("expected {expected}, found {}", name(&unexpected)))
    }
    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let number = matches!(unexpected, Unexpected::Signed(_) | Unexpected::Unsigned(_) | Unexpected::Float(_));
        let kind = if number { ErrorKind::Number } else { ErrorKind::Type };
        Self::new(kind, format!("expected {expected}, found another {}", name(&unexpected)))
    }
    fn invalid_length(len: usize, expected: &dyn Expected) -> Self {
        Self::new(ErrorKind::Type, format!("expected {expected}, found {len} elements"))
    }
    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(ErrorKind::Type, format!("expected one of the variants {}", expected.join(", ")))
    }
    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self::new(ErrorKind::Type, "a key that is not a field").under(KeyRef::Str(field.as_bytes()))
    }
    fn missing_field(field: &'static str) -> Self {
        Self::new(ErrorKind::Type, format!("no key for the field {field}"))
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self::new(ErrorKind::Type, format!("two keys for the field {field}"))
    }
}

fn name<'n>(unexpected: &Unexpected<'n>) -> &'n str {
    match unexpected {
        Unexpected::Bool(_) => "boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "integer",
        Unexpected::Float(_) => "float",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "string",
        Unexpected::Unit => "null",
        Unexpected::Seq => "list",
        Unexpected::Map => "array",
        Unexpected::Other(name) => name,
        _ => "value",
    }
}
