//! Keys by serde: strings and integers, and what PHP makes one of those of.

use serde::ser::{Impossible, Serialize, Serializer};

use super::too_large;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyRef};

pub(super) struct KeySer {
    // Taken as it is: a property may well be called "5".
    pub(super) literal: bool,
}

fn no_key<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Key, "PHP's arrays have strings and integers for keys"))
}

macro_rules! integer_keys {
    ($($name:ident: $t:ty),*) => {$(
        fn $name(self, n: $t) -> Result<Key> {
            i64::try_from(n).map(Key::Int).map_err(|_| too_large())
        }
    )*};
}

impl Serializer for KeySer {
    type Ok = Key;
    type Error = Error;
    type SerializeSeq = Impossible<Key, Error>;
    type SerializeTuple = Impossible<Key, Error>;
    type SerializeTupleStruct = Impossible<Key, Error>;
    type SerializeTupleVariant = Impossible<Key, Error>;
    type SerializeMap = Impossible<Key, Error>;
    type SerializeStruct = Impossible<Key, Error>;
    type SerializeStructVariant = Impossible<Key, Error>;

    integer_keys!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128);

    fn serialize_bool(self, value: bool) -> Result<Key> {
        Ok(Key::Int(i64::from(value)))
    }
    fn serialize_str(self, text: &str) -> Result<Key> {
        self.serialize_bytes(text.as_bytes())
    }
    fn serialize_bytes(self, bytes: &[u8]) -> Result<Key> {
        Ok(if self.literal { Key::Str(bytes.into()) } else { KeyRef::of(bytes).into() })
    }
    fn serialize_char(self, value: char) -> Result<Key> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Key> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Key> {
        value.serialize(self)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Key> {
        value.serialize(self)
    }
    fn serialize_f32(self, _: f32) -> Result<Key> {
        no_key()
    }
    fn serialize_f64(self, _: f64) -> Result<Key> {
        no_key()
    }
    fn serialize_none(self) -> Result<Key> {
        no_key()
    }
    fn serialize_unit(self) -> Result<Key> {
        no_key()
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Key> {
        no_key()
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Key> {
        no_key()
    }
    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq> {
        no_key()
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple> {
        no_key()
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct> {
        no_key()
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant> {
        no_key()
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap> {
        no_key()
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct> {
        no_key()
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant> {
        no_key()
    }
}
