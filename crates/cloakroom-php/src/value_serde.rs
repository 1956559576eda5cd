//! [`Value`], [`Array`] and [`PhpStr`] as serde types: whole within a session, readable in other formats.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use crate::array::Array;
use crate::key::Key;
use crate::value::{PhpStr, Reference, Value};

// Names by which our own serializer knows our own types; other formats ignore them.
pub(crate) const VALUE: &str = "$cloakroom::Value";
pub(crate) const ORDERED: &str = "$cloakroom::Array";
pub(crate) const OBJECT: &str = "$cloakroom::Object";
pub(crate) const ENUM: &str = "$cloakroom::Enum";
pub(crate) const CUSTOM: &str = "$cloakroom::Custom";
pub(crate) const REFERENCE: &str = "$cloakroom::Reference";

/// Foreign serializers recurse; a value may be deeper than their stack.
const DEPTH: u16 = 128;

impl Serialize for PhpStr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => serializer.serialize_bytes(self),
        }
    }
}

impl<'de> Deserialize<'de> for PhpStr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = PhpStr;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E>(self, text: &str) -> Result<PhpStr, E> {
                Ok(text.into())
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<PhpStr, E> {
                Ok(bytes.into())
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<PhpStr, E> {
                Ok(bytes.into())
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

struct At<'v>(&'v Value, u16);

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        At(self, 0).serialize(serializer)
    }
}

impl Serialize for Array {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Elements { array: self, depth: 0, names: false }.serialize(serializer)
    }
}

/// An array, or the properties of an object.
#[derive(Clone, Copy)]
struct Elements<'v> {
    array: &'v Array,
    depth: u16,
    // Integer keys are written as strings, as stdClass has its properties.
    names: bool,
}

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(ORDERED, &Marked(*self))
    }
}

struct Marked<'v>(Elements<'v>);

impl Serialize for Marked<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Elements { array, depth, names } = self.0;
        let depth = depth + 1;
        if depth > DEPTH {
            return Err(S::Error::custom("nested deeper than 128 levels"));
        }
        if array.is_list() && !names {
            let mut list = serializer.serialize_seq(Some(array.len()))?;
            for (_, value) in array {
                list.serialize_element(&At(value, depth))?;
            }
            return list.end();
        }
        let mut map = serializer.serialize_map(Some(array.len()))?;
        for (key, value) in array {
            match key {
                Key::Int(n) if names => map.serialize_key(&n.to_string())?,
                Key::Int(n) => map.serialize_key(n)?,
                Key::Str(name) => map.serialize_key(name)?,
            }
            map.serialize_value(&At(value, depth))?;
        }
        map.end()
    }
}

impl Serialize for At<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let two = |serializer: S, name, fields: [(&'static str, &PhpStr); 2]| {
            let mut out = serializer.serialize_struct(name, 2)?;
            for (field, text) in fields {
                out.serialize_field(field, text)?;
            }
            out.end()
        };
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(n) => serializer.serialize_i64(*n),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::String(text) => text.serialize(serializer),
            Value::Array(array) => Elements { array, depth: self.1, names: false }.serialize(serializer),
            Value::Object(object) => {
                let mut out = serializer.serialize_struct(OBJECT, 2)?;
                out.serialize_field("class", object.class())?;
                let names = object.class().eq_ignore_ascii_case(b"stdClass");
                out.serialize_field("properties", &Elements { array: object.properties(), depth: self.1, names })?;
                out.end()
            }
            Value::Enum(e) => two(serializer, ENUM, [("enum", &e.class), ("case", &e.case)]),
            Value::Custom(c) => two(serializer, CUSTOM, [("class", &c.class), ("payload", &c.payload)]),
            Value::Reference(reference) => {
                let (kind, n) = match reference {
                    Reference::Alias(n) => ("alias", n),
                    Reference::Handle(n) => ("handle", n),
                };
                let mut out = serializer.serialize_struct(REFERENCE, 1)?;
                out.serialize_field(kind, n)?;
                out.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(VALUE, Outer)
    }
}

impl<'de> Deserialize<'de> for Array {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Array(array) => Ok(array),
            _ => Err(D::Error::custom("expected an array")),
        }
    }
}

/// Our own deserializer hands over the bytes of the value, others go on to [`Inner`].
struct Outer;

impl<'de> Visitor<'de> for Outer {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of PHP")
    }
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        Value::unserialize(bytes).map_err(E::custom)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Inner)
    }
}

struct Inner;

impl<'de> Visitor<'de> for Inner {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of PHP")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Int(n))
    }
    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Value, E> {
        i64::try_from(n).map(Value::Int).map_err(|_| E::custom("an integer beyond PHP's 64 bits"))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.into()))
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::String(bytes.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut array = Array::new();
        while let Some(value) = seq.next_element::<Value>()? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut array = Array::new();
        while let Some(key) = map.next_key::<PhpStr>()? {
            array.insert(&key, map.next_value::<Value>()?);
        }
        Ok(Value::Array(array))
    }
}
