//! Every token of the grammar, byte by byte, with what is wrong where it is wrong.

use super::{Head, RawKey, Scan, fault};
use crate::error::{ErrorKind, Fault};

/// [`super::head`]
#[inline(never)]
pub(super) fn head(buf: &[u8], at: usize) -> Scan<(Head<'_>, usize)> {
    let Some(&[tag, colon]) = buf.get(at..at + 2) else {
        return Err(fault(buf, buf.len(), "expected a value"));
    };
    let at = at + 2;
    if colon != b':' {
        return if tag == b'N' && colon == b';' {
            Ok((Head::Null, at))
        } else {
            Err(fault(buf, at - 2, "expected a value"))
        };
    }
    match tag {
        b'i' => integer(buf, at).map(|(text, next)| (Head::Int(text), next)),
        b's' => string(buf, at).map(|(text, next)| (Head::Str(text), next)),
        b'a' => array(buf, at),
        b'b' => match buf.get(at..at + 2) {
            Some(b"0;") => Ok((Head::Bool(false), at + 2)),
            Some(b"1;") => Ok((Head::Bool(true), at + 2)),
            _ => Err(fault(buf, at, "expected `0;` or `1;`")),
        },
        b'd' => float(buf, at),
        b'O' => object(buf, at),
        b'S' => escaped(buf, at).map(|(len, text, next)| (Head::Escaped(len, text), next)),
        b'C' => custom(buf, at),
        b'E' => enumeration(buf, at),
        b'R' => reference(buf, at).map(|(n, next)| (Head::Alias(n), next)),
        b'r' => reference(buf, at).map(|(n, next)| (Head::Handle(n), next)),
        _ => Err(fault(buf, at - 2, "expected a value")),
    }
}

/// [`super::key`]
#[inline(never)]
pub(super) fn key(buf: &[u8], at: usize) -> Scan<(RawKey<'_>, usize)> {
    match buf.get(at..at + 2) {
        Some(b"s:") => string(buf, at + 2).map(|(text, next)| (RawKey::Str(text), next)),
        Some(b"i:") => integer(buf, at + 2).map(|(text, next)| (RawKey::Int(text), next)),
        Some(b"S:") => escaped(buf, at + 2).map(|(len, text, next)| (RawKey::Escaped(len, text), next)),
        Some(_) => Err(fault(buf, at, "expected a key")),
        None => Err(fault(buf, buf.len(), "expected a key")),
    }
}

fn integer(buf: &[u8], at: usize) -> Scan<(&[u8], usize)> {
    let mut end = at;
    if matches!(buf.get(end), Some(b'-' | b'+')) {
        end += 1;
    }
    let digits = end;
    while buf.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    if end == digits || buf.get(end) != Some(&b';') {
        return Err(fault(buf, end, "expected an integer and `;`"));
    }
    Ok((&buf[at..end], end + 1))
}

/// Digits as PHP's `parse_uiv` reads them, and where they end. There must be one.
fn digits(buf: &[u8], at: usize) -> Scan<(u64, usize)> {
    let mut n: u64 = 0;
    let mut end = at;
    while let Some(digit) = buf.get(end).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        n = n.wrapping_mul(10).wrapping_add(u64::from(digit));
        end += 1;
    }
    if end == at { Err(fault(buf, at, "expected a number")) } else { Ok((n, end)) }
}

/// `LEN:"` and where the bytes begin.
fn length(buf: &[u8], at: usize) -> Scan<(usize, usize)> {
    let (len, end) = digits(buf, at)?;
    if buf.get(end) != Some(&b':') || buf.get(end + 1) != Some(&b'"') {
        return Err(fault(buf, end, "expected `:\"` after a length"));
    }
    let start = end + 2;
    match usize::try_from(len) {
        Ok(len) if len <= buf.len() - start => Ok((len, start)),
        _ => Err(Fault { kind: ErrorKind::Truncated, at, what: "longer than what is left" }),
    }
}

