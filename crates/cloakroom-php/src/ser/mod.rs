//! Writing by serde; the table of what becomes what is in [`crate::serde_mapping`].

mod key;

use key::KeySer;
use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyRef};
use crate::options::Options;
use crate::scan::MAX_DEPTH;
use crate::serialize;
use crate::value_serde::{CUSTOM, ENUM, OBJECT, ORDERED, REFERENCE};

/// Encodes a value as PHP's `serialize()` would.
///
/// ```
/// assert_eq!(cloakroom_php::to_vec(&("tea", 2))?, br#"a:2:{i:0;s:3:"tea";i:1;i:2;}"#);
/// # Ok::<(), cloakroom_php::Error>(())
/// ```
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    to_vec_with(value, Options::default())
}

/// [`to_vec`] with other [`Options`].
pub fn to_vec_with<T: Serialize + ?Sized>(value: &T, options: Options) -> Result<Vec<u8>> {
    written(value, options).map(|(bytes, _)| bytes)
}

/// The bytes, and whether they are known to be what PHP reads: arrays and scalars alone, nested less deep than PHP
/// allows, with a level to spare for the array of a session.
pub(crate) fn written<T: Serialize + ?Sized>(value: &T, options: Options) -> Result<(Vec<u8>, bool)> {
    let mut ser = Ser { out: Vec::with_capacity(128), options, depth: 0, ordered: false, named: false };
    value.serialize(&mut ser)?;
    let known = !ser.named && usize::from(options.serde_depth) < MAX_DEPTH;
    Ok((ser.out, known))
}

impl serde::ser::Error for Error {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::custom(message)
    }
}

struct Ser {
    out: Vec<u8>,
    options: Options,
    depth: u16,
    // The next map is one of ours and has its order and keys already.
    ordered: bool,
    // Names of classes or cases, or payloads, have been written as they were given.
    named: bool,
}

fn too_large() -> Error {
    Error::new(ErrorKind::Number, "an integer beyond PHP's 64 bits")
}

impl Ser {
    fn int(&mut self, n: i64) {
        serialize::write_int(&mut self.out, n);
    }

    fn open(&mut self, len: Option<usize>) -> Result<Elements<'_>> {
        if self.depth >= self.options.serde_depth {
            return Err(Error::new(ErrorKind::Depth, "nested deeper than serde is allowed to go"));
        }
        self.depth += 1;
        let start = self.out.len();
        if let Some(len) = len {
            serialize::write_array_head(&mut self.out, len);
        }
        let body = self.out.len();
        let ordered = std::mem::take(&mut self.ordered);
        Ok(Elements {
            ser: self,
            start,
            body,
            said: len,
            count: 0,
            keys: Vec::new(),
            ordered,
            close: false,
            mode: Mode::Array,
        })
    }

    /// `array(variant => …)`
    fn open_variant(&mut self, variant: &str, len: usize) -> Result<Elements<'_>> {
        serialize::write_array_head(&mut self.out, 1);
        serialize::write_key(&mut self.out, KeyRef::of(variant.as_bytes()));
        self.depth += 1;
        let mut elements = self.open(Some(len))?;
        elements.close = true;
        Ok(elements)
    }
}

/// What a struct stands for.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Array,
    Object,
    Enum,
    Custom,
}

/// An array that is being written.
struct Elements<'s> {
    ser: &'s mut Ser,
    start: usize,
    body: usize,
    said: Option<usize>,
    count: usize,
    // Of a map: each key, and where its entry begins.
    keys: Vec<(Key, usize)>,
    ordered: bool,
    close: bool,
    mode: Mode,
}

impl Elements<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let at = i64::try_from(self.count).unwrap_or(i64::MAX);
        self.ser.int(at);
        self.count += 1;
        value.serialize(&mut *self.ser).map_err(|error| error.under(KeyRef::Int(at)))
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        let key = KeyRef::of(name.as_bytes());
        serialize::write_key(&mut self.ser.out, key);
        self.count += 1;
        value.serialize(&mut *self.ser).map_err(|error| error.under(key))
    }

    /// Maps may come in any order, which would be another session each time: they are written by key.
    fn sort(&mut self) {
        let sorted = self.keys.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if sorted || self.ordered {
            return;
        }
        let end = self.ser.out.len();
        let ends: Vec<usize> = self.keys.iter().skip(1).map(|(_, at)| *at).chain([end]).collect();
        let mut entries: Vec<(&Key, usize, usize)> =
            self.keys.iter().zip(ends).map(|((key, at), end)| (key, *at, end)).collect();
        entries.sort_by(|a, b| a.0.cmp(b.0));
        // Of equal keys, such as "5" and 5, the last is the one that PHP's array would keep.
        let mut body: Vec<u8> = Vec::with_capacity(end - self.body);
        self.count = 0;
        for (n, (key, at, end)) in entries.iter().enumerate() {
            if entries.get(n + 1).is_none_or(|next| next.0 != *key) {
                body.extend_from_slice(&self.ser.out[*at..*end]);
                self.count += 1;
            }
        }
        self.ser.out.truncate(self.body);
        self.ser.out.extend_from_slice(&body);
    }

    fn finish(mut self) {
        self.sort();
        self.ser.depth -= 1;
        if self.said != Some(self.count) {
            let mut head = Vec::with_capacity(24);
            serialize::write_array_head(&mut head, self.count);
            self.ser.out.splice(self.start..self.body, head);
        }
        self.ser.out.push(b'}');
        if self.close {
            self.ser.depth -= 1;
            self.ser.out.push(b'}');
        }
    }

    /// One of our own structs: its two fields, each serialized, become `O:`, `E:` or `C:`.
    fn finish_special(self) -> Result<()> {
        self.ser.depth -= 1;
        let fields = self.ser.out.split_off(self.start);
        let malformed = || Error::new(ErrorKind::Unsupported, "not a value of PHP");
        let string = |at: usize| match crate::scan::head(&fields, at) {
            Ok((crate::scan::Head::Str(text), end)) => Ok((text, end)),
            _ => Err(malformed()),
        };
        let (class, end) = string(0)?;
        let out = &mut self.ser.out;
        let from = out.len();
        match self.mode {
            Mode::Array | Mode::Object => {
                let properties = fields.get(end..).and_then(|rest| rest.strip_prefix(b"a:")).ok_or_else(malformed)?;
                serialize::write_counted(out, b'O', &[class], b':');
                out.extend_from_slice(properties);
            }
            Mode::Enum => serialize::write_counted(out, b'E', &[class, b":", string(end)?.0], b';'),
            Mode::Custom => serialize::write_custom(out, class, string(end)?.0),
        }
        // Names of classes and cases come from the caller.
        crate::scan::head(&self.ser.out, from).map_err(|fault| Error::new(ErrorKind::Unsupported, fault.what))?;
        Ok(())
    }
}

