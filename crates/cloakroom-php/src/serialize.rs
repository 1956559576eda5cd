//! Values to bytes: `php_var_serialize` of `ext/standard/var.c`, without recursion.

use crate::array::Array;
use crate::key::{Key, KeyRef};
use crate::number::{Precision, write_float};
use crate::value::{Reference, Value};
use crate::{Options, Result};

pub(crate) fn number(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

/// `tag:N` and what closes it, if `N` has at most three digits. Eight bytes are appended at once, which is cheaper than
/// to copy as many as there are, and what is too much is cut off.
#[inline]
fn write_short(out: &mut Vec<u8>, tag: u8, n: usize, end: u8, more: Option<u8>) -> bool {
    let digit = |n: usize| b'0' + n.to_le_bytes()[0] % 10;
    let last = more.unwrap_or(0);
    let (bytes, len) = match n {
        0..10 => ([tag, b':', digit(n), end, last, 0, 0, 0], 4),
        10..100 => ([tag, b':', digit(n / 10), digit(n % 10), end, last, 0, 0], 5),
        100..1000 => ([tag, b':', digit(n / 100), digit(n / 10 % 10), digit(n % 10), end, last, 0], 6),
        _ => return false,
    };
    let before = out.len();
    out.extend_from_slice(&bytes);
    out.truncate(before + len + usize::from(more.is_some()));
    true
}

pub(crate) fn write_int(out: &mut Vec<u8>, n: i64) {
    if usize::try_from(n).is_ok_and(|n| write_short(out, b'i', n, b';', None)) {
        return;
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(n).as_bytes();
    out.reserve(digits.len() + 3);
    out.extend_from_slice(b"i:");
    out.extend_from_slice(digits);
    out.push(b';');
}

pub(crate) fn write_double(out: &mut Vec<u8>, value: f64, precision: Precision) {
    out.extend_from_slice(b"d:");
    write_float(out, value, precision);
    out.push(b';');
}

/// `tag:LEN:"BYTES"` and what closes it.
pub(crate) fn write_counted(out: &mut Vec<u8>, tag: u8, bytes: &[&[u8]], end: u8) {
    out.extend_from_slice(&[tag, b':']);
    number(out, bytes.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(b":\"");
    for part in bytes {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[b'"', end]);
}

pub(crate) fn write_str(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 10);
    if !write_short(out, b's', bytes.len(), b':', Some(b'"')) {
        return write_counted(out, b's', &[bytes], b';');
    }
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\";");
}

pub(crate) fn write_key(out: &mut Vec<u8>, key: KeyRef<'_>) {
    match key {
        KeyRef::Int(n) => write_int(out, n),
        KeyRef::Str(bytes) => write_str(out, bytes),
    }
}

pub(crate) fn write_array_head(out: &mut Vec<u8>, count: usize) {
    if write_short(out, b'a', count, b':', Some(b'{')) {
        return;
    }
    out.extend_from_slice(b"a:");
    number(out, count);
    out.extend_from_slice(b":{");
}

pub(crate) fn write_custom(out: &mut Vec<u8>, class: &[u8], payload: &[u8]) {
    write_counted(out, b'C', &[class], b':');
    number(out, payload.len());
    out.extend_from_slice(b":{");
    out.extend_from_slice(payload);
    out.push(b'}');
}

pub(crate) fn write_reference(out: &mut Vec<u8>, tag: u8, n: impl itoa::Integer) {
    out.extend_from_slice(&[tag, b':']);
    number(out, n);
    out.push(b';');
}

/// Everything of a value but its elements; those, if it has a `}` to come.
fn write_head<'v>(out: &mut Vec<u8>, value: &'v Value, precision: Precision) -> Option<&'v Array> {
    match value {
        Value::Null => out.extend_from_slice(b"N;"),
        Value::Bool(true) => out.extend_from_slice(b"b:1;"),
        Value::Bool(false) => out.extend_from_slice(b"b:0;"),
        Value::Int(n) => write_int(out, *n),
        Value::Float(value) => write_double(out, *value, precision),
        Value::String(bytes) => write_str(out, bytes),
        Value::Enum(e) => write_counted(out, b'E', &[&e.class, b":", &e.case], b';'),
        Value::Custom(custom) => write_custom(out, &custom.class, &custom.payload),
        Value::Reference(Reference::Alias(n)) => write_reference(out, b'R', *n),
        Value::Reference(Reference::Handle(n)) => write_reference(out, b'r', *n),
        Value::Array(array) => {
            write_array_head(out, array.len());
            return Some(array);
        }
        Value::Object(object) => {
            write_counted(out, b'O', &[object.class()], b':');
            number(out, object.properties().len());
            out.extend_from_slice(b":{");
            return Some(object.properties());
        }
    }
    None
}

pub(crate) fn write_value(out: &mut Vec<u8>, value: &Value, precision: Precision) {
    // With each array or object: whether its integer keys are written as strings, as stdClass has its properties.
    let mut open: Vec<(std::slice::Iter<'_, (Key, Value)>, bool)> = Vec::new();
    let mut next = Some(value);
    loop {
        if let Some(value) = next.take()
            && let Some(elements) = write_head(out, value, precision)
        {
            let names = matches!(value, Value::Object(object) if object.class().eq_ignore_ascii_case(b"stdClass"));
            open.push((elements.entries().iter(), names));
        }
        let Some((rest, names)) = open.last_mut() else { return };
        let Some((key, value)) = rest.next() else {
            out.push(b'}');
            open.pop();
            continue;
        };
        match key {
            Key::Int(n) if *names => write_str(out, itoa::Buffer::new().format(*n).as_bytes()),
            key => write_key(out, key.as_ref()),
        }
        next = Some(value);
    }
}

impl Value {
    /// What PHP's `serialize()` writes. An error if the value is one that PHP would not read back: nested deeper
    /// than 4096 levels, a class or case that is no name, a reference to nothing.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        self.serialize_with(Options::default())
    }

    /// [`Value::serialize`] with other [`Options`].
    pub fn serialize_with(&self, options: Options) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        write_value(&mut out, self, options.serialize_precision);
        crate::unserialize::check(&out).map_err(crate::Error::not_data)?;
        Ok(out)
    }
}
