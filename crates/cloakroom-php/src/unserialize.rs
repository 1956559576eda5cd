//! Bytes to values: `php_var_unserialize` of `ext/standard/var_unserializer.re`, without recursion.

use crate::array::Array;
use crate::bag::graph::Graph;
use crate::bag::targets::{self, Targets};
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::key::{Key, KeyRef};
use crate::number::{parse_float, parse_int};
use crate::scan::{Head, RawKey, Scan, Sink, Walker, unescape};
use crate::trail::Trail;
use crate::value::{Custom, Enum, Object, PhpStr, Reference, Value};

/// Whether references are in the bytes of one value, which is all there is to remember of a walk over them.
#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) references: bool,
}

impl<'a> Sink<'a> for Facts {
    const BLIND: bool = true;

    #[inline]
    fn head(&mut self, head: Head<'a>, _: usize, _: usize) -> Scan<()> {
        self.references |= matches!(head, Head::Alias(_) | Head::Handle(_));
        Ok(())
    }
}

/// Checks that the bytes are one value, whole, as PHP would read it; says what its references mean.
pub(crate) fn check(bytes: &[u8]) -> Result<Targets> {
    let mut facts = Facts::default();
    let end = Walker::default().value(bytes, 0, 0, &mut facts).map_err(|fault| with_path(bytes, fault))?;
    if end != bytes.len() {
        return Err(Error::data(
            Fault { kind: ErrorKind::Trailing, at: end, what: "bytes behind the value" },
            Vec::new(),
        ));
    }
    if facts.references { targets::of_value(bytes) } else { Ok(Vec::new()) }
}

/// Walks again, to name the key under which it stopped.
#[cold]
pub(crate) fn with_path(bytes: &[u8], fault: Fault) -> Error {
    let mut trail = Trail::default();
    let again = Walker::default().value(bytes, 0, 0, &mut trail);
    Error::data(fault, if again.is_err() { trail.steps() } else { Vec::new() })
}

/// Builds a value from bytes that have been checked and have no references.
#[derive(Default)]
struct Builder {
    // The arrays and objects that are open, and the key under which each will stand.
    open: Vec<(Value, Option<Key>)>,
    key: Option<Key>,
    done: Value,
}

impl Builder {
    fn finish(&mut self, value: Value, key: Option<Key>) {
        match (self.open.last_mut().and_then(|(parent, _)| parent.elements_mut()), key) {
            (Some(elements), Some(key)) => {
                elements.put(key, value);
            }
            _ => self.done = value,
        }
    }
}

impl<'a> Sink<'a> for Builder {
    fn key(&mut self, key: RawKey<'a>, _: usize, _: usize, _: usize) -> Scan<()> {
        let object = match self.open.last() {
            Some((Value::Object(object), _)) => Some(object),
            _ => None,
        };
        self.key = Some(match object {
            None => key.to_key(),
            Some(object) => property_key(key, object.class()),
        });
        Ok(())
    }

    fn head(&mut self, head: Head<'a>, _: usize, _: usize) -> Scan<()> {
        let value = match head {
            // The bytes have been walked before: so many elements there are.
            Head::Array(n) => Value::Array(Array::with_room(n as usize)),
            Head::Object(class, n) => Value::Object(Object::new(class_name(class), Array::with_room(n as usize))),
            scalar => {
                let key = self.key.take();
                self.finish(scalar_value(scalar), key);
                return Ok(());
            }
        };
        self.open.push((value, self.key.take()));
        Ok(())
    }

    fn close(&mut self, _: usize) -> Scan<()> {
        if let Some((mut value, key)) = self.open.pop() {
            if let Some(elements) = value.elements_mut() {
                elements.shrink();
            }
            self.finish(value, key);
        }
        Ok(())
    }
}

/// PHP knows one class wherever it runs, and writes its name as it was declared.
pub(crate) fn class_name(class: &[u8]) -> &[u8] {
    if class.eq_ignore_ascii_case(b"stdClass") { b"stdClass" } else { class }
}

/// Properties are called by strings, also `"5"`. What `__serialize()` gave may have integers, so only for the class
/// that is known not to have that method does an integer become a string.
pub(crate) fn property_key(key: RawKey<'_>, class: &[u8]) -> Key {
    match key {
        RawKey::Int(text) if class == b"stdClass" => {
            Key::Str(itoa::Buffer::new().format(parse_int(text)).as_bytes().into())
        }
        RawKey::Int(text) => Key::Int(parse_int(text)),
        RawKey::Str(text) => Key::Str(text.into()),
        RawKey::Escaped(len, text) => Key::Str(unescape(len, text).into()),
    }
}

fn scalar_value(head: Head<'_>) -> Value {
    match head {
        Head::Null | Head::Array(_) | Head::Object(..) => Value::Null,
        Head::Bool(value) => Value::Bool(value),
        Head::Int(text) => Value::Int(parse_int(text)),
        Head::Float(text) => Value::Float(parse_float(text)),
        Head::Str(text) => Value::String(text.into()),
        Head::Escaped(len, text) => Value::String(unescape(len, text).into()),
        Head::Custom(class, payload) => {
            Value::Custom(Box::new(Custom { class: class.into(), payload: payload.into() }))
        }
        Head::Enum(class, case) => Value::Enum(Box::new(Enum { class: class.into(), case: case.into() })),
        Head::Alias(n) => Value::Reference(Reference::Alias(n)),
        Head::Handle(n) => Value::Reference(Reference::Handle(n)),
    }
}

/// Builds a value from bytes that have been checked.
pub(crate) fn build(bytes: &[u8], references: bool) -> Result<Value> {
    // With references, duplicate keys would shift what the numbers mean: written anew there are none.
    let anew;
    let bytes = if references {
        anew = Graph::of_value(bytes)?.canonical_value(crate::number::Precision::Digits(17))?;
        &anew
    } else {
        bytes
    };
    let mut builder = Builder::default();
    Walker::default().value(bytes, 0, 0, &mut builder).map_err(|fault| with_path(bytes, fault))?;
    Ok(builder.done)
}

impl Value {
    /// What PHP's `unserialize()` makes of these bytes; unlike PHP, nothing may stand behind the value.
    ///
    /// ```
    /// use cloakroom_php::Value;
    /// let value = Value::unserialize(br#"a:2:{i:0;s:3:"tea";s:1:"n";i:2;}"#)?;
    /// assert_eq!(value.as_array().and_then(|a| a.get("n")).and_then(Value::as_int), Some(2));
    /// # Ok::<(), cloakroom_php::Error>(())
    /// ```
    pub fn unserialize(bytes: &[u8]) -> Result<Self> {
        let targets = check(bytes)?;
        build(bytes, !targets.is_empty())
    }
}

impl From<KeyRef<'_>> for PhpStr {
    fn from(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Int(n) => itoa::Buffer::new().format(n).as_bytes().into(),
            KeyRef::Str(bytes) => bytes.into(),
        }
    }
}
