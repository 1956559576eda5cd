//! Reading by serde, straight from the bytes; the table of what becomes what is in [`crate::serde_mapping`].

mod access;
mod error;
mod key;
mod text;

use serde::Deserialize;
use serde::de::{Deserializer, IntoDeserializer, Visitor};

use access::{Elements, Pairs, Variant};
use error::wrong;
use text::{Checked, text};

use crate::bag::Bag;
use crate::bag::graph::Graph;
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::key::KeyRef;
use crate::loose;
use crate::number::{parse_float, parse_int};
use crate::options::Options;
use crate::scan::{Head, RawKey, Walker, head, key, opening, plain_float, plain_integer, plain_string, unescape};
use crate::unserialize::{Facts, check};
use crate::value_serde::VALUE;

/// Decodes one serialized value, as PHP's `unserialize()` would with serde's types in place of PHP's.
///
/// ```
/// let cart: Vec<u32> = cloakroom_php::from_slice(b"a:2:{i:0;i:7;i:1;i:9;}")?;
/// assert_eq!(cart, [7, 9]);
/// # Ok::<(), cloakroom_php::Error>(())
/// ```
pub fn from_slice<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    from_slice_with(bytes, Options::default())
}

/// [`from_slice`] with other [`Options`].
pub fn from_slice_with<'a, T: Deserialize<'a>>(bytes: &'a [u8], options: Options) -> Result<T> {
    let targets = check(bytes)?;
    let mut de = De::new(bytes, 0, options, None, &targets);
    T::deserialize(&mut de)
}

/// Decodes what begins at this byte of a session; `null` is `None`.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bag: &'a Bag, at: usize) -> Result<Option<T>> {
    let mut de = De::new(bag.as_bytes(), at, bag.options(), Some(bag), bag.targets());
    if de.is_null()? { Ok(None) } else { T::deserialize(&mut de).map(Some) }
}

struct De<'a, 't> {
    buf: &'a [u8],
    at: usize,
    options: Options,
    bag: Option<&'a Bag>,
    // Where what each reference means is written.
    targets: &'t [(u32, u32)],
    depth: u16,
    // Bytes that may still be read through references, which can multiply without end.
    budget: usize,
    walker: Walker,
    checked: Checked<'a>,
    // Made when a value of PHP with references is asked for.
    graph: Option<Box<Graph<'a>>>,
}

/// A head, where it began, and where to go on after its value if that lies elsewhere.
struct Opened<'a> {
    head: Head<'a>,
    start: usize,
    jumped: Option<(usize, usize)>,
}

fn misplaced(fault: Fault) -> Error {
    Error::data(fault, Vec::new())
}

impl<'a, 't> De<'a, 't> {
    fn new(buf: &'a [u8], at: usize, options: Options, bag: Option<&'a Bag>, targets: &'t [(u32, u32)]) -> Self {
        let budget = buf.len().saturating_mul(16).saturating_add(1 << 16);
        let (walker, checked) = (Walker::default(), Checked::default());
        Self { buf, at, options, bag, targets, depth: 0, budget, walker, checked, graph: None }
    }

    fn target(&self, at: usize) -> Result<usize> {
        let found = self.targets.binary_search_by_key(&at, |(from, _)| *from as usize).ok();
        let target = found.map_or(at, |found| self.targets[found].1 as usize);
        if target == at {
            let what = "a reference whose number only the class of a `C:` payload before it knows";
            return Err(Error::new(ErrorKind::Unsupported, what).at(at));
        }
        Ok(target)
    }

    #[inline]
    fn is_null(&self) -> Result<bool> {
        let at = match self.buf.get(self.at) {
            Some(b'R' | b'r') => self.target(self.at)?,
            _ => self.at,
        };
        Ok(self.buf.get(at) == Some(&b'N'))
    }