fn string(buf: &[u8], at: usize) -> Scan<(&[u8], usize)> {
    let (len, start) = length(buf, at)?;
    let end = start + len;
    if buf.get(end) != Some(&b'"') || buf.get(end + 1) != Some(&b';') {
        return Err(fault(buf, end, "string shorter or longer than its length"));
    }
    Ok((&buf[start..end], end + 2))
}

#[cold]
fn escaped(buf: &[u8], at: usize) -> Scan<(usize, &[u8], usize)> {
    let (len, start) = length(buf, at)?;
    let mut end = start;
    for _ in 0..len {
        match buf.get(end) {
            Some(b'\\') if buf.get(end + 1..end + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => {
                end += 3;
            }
            Some(b'\\') => return Err(fault(buf, end, "expected two hexadecimal digits")),
            Some(_) => end += 1,
            None => return Err(fault(buf, end, "string shorter than its length")),
        }
    }
    if buf.get(end) != Some(&b'"') || buf.get(end + 1) != Some(&b';') {
        return Err(fault(buf, end, "string shorter or longer than its length"));
    }
    Ok((len, &buf[start..end], end + 2))
}

/// The bytes of an `S:` string or key.
pub(crate) fn unescape(len: usize, text: &[u8]) -> Vec<u8> {
    let nibble = |b: u8| match b {
        b'0'..=b'9' => b - b'0',
        _ => (b | 0x20).wrapping_sub(b'a').wrapping_add(10) & 15,
    };
    let mut out = Vec::with_capacity(len);
    let mut rest = text;
    loop {
        match rest {
            [b'\\', high, low, tail @ ..] => {
                out.push(nibble(*high) << 4 | nibble(*low));
                rest = tail;
            }
            [byte, tail @ ..] => {
                out.push(*byte);
                rest = tail;
            }
            [] => return out,
        }
    }
}

#[inline(never)]
fn float(buf: &[u8], at: usize) -> Scan<(Head<'_>, usize)> {
    let rest = &buf[at..];
    for special in [&b"NAN;"[..], b"INF;", b"-INF;"] {
        if rest.starts_with(special) {
            return Ok((Head::Float(&rest[..special.len() - 1]), at + special.len()));
        }
    }
    let mut end = at;
    if matches!(buf.get(end), Some(b'-' | b'+')) {
        end += 1;
    }
    let run = |from: usize| from + buf[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = run(end);
    let mut some = whole > end;
    end = whole;
    if buf.get(end) == Some(&b'.') {
        let fraction = run(end + 1);
        some |= fraction > end + 1;
        end = fraction;
    }
    if some && matches!(buf.get(end), Some(b'e' | b'E')) {
        let sign = end + 1 + usize::from(matches!(buf.get(end + 1), Some(b'-' | b'+')));
        let exponent = run(sign.min(buf.len()));
        some = exponent > sign;
        end = exponent;
    }
    if !some || buf.get(end) != Some(&b';') {
        return Err(fault(buf, end, "expected a float and `;`"));
    }
    Ok((Head::Float(&buf[at..end]), end + 1))
}

fn array(buf: &[u8], at: usize) -> Scan<(Head<'_>, usize)> {
    let mut n: u64 = 0;
    let mut end = at;
    while let Some(digit) = buf.get(end).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
        n = n.saturating_mul(10).saturating_add(u64::from(digit));
        end += 1;
    }
    if end == at || buf.get(end) != Some(&b':') || buf.get(end + 1) != Some(&b'{') {
        return Err(fault(buf, end, "expected a count and `:{`"));
    }
    Ok((Head::Array(count(buf, n, at, end + 2)?), end + 2))
}

/// An element takes at least two bytes; PHP refuses counts that cannot be.
fn count(buf: &[u8], n: u64, at: usize, start: usize) -> Scan<u32> {
    let left = buf.len() - start;
    match u32::try_from(n) {
        Ok(small) if small as usize <= left / 2 => Ok(small),
        _ => Err(Fault { kind: ErrorKind::Truncated, at, what: "more elements counted than can follow" }),
    }
}

/// The class name of `O:` and `C:`, and where what follows `":` begins.
fn class(buf: &[u8], at: usize) -> Scan<(&[u8], usize)> {
    let (len, start) = length(buf, at)?;
    let end = start + len;
    if buf.get(end) != Some(&b'"') || buf.get(end + 1) != Some(&b':') {
        return Err(fault(buf, end, "class name shorter or longer than its length"));
    }
    let name = &buf[start..end];
    if !is_class_name(name) {
        return Err(fault(buf, start, "not a class name"));
    }
    Ok((name, end + 2))
}

/// `zend_is_valid_class_name`, by byte.
static CLASS_BYTES: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0_u8);
    loop {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'\\' | 0x80..);
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