macro_rules! integers {
    ($($name:ident: $t:ty),*) => {$(
        fn $name(self, n: $t) -> Result<()> {
            self.int(i64::from(n));
            Ok(())
        }
    )*};
}

impl<'s> Serializer for &'s mut Ser {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Elements<'s>;
    type SerializeTuple = Elements<'s>;
    type SerializeTupleStruct = Elements<'s>;
    type SerializeTupleVariant = Elements<'s>;
    type SerializeMap = Elements<'s>;
    type SerializeStruct = Elements<'s>;
    type SerializeStructVariant = Elements<'s>;

    integers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_u8: u8,
        serialize_u16: u16, serialize_u32: u32);

    fn serialize_u64(self, n: u64) -> Result<()> {
        self.int(i64::try_from(n).map_err(|_| too_large())?);
        Ok(())
    }
    fn serialize_i128(self, n: i128) -> Result<()> {
        self.int(i64::try_from(n).map_err(|_| too_large())?);
        Ok(())
    }
    fn serialize_u128(self, n: u128) -> Result<()> {
        self.int(i64::try_from(n).map_err(|_| too_large())?);
        Ok(())
    }
    fn serialize_bool(self, value: bool) -> Result<()> {
        self.out.extend_from_slice(if value { b"b:1;" } else { b"b:0;" });
        Ok(())
    }
    fn serialize_f32(self, value: f32) -> Result<()> {
        self.serialize_f64(f64::from(value))
    }
    fn serialize_f64(self, value: f64) -> Result<()> {
        serialize::write_double(&mut self.out, value, self.options.serialize_precision);
        Ok(())
    }
    fn serialize_char(self, value: char) -> Result<()> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, text: &str) -> Result<()> {
        self.serialize_bytes(text.as_bytes())
    }
    fn serialize_bytes(self, bytes: &[u8]) -> Result<()> {
        serialize::write_str(&mut self.out, bytes);
        Ok(())
    }
    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<()> {
        self.out.extend_from_slice(b"N;");
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<()> {
        self.ordered = name == ORDERED;
        let result = value.serialize(&mut *self);
        self.ordered = false;
        result
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let mut elements = self.open(Some(1))?;
        elements.field(variant, value)?;
        elements.finish();
        Ok(())
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Elements<'s>> {
        self.open(len)
    }
    fn serialize_tuple(self, len: usize) -> Result<Elements<'s>> {
        self.open(Some(len))
    }
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Elements<'s>> {
        self.open(Some(len))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Elements<'s>> {
        self.open_variant(variant, len)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Elements<'s>> {
        self.open(len)
    }
    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Elements<'s>> {
        let mode = match name {
            OBJECT => Mode::Object,
            ENUM => Mode::Enum,
            CUSTOM => Mode::Custom,
            REFERENCE => {
                let what = "a reference can only be set as part of a whole value: use set_value";
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
            _ => return self.open(Some(len)),
        };
        self.named = true;
        let mut elements = self.open(None)?;
        elements.mode = mode;
        Ok(elements)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Elements<'s>> {
        self.open_variant(variant, len)
    }
    fn is_human_readable(&self) -> bool {
        true
    }
}

macro_rules! sequences {
    ($($trait:ident::$method:ident),*) => {$(
        impl $trait for Elements<'_> {
            type Ok = ();
            type Error = Error;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.element(value)
            }
            fn end(self) -> Result<()> {
                self.finish();
                Ok(())
            }
        }
    )*};
}
sequences!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

impl SerializeMap for Elements<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        let start = self.ser.out.len();
        let key = key.serialize(KeySer { literal: self.ordered })?;
        serialize::write_key(&mut self.ser.out, key.as_ref());
        self.keys.push((key, start));
        self.count += 1;
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let result = value.serialize(&mut *self.ser);
        result.map_err(|error| match self.keys.last() {
            Some((key, _)) => error.under(key.as_ref()),
            None => error,
        })
    }
    fn end(self) -> Result<()> {
        self.finish();
        Ok(())
    }
}

impl SerializeStruct for Elements<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        if self.mode == Mode::Array { self.field(name, value) } else { value.serialize(&mut *self.ser) }
    }
    fn end(self) -> Result<()> {
        if self.mode != Mode::Array {
            return self.finish_special();
        }
        self.finish();
        Ok(())
    }
}

impl SerializeStructVariant for Elements<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<()> {
        self.field(name, value)
    }
    fn end(self) -> Result<()> {
        self.finish();
        Ok(())
    }
}
