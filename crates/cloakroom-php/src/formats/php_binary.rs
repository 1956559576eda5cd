//! `php_binary`: a byte with the key's length, key, value (`PS_SERIALIZER_DECODE_FUNC(php_binary)`).

use crate::key::KeyRef;
use crate::scan::{RawKey, Scan, fault};

/// PHP's `PS_BIN_MAX`.
pub(super) const MAX_KEY: usize = 127;

/// Bit 7 once meant an undefined variable; PHP ignores it.
#[inline]
pub(super) fn key(buf: &[u8], at: usize) -> Scan<(RawKey<'_>, usize)> {
    let len = buf.get(at).map_or(0, |b| usize::from(b & 0x7f));
    let start = at + 1;
    match buf.get(start..start + len) {
        Some(key) => Ok((RawKey::Str(key), start + len)),
        None => Err(fault(buf, buf.len(), "key shorter than its length")),
    }
}

pub(super) fn write_key(out: &mut Vec<u8>, key: KeyRef<'_>) {
    let mut digits = itoa::Buffer::new();
    let bytes = match key {
        KeyRef::Int(n) => digits.format(n).as_bytes(),
        KeyRef::Str(bytes) => bytes,
    };
    out.push(u8::try_from(bytes.len()).unwrap_or(0x7f) & 0x7f);
    out.extend_from_slice(bytes);
}
