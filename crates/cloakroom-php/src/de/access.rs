//! What serde's visitors see of arrays and objects: elements, pairs, a variant and its data.

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::key::KeyDe;
use super::{De, misplaced};
use crate::error::{Error, ErrorKind, Result};
use crate::key::KeyRef;
use crate::number::parse_int;
use crate::scan::{RawKey, key, plain_string};
use crate::value::bare_name;

pub(super) struct Elements<'d, 'a, 't> {
    pub(super) de: &'d mut De<'a, 't>,
    pub(super) left: u32,
    pub(super) next: i64,
}

impl<'a> SeqAccess<'a> for Elements<'_, 'a, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        let at = self.de.at;
        let (found, next) = key(self.de.buf, at).map_err(misplaced)?;
        let expected = KeyRef::Int(self.next);
        let found = match found {
            RawKey::Int(text) => parse_int(text) == self.next,
            other => other.to_key().as_ref() == expected,
        };
        if !found {
            return Err(Error::new(ErrorKind::Type, "expected a list: this key is missing or out of order")
                .at(at)
                .under(expected));
        }
        self.left -= 1;
        self.next += 1;
        self.de.at = next;
        seed.deserialize(&mut *self.de).map(Some).map_err(|error| error.under(expected))
    }

    fn size_hint(&self) -> Option<usize> {
        // What the bytes claim they have to pay for: an element takes at least six.
        Some((self.left as usize).min(self.de.buf.len() / 6))
    }
}

pub(super) struct Pairs<'d, 'a, 't> {
    pub(super) de: &'d mut De<'a, 't>,
    pub(super) left: u32,
    pub(super) object: bool,
    pub(super) key: KeyRef<'a>,
    // A key written as `S:`.
    pub(super) owned: Option<crate::Key>,
    // The names that a struct has, and which of them is likely to come next.
    pub(super) fields: &'static [&'static str],
    pub(super) field: usize,
}

impl Pairs<'_, '_, '_> {
    /// The struct's own word for this key: it is text already.
    #[inline]
    fn field(&mut self, name: &[u8]) -> Option<&'static str> {
        let is = |field: &&&str| field.as_bytes() == name;
        if let Some(field) = self.fields.get(self.field).filter(is) {
            self.field += 1;
            return Some(field);
        }
        let found = self.fields.iter().position(|field| is(&field))?;
        self.field = found + 1;
        Some(self.fields[found])
    }
}

impl<'a> MapAccess<'a> for Pairs<'_, 'a, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if self.left == 0 {
            return Ok(None);
        }
        let at = self.de.at;
        if !self.object
            && let Some((name, next)) = plain_string(self.de.buf, at)
            && let Some(text) = self.field(name)
        {
            self.left -= 1;
            self.de.at = next;
            (self.key, self.owned) = (KeyRef::of(name), None);
            let key = KeyDe { key: self.key, borrowed: Some(self.key), text: Some(text) };
            return seed.deserialize(key).map(Some).map_err(|error| error.at(at));
        }
        let (raw, next) = key(self.de.buf, at).map_err(misplaced)?;
        self.left -= 1;
        self.de.at = next;
        self.owned = None;
        let mut text = None;
        match raw {
            RawKey::Int(digits) => self.key = KeyRef::Int(parse_int(digits)),
            RawKey::Str(name) => {
                let bare = if self.object { bare_name(name) } else { name };
                text = self.field(bare);
                if text.is_none() {
                    // Bytes that are no text are given as bytes.
                    text = self.de.checked.text(self.de.buf, next - 2 - bare.len(), next - 2).ok();
                }
                self.key = if self.object { KeyRef::Str(bare) } else { KeyRef::of(bare) };
            }
            escaped @ RawKey::Escaped(..) => {
                let owned = self.owned.insert(escaped.to_key());
                return seed.deserialize(KeyDe { key: owned.as_ref(), borrowed: None, text: None }).map(Some);
            }
        }
        let key = KeyDe { key: self.key, borrowed: Some(self.key), text };
        seed.deserialize(key).map(Some).map_err(|error| error.at(at))
    }

    fn next_value_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<T::Value> {
        let result = seed.deserialize(&mut *self.de);
        result.map_err(|error| error.under(self.owned.as_ref().map_or(self.key, crate::Key::as_ref)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some((self.left as usize).min(self.de.buf.len() / 6))
    }
}

/// A variant with data: the one key of an array, and what stands under it.
pub(super) struct Variant<'d, 'k, 'a, 't> {
    pub(super) de: &'d mut De<'a, 't>,
    pub(super) name: KeyRef<'k>,
}

impl<'a> EnumAccess<'a> for Variant<'_, '_, 'a, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<(T::Value, Self)> {
        let name = seed.deserialize(KeyDe { key: self.name, borrowed: None, text: None })?;
        Ok((name, self))
    }
}

impl<'a> VariantAccess<'a> for Variant<'_, '_, 'a, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<()> {
        <()>::deserialize(self.de)
    }
    fn newtype_variant_seed<T: DeserializeSeed<'a>>(self, seed: T) -> Result<T::Value> {
        seed.deserialize(self.de)
    }
    fn tuple_variant<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.de.deserialize_seq(visitor)
    }
    fn struct_variant<V: Visitor<'a>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.de.deserialize_struct("", fields, visitor)
    }
}