    fn open(&mut self) -> Result<Opened<'a>> {
        let start = self.at;
        let (first, end) = head(self.buf, start).map_err(misplaced)?;
        if !matches!(first, Head::Alias(_) | Head::Handle(_)) {
            self.at = end;
            return Ok(Opened { head: first, start, jumped: None });
        }
        let target = self.target(start)?;
        let (head, inner) = head(self.buf, target).map_err(misplaced)?;
        self.at = inner;
        Ok(Opened { head, start, jumped: Some((target, end)) })
    }

    /// After a value: back to where it was referred from.
    fn closed(&mut self, opened: &Opened<'_>) -> Result<()> {
        if let Some((target, resume)) = opened.jumped {
            self.pay(self.at.saturating_sub(target), opened.start)?;
            self.at = resume;
        }
        Ok(())
    }

    fn pay(&mut self, bytes: usize, at: usize) -> Result<()> {
        let what = "references that multiply beyond measure";
        let left = self.budget.checked_sub(bytes.max(1));
        self.budget = left.ok_or_else(|| Error::new(ErrorKind::Limit, what).at(at))?;
        Ok(())
    }

    /// What begins at this byte, serialized by itself.
    fn serialized_at(&mut self, at: usize) -> Result<Vec<u8>> {
        let graph = match &mut self.graph {
            Some(graph) => graph,
            none => none.insert(Box::new(match self.bag {
                Some(bag) => bag.graph()?,
                None => Graph::of_value(self.buf)?,
            })),
        };
        let bytes = graph.serialized_at(at, self.options.serialize_precision)?;
        self.pay(bytes.len(), at)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> Result<()> {
        self.at = self.walker.value(self.buf, self.at, 0, &mut ()).map_err(misplaced)?;
        Ok(())
    }

    fn enter(&mut self, at: usize) -> Result<()> {
        if self.depth >= self.options.serde_depth {
            return Err(Error::new(ErrorKind::Depth, "nested deeper than serde is allowed to go").at(at));
        }
        self.depth += 1;
        Ok(())
    }

    /// Reads a scalar.
    fn scalar<R>(&mut self, read: impl FnOnce(&Head<'a>, Options) -> Result<R>) -> Result<R> {
        let opened = self.open()?;
        let result = read(&opened.head, self.options).map_err(|error| error.at(opened.start));
        self.closed(&opened)?;
        result
    }

    fn end(&mut self, opened: &Opened<'_>, left: u32) -> Result<()> {
        self.depth -= 1;
        if left > 0 {
            return Err(Error::new(ErrorKind::Type, "more elements than were asked for").at(opened.start));
        }
        if self.buf.get(self.at) != Some(&b'}') {
            return Err(misplaced(crate::scan::fault(self.buf, self.at, "expected `}` after the last element")));
        }
        self.at += 1;
        self.closed(opened)
    }

    fn seq<V: Visitor<'a>>(&mut self, opened: &Opened<'a>, n: u32, visitor: V) -> Result<V::Value> {
        self.enter(opened.start)?;
        let mut elements = Elements { de: self, left: n, next: 0 };
        let value = visitor.visit_seq(&mut elements).map_err(|error| error.at(opened.start))?;
        let left = elements.left;
        self.end(opened, left)?;
        Ok(value)
    }

    fn map<V: Visitor<'a>>(
        &mut self,
        opened: &Opened<'a>,
        n: u32,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.enter(opened.start)?;
        let object = matches!(opened.head, Head::Object(..));
        let mut elements = Pairs { de: self, left: n, object, key: KeyRef::Int(0), owned: None, fields, field: 0 };
        let value = visitor.visit_map(&mut elements).map_err(|error| error.at(opened.start))?;
        let left = elements.left;
        self.end(opened, left)?;
        Ok(value)
    }

    /// Whether the next `n` elements have the keys 0, 1, 2 and so on.
    fn is_list(&mut self, n: u32) -> bool {
        let mut at = self.at;
        for expected in 0..i64::from(n) {
            let Ok((RawKey::Int(text), next)) = key(self.buf, at) else { return false };
            if parse_int(text) != expected {
                return false;
            }
            match self.walker.value(self.buf, next, 0, &mut ()) {
                Ok(end) => at = end,
                Err(_) => return false,
            }
        }
        true
    }
}

