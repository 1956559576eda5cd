//! `php`: `key|value` after `key|value` (`PS_SERIALIZER_DECODE_FUNC(php)` in `ext/session/session.c`).

use crate::key::KeyRef;
use crate::scan::{RawKey, Scan, fault, until_bar};

/// The key is all there is up to the next `|`, also what is left over from damage before it.
#[inline]
pub(super) fn key(buf: &[u8], at: usize) -> Scan<(RawKey<'_>, usize)> {
    match until_bar(&buf[at..]) {
        Some(len) => Ok((RawKey::Str(&buf[at..at + len]), at + len + 1)),
        None => Err(fault(buf, buf.len(), "expected `|` after a key")),
    }
}

pub(super) fn write_key(out: &mut Vec<u8>, key: KeyRef<'_>) {
    match key {
        KeyRef::Int(n) => crate::serialize::number(out, n),
        KeyRef::Str(bytes) => out.extend_from_slice(bytes),
    }
    out.push(b'|');
}