fn is_class_byte(byte: u8) -> bool {
    CLASS_BYTES[usize::from(byte)]
}

#[inline]
pub(super) fn is_class_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| *first != b'\\') && name.iter().all(|byte| is_class_byte(*byte))
}

/// A count as PHP's `parse_iv2` takes it: a sign is fine, no digits are zero.
fn loose_count(buf: &[u8], at: usize) -> (Option<u64>, usize) {
    let sign = usize::from(matches!(buf.get(at), Some(b'-' | b'+')));
    let end = at + sign + buf[(at + sign).min(buf.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    (u64::try_from(crate::number::parse_int(&buf[at.min(end)..end])).ok(), end)
}

#[inline(never)]
fn object(buf: &[u8], at: usize) -> Scan<(Head<'_>, usize)> {
    let (name, at) = class(buf, at)?;
    let (n, end) = loose_count(buf, at.min(buf.len()));
    if buf.get(end) != Some(&b':') || buf.get(end + 1) != Some(&b'{') {
        return Err(fault(buf, end, "expected a count and `:{`"));
    }
    let n = n.ok_or_else(|| fault(buf, at, "a count below zero"))?;
    Ok((Head::Object(name, count(buf, n, at, end + 2)?), end + 2))
}

#[inline(never)]
fn custom(buf: &[u8], at: usize) -> Scan<(Head<'_>, usize)> {
    let (name, at) = class(buf, at)?;
    let (n, end) = loose_count(buf, at.min(buf.len()));
    if buf.get(end) != Some(&b':') || buf.get(end + 1) != Some(&b'{') {
        return Err(fault(buf, end, "expected a length and `:{`"));
    }
    let n = n.ok_or_else(|| fault(buf, at, "a length below zero"))?;
    let start = end + 2;
    let Some(n) = usize::try_from(n).ok().filter(|n| *n < buf.len() - start) else {
        return Err(Fault { kind: ErrorKind::Truncated, at, what: "longer than what is left" });
    };
    if buf[start + n] != b'}' {
        return Err(fault(buf, start + n, "expected `}` after the payload"));
    }
    Ok((Head::Custom(name, &buf[start..start + n]), start + n + 1))
}

#[inline(never)]
fn enumeration(buf: &[u8], at: usize) -> Scan<(Head<'_>, usize)> {
    let (text, next) = string(buf, at)?;
    let Some(colon) = memchr::memchr(b':', text) else {
        return Err(fault(buf, at, "expected an enum and its case"));
    };
    let (name, case) = (&text[..colon], &text[colon + 1..]);
    let name = name.strip_prefix(b"\\").unwrap_or(name);
    let label = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | 0x80..);
    // No enum and no case can have another name, declared or not.
    if name.is_empty() || !name.iter().all(|b| is_class_byte(*b)) || case.is_empty() || !case.iter().all(label) {
        return Err(fault(buf, at, "not an enum and its case"));
    }
    Ok((Head::Enum(name, case), next))
}

fn reference(buf: &[u8], at: usize) -> Scan<(u64, usize)> {
    let (n, end) = digits(buf, at)?;
    if buf.get(end) != Some(&b';') {
        return Err(fault(buf, end, "expected `;` after a reference"));
    }
    Ok((n, end + 1))
}