fn visit_string<'a, V: Visitor<'a>>(head: &Head<'a>, options: Options, visitor: V) -> Result<V::Value> {
    match *head {
        Head::Str(bytes) => visitor.visit_borrowed_str(text(bytes)?),
        Head::Escaped(len, raw) => visitor.visit_str(text(&unescape(len, raw))?),
        Head::Int(raw) if options.loose => visitor.visit_str(itoa::Buffer::new().format(parse_int(raw))),
        Head::Float(raw) if options.loose => {
            let mut out = Vec::new();
            crate::number::write_float(&mut out, parse_float(raw), options.serialize_precision);
            visitor.visit_str(text(&out)?)
        }
        ref head => Err(wrong(head, &visitor)),
    }
}

macro_rules! integers {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
            if let Some((raw, next)) = plain_integer(self.buf, self.at) {
                let start = std::mem::replace(&mut self.at, next);
                return visitor.visit_i64(parse_int(raw)).map_err(|error: Error| error.at(start));
            }
            self.scalar(|head, options| match *head {
                Head::Int(raw) => visitor.visit_i64(parse_int(raw)),
                ref head => match loose::int(head).filter(|_| options.loose) {
                    Some(n) => visitor.visit_i64(n),
                    None => Err(wrong(head, &visitor)),
                },
            })
        }
    )*};
}

