//! Keys by serde.

use serde::de::{Deserializer, IntoDeserializer, Visitor};

use super::text::text;
use crate::error::{Error, Result};
use crate::key::KeyRef;

/// A key: integers are also read as text, because PHP made integers of `"5"`, and the other way round.
pub(super) struct KeyDe<'k, 'a> {
    pub(super) key: KeyRef<'k>,
    pub(super) borrowed: Option<KeyRef<'a>>,
    /// The key's bytes, where they are known to be text.
    pub(super) text: Option<&'a str>,
}

impl<'de> Deserializer<'de> for KeyDe<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.key {
            KeyRef::Int(n) => visitor.visit_i64(n),
            KeyRef::Str(_) => self.deserialize_str(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if let Some(text) = self.text {
            return visitor.visit_borrowed_str(text);
        }
        match (self.key, self.borrowed) {
            (KeyRef::Int(n), _) => visitor.visit_str(itoa::Buffer::new().format(n)),
            (_, Some(KeyRef::Str(bytes))) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(bytes),
            },
            (KeyRef::Str(bytes), _) => visitor.visit_str(text(bytes)?),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match (self.key, self.borrowed) {
            (KeyRef::Int(n), _) => visitor.visit_bytes(itoa::Buffer::new().format(n).as_bytes()),
            (_, Some(KeyRef::Str(bytes))) => visitor.visit_borrowed_bytes(bytes),
            (KeyRef::Str(bytes), _) => visitor.visit_bytes(bytes),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        // PHP makes 0 and 1 of booleans.
        match self.key {
            KeyRef::Int(n @ 0..=1) => visitor.visit_bool(n == 1),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.key {
            KeyRef::Int(n) => visitor.visit_enum(itoa::Buffer::new().format(n).into_deserializer()),
            KeyRef::Str(bytes) => visitor.visit_enum(text(bytes)?.into_deserializer()),
        }
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 unit unit_struct seq tuple tuple_struct map struct
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }
}
