//! The session formats: how keys and values lie one after another (`ext/session/session.c`, `PS_SERIALIZER_ENTRY`).

mod php;
mod php_binary;
mod php_serialize;

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{KeyRef, canonical_int};
use crate::scan::{RawKey, Scan};
pub(crate) use php_serialize::array_head;

/// PHP's `session.serialize_handler`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `php`, PHP's default: key, `|`, value.
    #[default]
    Php,
    /// `php_binary`: a length byte, key, value.
    PhpBinary,
    /// `php_serialize`: one serialized array.
    PhpSerialize,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Php, Self::PhpBinary, Self::PhpSerialize];

    /// The value of `session.serialize_handler`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Php => "php",
            Self::PhpBinary => "php_binary",
            Self::PhpSerialize => "php_serialize",
        }
    }

    /// The format of this name, in any case, as PHP takes it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Where an entry's key stands, and where its value begins.
    #[inline]
    pub(crate) fn entry(self, buf: &[u8], at: usize) -> Scan<(RawKey<'_>, usize)> {
        match self {
            Self::Php => php::key(buf, at),
            Self::PhpBinary => php_binary::key(buf, at),
            Self::PhpSerialize => crate::scan::key(buf, at),
        }
    }

    /// Where the value begins whose key begins here, if that is seen at a glance.
    #[expect(clippy::inline_always, reason = "the walk over a session's keys is made of this")]
    #[inline(always)]
    pub(crate) fn behind_key(self, buf: &[u8], at: usize) -> Option<usize> {
        match self {
            Self::Php => php::key(buf, at).ok().map(|(_, value)| value),
            Self::PhpBinary => php_binary::key(buf, at).ok().map(|(_, value)| value),
            Self::PhpSerialize => crate::scan::behind_key(buf, at),
        }
    }

    pub(crate) fn write_key(self, out: &mut Vec<u8>, key: KeyRef<'_>) {
        match self {
            Self::Php => php::write_key(out, key),
            Self::PhpBinary => php_binary::write_key(out, key),
            Self::PhpSerialize => crate::serialize::write_key(out, key),
        }
    }

    /// Refuses keys that PHP would drop from this format, or drop the whole session for, without a word.
    pub(crate) fn check_key(self, key: KeyRef<'_>) -> Result<()> {
        let what = match (self, key) {
            (Self::PhpSerialize, KeyRef::Int(_)) => return Ok(()),
            (Self::PhpSerialize, KeyRef::Str(bytes)) => {
                if canonical_int(bytes).is_none() {
                    return Ok(());
                }
                "PHP's arrays take this string for an integer"
            }
            (_, KeyRef::Int(_)) => "this format cannot carry integer keys",
            (_, KeyRef::Str(bytes)) if canonical_int(bytes).is_some() => "this format cannot carry integer keys",
            (Self::Php, KeyRef::Str(bytes)) => {
                if memchr::memchr(b'|', bytes).is_none() {
                    return Ok(());
                }
                "the php format cannot carry a `|` in a key"
            }
            (Self::PhpBinary, KeyRef::Str(bytes)) => {
                if bytes.len() <= php_binary::MAX_KEY {
                    return Ok(());
                }
                "the php_binary format cannot carry a key of more than 127 bytes"
            }
        };
        Err(Error::new(ErrorKind::Key, what).under(key))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