impl<'a> Deserializer<'a> for &mut De<'a, '_> {
    type Error = Error;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        if let Some((raw, next)) = plain_string(self.buf, self.at) {
            let start = std::mem::replace(&mut self.at, next);
            let value = match self.checked.text(self.buf, next - 2 - raw.len(), next - 2) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(raw),
            };
            return value.map_err(|error: Error| error.at(start));
        }
        let opened = self.open()?;
        let value = match opened.head {
            Head::Array(n) if self.is_list(n) => return self.seq(&opened, n, visitor),
            Head::Array(n) | Head::Object(_, n) => return self.map(&opened, n, &[], visitor),
            Head::Null => visitor.visit_unit(),
            Head::Bool(value) => visitor.visit_bool(value),
            Head::Int(raw) => visitor.visit_i64(parse_int(raw)),
            Head::Float(raw) => visitor.visit_f64(parse_float(raw)),
            Head::Str(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(bytes),
            },
            Head::Escaped(len, raw) => match String::from_utf8(unescape(len, raw)) {
                Ok(text) => visitor.visit_string(text),
                Err(error) => visitor.visit_byte_buf(error.into_bytes()),
            },
            Head::Enum(_, case) => text(case).and_then(|case| visitor.visit_borrowed_str(case)),
            Head::Custom(..) | Head::Alias(_) | Head::Handle(_) => Err(wrong(&opened.head, &visitor)),
        };
        let value = value.map_err(|error| error.at(opened.start))?;
        self.closed(&opened)?;
        Ok(value)
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.scalar(|head, options| match *head {
            Head::Bool(value) => visitor.visit_bool(value),
            ref head => match loose::bool(head).filter(|_| options.loose) {
                Some(value) => visitor.visit_bool(value),
                None => Err(wrong(head, &visitor)),
            },
        })
    }

    fn deserialize_f32<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        if let Some((raw, next)) = plain_float(self.buf, self.at) {
            let start = std::mem::replace(&mut self.at, next);
            return visitor.visit_f64(parse_float(raw)).map_err(|error: Error| error.at(start));
        }
        self.scalar(|head, options| match *head {
            Head::Float(raw) => visitor.visit_f64(parse_float(raw)),
            // 5.0 that PHP computed as an integer.
            Head::Int(raw) => match loose::exact(parse_int(raw)) {
                Some(value) => visitor.visit_f64(value),
                None => Err(Error::new(ErrorKind::Number, "an integer that no float is equal to")),
            },
            ref head => match loose::float(head).filter(|_| options.loose) {
                Some(value) => visitor.visit_f64(value),
                None => Err(wrong(head, &visitor)),
            },
        })
    }

    fn deserialize_char<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        if let Some((raw, next)) = plain_string(self.buf, self.at) {
            let start = std::mem::replace(&mut self.at, next);
            let found = self.checked.text(self.buf, next - 2 - raw.len(), next - 2);
            return found.and_then(|text| visitor.visit_borrowed_str(text)).map_err(|error| error.at(start));
        }
        self.scalar(|head, options| visit_string(head, options, visitor))
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.scalar(|head, _| match *head {
            Head::Str(bytes) => visitor.visit_borrowed_bytes(bytes),
            Head::Escaped(len, raw) => visitor.visit_byte_buf(unescape(len, raw)),
            ref head => Err(wrong(head, &visitor)),
        })
    }

    fn deserialize_byte_buf<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        if self.is_null()? { self.scalar(|_, _| visitor.visit_none()) } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.scalar(|head, _| match head {
            Head::Null => visitor.visit_unit(),
            head => Err(wrong(head, &visitor)),
        })
    }

    fn deserialize_unit_struct<V: Visitor<'a>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name != VALUE {
            return visitor.visit_newtype_struct(self);
        }
        // A value of PHP: its bytes, by themselves.
        let start = self.at;
        let mut facts = Facts::default();
        self.at = self.walker.value(self.buf, start, 0, &mut facts).map_err(misplaced)?;
        if !facts.references {
            return visitor.visit_borrowed_bytes(&self.buf[start..self.at]);
        }
        if self.bag.is_none() && start == 0 {
            return visitor.visit_bytes(self.buf);
        }
        let bytes = self.serialized_at(start)?;
        visitor.visit_bytes(&bytes)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        if let Some((n, next)) = opening(self.buf, self.at) {
            let start = std::mem::replace(&mut self.at, next);
            return self.seq(&Opened { head: Head::Array(n), start, jumped: None }, n, visitor);
        }
        let opened = self.open()?;
        match opened.head {
            Head::Array(n) => self.seq(&opened, n, visitor),
            head => Err(wrong(&head, &visitor).at(opened.start)),
        }
    }

    fn deserialize_tuple<V: Visitor<'a>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'a>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_struct("", &[], visitor)
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        if let Some((n, next)) = opening(self.buf, self.at) {
            let start = std::mem::replace(&mut self.at, next);
            return self.map(&Opened { head: Head::Array(n), start, jumped: None }, n, fields, visitor);
        }
        let opened = self.open()?;
        match opened.head {
            Head::Array(n) | Head::Object(_, n) => self.map(&opened, n, fields, visitor),
            head => Err(wrong(&head, &visitor).at(opened.start)),
        }
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let opened = self.open()?;
        let value = match opened.head {
            Head::Str(name) | Head::Enum(_, name) => {
                text(name).and_then(|name| visitor.visit_enum(name.into_deserializer()))
            }
            Head::Escaped(len, raw) => {
                text(&unescape(len, raw)).and_then(|name| visitor.visit_enum(name.into_deserializer()))
            }
            Head::Array(1) => {
                self.enter(opened.start)?;
                let (name, next) = key(self.buf, self.at).map_err(misplaced)?;
                self.at = next;
                let name = name.to_key();
                let value = visitor
                    .visit_enum(Variant { de: self, name: name.as_ref() })
                    .map_err(|error| error.under(name.as_ref()).at(opened.start))?;
                return self.end(&opened, 0).map(|()| value);
            }
            ref head => Err(wrong(head, &"a variant's name, an enum, or an array of one key")),
        };
        let value = value.map_err(|error| error.at(opened.start))?;
        self.closed(&opened)?;
        Ok(value)
    }

    fn deserialize_identifier<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value> {
        self.skip()?;
        visitor.visit_unit()
    }
}
