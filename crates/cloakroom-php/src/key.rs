//! Keys as PHP's arrays have them: a 64-bit integer or bytes, and `"5"` is the integer 5
//! (`ZEND_HANDLE_NUMERIC_STR` in `Zend/zend_hash.h`).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::value::PhpStr;

/// A borrowed key of an array or a session, exactly as it is stored.
///
/// Given as a [`AsKey`] it is taken literally: `KeyRef::Str(b"5")` is the string key that the bytes `5|i:1;` make
/// under the `php` format, and that PHP code itself can never reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRef<'a> {
    /// An integer key.
    Int(i64),
    /// A string key: any bytes.
    Str(&'a [u8]),
}

impl<'a> KeyRef<'a> {
    /// The key that PHP's arrays make of these bytes: an integer if it is written as PHP writes integers.
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Self {
        match bytes.first() {
            Some(b'-' | b'0'..=b'9') => canonical_int(bytes).map_or(Self::Str(bytes), Self::Int),
            _ => Self::Str(bytes),
        }
    }

    /// Different for different keys, nearly always: to see cheaply that two are not the same.
    #[inline]
    pub(crate) fn fingerprint(self) -> u64 {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let bytes = match self {
            Self::Int(n) => return n.cast_unsigned().wrapping_mul(MIX),
            Self::Str(bytes) => bytes,
        };
        let add = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(MIX);
        let length = u64::try_from(bytes.len()).unwrap_or(0).wrapping_mul(MIX);
        if let Some(last) = bytes.last_chunk() {
            let (words, _) = bytes.as_chunks();
            let hash = words.iter().fold(length, |hash, word| add(hash, u64::from_le_bytes(*word)));
            add(hash, u64::from_le_bytes(*last))
        } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
            add(length, u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)))
        } else {
            add(length, bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
        }
    }

    /// The bytes of a string key.
    pub fn as_bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Int(_) => None,
            Self::Str(bytes) => Some(bytes),
        }
    }

    /// The text of a string key that is UTF-8.
    pub fn as_str(self) -> Option<&'a str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }
}

/// An owned key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An integer key.
    Int(i64),
    /// A string key: any bytes.
    Str(PhpStr),
}

impl Key {
    /// The key, borrowed.
    pub fn as_ref(&self) -> KeyRef<'_> {
        match self {
            Self::Int(n) => KeyRef::Int(*n),
            Self::Str(bytes) => KeyRef::Str(bytes),
        }
    }
}

impl From<KeyRef<'_>> for Key {
    fn from(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Int(n) => Self::Int(n),
            KeyRef::Str(bytes) => Self::Str(bytes.into()),
        }
    }
}

/// What names a key: strings, bytes, integers. Strings that PHP's arrays take for integers are integers.
pub trait AsKey {
    /// The key as PHP has it.
    fn as_key(&self) -> KeyRef<'_>;
}

impl<T: AsKey + ?Sized> AsKey for &T {
    fn as_key(&self) -> KeyRef<'_> {
        (**self).as_key()
    }
}

impl AsKey for KeyRef<'_> {
    fn as_key(&self) -> KeyRef<'_> {
        *self
    }
}

impl AsKey for Key {
    fn as_key(&self) -> KeyRef<'_> {
        self.as_ref()
    }
}

macro_rules! string_keys {
    ($($t:ty),*) => {$(
        impl AsKey for $t {
            fn as_key(&self) -> KeyRef<'_> {
                KeyRef::of(self.as_ref())
            }
        }
    )*};
}
string_keys!(str, String, [u8], Vec<u8>, PhpStr);

impl<const N: usize> AsKey for [u8; N] {
    fn as_key(&self) -> KeyRef<'_> {
        KeyRef::of(self)
    }
}

macro_rules! integer_keys {
    ($($t:ty),*) => {$(
        impl AsKey for $t {
            fn as_key(&self) -> KeyRef<'_> {
                KeyRef::Int(i64::from(*self))
            }
        }
    )*};
}
integer_keys!(i8, i16, i32, i64, u8, u16, u32);

/// The integer that PHP's arrays take this string for: no leading zeros or `+`, no `-0`, within 64 bits.
pub(crate) fn canonical_int(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut n: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        n = n.checked_mul(10)?;
        n = if negative { n.checked_sub(digit)? } else { n.checked_add(digit)? };
    }
    Some(n)
}

/// From keys to positions, for more keys than one looks through. Seeded, so that nobody can prepare collisions.
#[derive(Clone)]
pub(crate) struct KeyTable {
    hasher: RandomState,
    cells: Box<[u32]>,
    used: usize,
}

const EMPTY: u32 = u32::MAX;

impl KeyTable {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), cells: Box::default(), used: 0 }
    }

    pub(crate) fn find<'k>(&self, key: KeyRef<'_>, key_of: impl Fn(u32) -> KeyRef<'k>) -> Option<u32> {
        if self.cells.is_empty() {
            return None;
        }
        let mask = self.cells.len() - 1;
        let mut cell = self.start(key);
        loop {
            match self.cells[cell & mask] {
                EMPTY => return None,
                at if key_of(at) == key => return Some(at),
                _ => cell = cell.wrapping_add(1),
            }
        }
    }

    /// Adds a key that is not in it yet.
    pub(crate) fn insert<'k>(&mut self, key: KeyRef<'_>, at: u32, key_of: impl Fn(u32) -> KeyRef<'k>) {
        if (self.used + 1) * 4 > self.cells.len() * 3 {
            let larger = vec![EMPTY; (self.cells.len() * 2).max(32)];
            let old = std::mem::replace(&mut self.cells, larger.into());
            for cell in old {
                if cell != EMPTY {
                    self.put(key_of(cell), cell);
                }
            }
        }
        self.put(key, at);
        self.used += 1;
    }

    fn put(&mut self, key: KeyRef<'_>, at: u32) {
        let mask = self.cells.len() - 1;
        let mut cell = self.start(key);
        while self.cells[cell & mask] != EMPTY {
            cell = cell.wrapping_add(1);
        }
        self.cells[cell & mask] = at;
    }

    fn start(&self, key: KeyRef<'_>) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
        let hash = self.hasher.hash_one(key) as usize;
        hash
    }
}
