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

/// The numbers that references have in a value by itself.
struct Numbers<'t> {
    targets: &'t [(u32, u32)],
    // Where what each number counts is written.
    slots: Vec<u32>,
    // How many values the numbers in the bytes count before this one.
    before: Option<u64>,
}

/// What the graph has to write anew first.
#[cold]
fn unclear(at: usize) -> Fault {
    Fault { kind: ErrorKind::Reference, at, what: "a reference that may have another number" }
}

impl Numbers<'_> {
    /// A head as it is in the value by itself.
    fn renumber<'a>(&mut self, head: Head<'a>, at: usize) -> Scan<Head<'a>> {
        let here = u32::try_from(at).map_err(|_| unclear(at))?;
        let (Head::Alias(written) | Head::Handle(written)) = head else {
            // What payloads count is not known, and the same case of an enum would come again as `r:`.
            if matches!(head, Head::Custom(..) | Head::Enum(..)) {
                return Err(unclear(at));
            }
            self.slots.push(here);
            return Ok(head);
        };
        let target = self.targets.binary_search_by_key(&here, |(at, _)| *at).map(|known| self.targets[known].1);
        let slot = target.and_then(|target| self.slots.binary_search(&target)).map_err(|_| unclear(at))?;
        let number = slot as u64 + 1;
        // All differ by the same, but for a number that is given to an `r:`.
        let before = written.wrapping_sub(number);
        // A value of a session, taken by itself, is no variable that something in it could share.
        let whole = number == 1 && matches!(head, Head::Alias(_));
        if *self.before.get_or_insert(before) != before || whole {
            return Err(unclear(at));
        }
        if matches!(head, Head::Alias(_)) {
            return Ok(Head::Alias(number));
        }
        self.slots.push(here);
        Ok(Head::Handle(number))
    }
}

/// Builds a value from bytes that have been checked.
#[derive(Default)]
struct Builder<'t> {
    // The arrays and objects that are open, and the key under which each will stand.
    open: Vec<(Value, Option<Key>)>,
    key: Option<Key>,
    done: Value,
    // Where there are references. No key may come again then.
    numbers: Option<Numbers<'t>>,
}

impl Builder<'_> {
    fn finish(&mut self, value: Value, key: Option<Key>, end: usize) -> Scan<()> {
        let parent = self.open.last_mut().and_then(|(parent, _)| parent.elements_mut());
        let (Some(elements), Some(key)) = (parent, key) else {
            self.done = value;
            return Ok(());
        };
        let again = elements.put(key, value).is_some();
        if again && self.numbers.is_some() { Err(unclear(end)) } else { Ok(()) }
    }
}

impl<'a> Sink<'a> for Builder<'_> {
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

    fn head(&mut self, mut head: Head<'a>, at: usize, end: usize) -> Scan<()> {
        if let Some(numbers) = &mut self.numbers {
            head = numbers.renumber(head, at)?;
        }
        let value = match head {
            // The bytes have been walked before: so many elements there are.
            Head::Array(n) => Value::Array(Array::with_room(n as usize)),
            Head::Object(class, n) => Value::Object(Object::new(class_name(class), Array::with_room(n as usize))),
            scalar => {
                let key = self.key.take();
                return self.finish(scalar_value(scalar), key, end);
            }
        };
        self.open.push((value, self.key.take()));
        Ok(())
    }

    fn close(&mut self, end: usize) -> Scan<()> {
        let Some((mut value, key)) = self.open.pop() else { return Ok(()) };
        if let Some(elements) = value.elements_mut() {
            elements.shrink();
        }
        self.finish(value, key, end)
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

/// Builds a value from bytes that have been checked and have no references.
pub(crate) fn build(bytes: &[u8]) -> Result<Value> {
    let mut builder = Builder::default();
    Walker::default().value(bytes, 0, 0, &mut builder).map_err(|fault| with_path(bytes, fault))?;
    Ok(builder.done)
}

/// Builds the value that begins at this one of bytes that have been checked, with its references numbered from 1.
/// `None` if that has to be written anew before: a key that comes again is counted but once, and with references out
/// of the value there is more to count.
pub(crate) fn build_numbered(bytes: &[u8], at: usize, targets: &[(u32, u32)]) -> Option<Value> {
    let numbers = Numbers { targets, slots: Vec::new(), before: None };
    let mut builder = Builder { numbers: Some(numbers), ..Builder::default() };
    Walker::default().value(bytes, at, 0, &mut builder).ok()?;
    Some(builder.done)
}

/// The same, for one value that is all there is, whatever is in it.
fn build_anew(bytes: &[u8]) -> Result<Value> {
    build(&Graph::of_value(bytes)?.canonical_value(crate::number::Precision::Digits(17))?)
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
        if targets.is_empty() {
            return build(bytes);
        }
        build_numbered(bytes, 0, &targets).map_or_else(|| build_anew(bytes), Ok)
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
