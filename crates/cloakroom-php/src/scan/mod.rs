//! The grammar of `serialize()`, walked without recursion: `ext/standard/var_unserializer.re`.
//!
//! Everything that reads PHP's values goes through here: the index pass with a [`Sink`] that ignores nearly all of
//! it, the decoders with sinks that build. Lengths wrap at 64 bits and integers clamp, as PHP's do.
//!
//! The commonest tokens are read by [`quick`], eight bytes at a time; all others, and all that is wrong, by [`thorough`].

mod quick;
mod thorough;

use crate::error::{ErrorKind, Fault};
pub(crate) use quick::{behind_key, behind_scalar, opening, plain_float, plain_integer, plain_string, until_bar};
pub(crate) use thorough::unescape;

/// PHP's `unserialize_max_depth`.
pub(crate) const MAX_DEPTH: usize = 4096;

pub(crate) type Scan<T> = Result<T, Fault>;

/// The beginning of a value: all of a scalar, and what stands before the elements of an array or object.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Head<'a> {
    Null,
    Bool(bool),
    /// `[+-]?[0-9]+`
    Int(&'a [u8]),
    /// A float's text within PHP's grammar.
    Float(&'a [u8]),
    Str(&'a [u8]),
    /// `S:`: the length and the text, in which `\41` is one byte.
    Escaped(usize, &'a [u8]),
    Array(u32),
    Object(&'a [u8], u32),
    Custom(&'a [u8], &'a [u8]),
    Enum(&'a [u8], &'a [u8]),
    /// `R:`: the same variable as that number's.
    Alias(u64),
    /// `r:`: the same object as that number's.
    Handle(u64),
}

/// A key of an array or object, as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum RawKey<'a> {
    Int(&'a [u8]),
    Str(&'a [u8]),
    Escaped(usize, &'a [u8]),
}

/// What the walker tells while it walks.
pub(crate) trait Sink<'a> {
    /// Wants to know of no key, and of scalars only how many there are.
    const BLIND: bool = false;

    /// Told to the blind instead of keys: here begins the key of one element, or of several in a row of which all but
    /// the last are plain scalars.
    fn elements(&mut self, _at: usize) {}
    /// Told to the blind: so many plain scalars.
    fn plain(&mut self, _count: u32) {}
    /// A key at this nesting depth (1 within the outermost array), beginning at `at`.
    fn key(&mut self, _key: RawKey<'a>, _depth: usize, _at: usize, _end: usize) -> Scan<()> {
        Ok(())
    }
    /// A value, or its beginning.
    fn head(&mut self, _head: Head<'a>, _at: usize, _end: usize) -> Scan<()> {
        Ok(())
    }
    /// The end of the innermost array or object.
    fn close(&mut self, _end: usize) -> Scan<()> {
        Ok(())
    }
}

/// A sink that wants nothing.
impl Sink<'_> for () {
    const BLIND: bool = true;
}

/// The walker; its stack is kept from value to value.
#[derive(Default)]
pub(crate) struct Walker {
    // Elements still to come, for each array or object around the innermost; nearly always there are few.
    outer: [u32; 16],
    deeper: Vec<u32>,
}

impl Walker {
    /// Walks one value that begins at `at` and stands `above` levels deep; says where it ends.
    #[inline]
    pub(crate) fn value<'a, S: Sink<'a>>(
        &mut self,
        buf: &'a [u8],
        mut at: usize,
        above: usize,
        sink: &mut S,
    ) -> Scan<usize> {
        self.deeper.clear();
        let mut depth = 0;
        // Elements still to come in the innermost array or object.
        let mut left = 0;
        loop {
            let start = at;
            let opened = if S::BLIND { opening(buf, at) } else { None };
            let (value, next) = match opened {
                Some((n, next)) => (Head::Array(n), next),
                None => head(buf, at)?,
            };
            at = next;
            sink.head(value, start, at)?;
            if let Head::Array(n) | Head::Object(_, n) = value {
                // PHP counts an empty array as no level, but an empty object as one.
                if above + depth >= MAX_DEPTH && (n > 0 || matches!(value, Head::Object(..))) {
                    return Err(Fault { kind: ErrorKind::Depth, at: start, what: "nested deeper than 4096 levels" });
                }
                match self.outer.get_mut(depth) {
                    Some(slot) => *slot = left,
                    None => self.deeper.push(left),
                }
                depth += 1;
                left = n;
            }
            loop {
                if depth == 0 {
                    return Ok(at);
                }
                if S::BLIND {
                    let skimmed = quick::skim(buf, at, left);
                    if skimmed.at > at {
                        sink.elements(at);
                        sink.plain(left - skimmed.left - u32::from(skimmed.before_value));
                    }
                    (at, left) = (skimmed.at, skimmed.left);
                    if skimmed.before_value {
                        break;
                    }
                }
                if left > 0 {
                    left -= 1;
                    let start = at;
                    let (name, next) = key(buf, at)?;
                    at = next;
                    if S::BLIND {
                        sink.elements(start);
                    } else {
                        sink.key(name, depth, start, at)?;
                    }
                    break;
                }
                if buf.get(at) != Some(&b'}') {
                    return Err(fault(buf, at, "expected `}` after the last element"));
                }
                at += 1;
                depth -= 1;
                left = match self.outer.get(depth) {
                    Some(left) => *left,
                    None => self.deeper.pop().unwrap_or(0),
                };
                sink.close(at)?;
            }
        }
    }
}

#[cold]
#[inline(never)]
pub(crate) fn fault(buf: &[u8], at: usize, what: &'static str) -> Fault {
    let kind = if at >= buf.len() { ErrorKind::Truncated } else { ErrorKind::Syntax };
    Fault { kind, at: at.min(buf.len()), what }
}

/// Reads the beginning of the value at `at`, and says where what follows begins.
#[expect(clippy::inline_always, reason = "the walk over a session is made of these")]
#[inline(always)]
pub(crate) fn head(buf: &[u8], at: usize) -> Scan<(Head<'_>, usize)> {
    match quick::head(buf, at) {
        Some(found) => Ok(found),
        None => thorough::head(buf, at),
    }
}

/// Reads a key: an integer or a string; everything else PHP refuses there.
#[expect(clippy::inline_always, reason = "the walk over a session is made of these")]
#[inline(always)]
pub(crate) fn key(buf: &[u8], at: usize) -> Scan<(RawKey<'_>, usize)> {
    match quick::key(buf, at) {
        Some(found) => Ok(found),
        None => thorough::key(buf, at),
    }
}

impl RawKey<'_> {
    /// The key that PHP's arrays make of it.
    pub(crate) fn to_key(self) -> crate::Key {
        match self {
            RawKey::Int(text) => crate::Key::Int(crate::number::parse_int(text)),
            RawKey::Str(text) => crate::key::KeyRef::of(text).into(),
            RawKey::Escaped(len, text) => crate::key::KeyRef::of(&unescape(len, text)).into(),
        }
    }
}
