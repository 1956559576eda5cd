//! The one error: who must act, which byte, which key; never a value. PHP itself only answers `false`
//! (`ext/standard/var_unserializer.re` returns 0, `ext/session/session.c` destroys the session).

use std::fmt;

use crate::key::KeyRef;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and with that, who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes are not what PHP's grammar allows at this place.
    Syntax,
    /// The bytes end before the value does.
    Truncated,
    /// Nested deeper than PHP's 4096 levels, or deeper than [`Options::serde_depth`](crate::Options::serde_depth).
    Depth,
    /// More bytes than this crate handles (4 GiB), or references that multiply beyond measure.
    Limit,
    /// An `R:` or `r:` that points to nothing, to itself, or to something that is not an object.
    Reference,
    /// A `php_serialize` session whose value is not an array. PHP keeps it without ever writing it again.
    RootNotArray,
    /// Bytes behind a complete value, given to [`from_slice`](crate::from_slice) or `set_serialized`.
    Trailing,
    /// A key that the session's format cannot carry; PHP would lose it, or the whole session, silently.
    Key,
    /// The value has another type than was asked for.
    Type,
    /// A number that does not fit the type that was asked for, or PHP's 64 bits.
    Number,
    /// A string that is not UTF-8 was asked for as text.
    Utf8,
    /// Something PHP can express but this operation cannot carry out without changing what PHP reads.
    Unsupported,
    /// A type's own `Serialize` or `Deserialize` refused; [`Error::detail`] has its words.
    Custom,
}

/// What the scanner says: small, copied, without a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) at: usize,
    pub(crate) what: &'static str,
}

/// One step of a key path, owned because errors outlive the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Index(i64),
    Name(Box<str>),
}

impl From<KeyRef<'_>> for Step {
    fn from(key: KeyRef<'_>) -> Self {
        match key {
            KeyRef::Int(n) => Self::Index(n),
            KeyRef::Str(bytes) => {
                // A key is shown, but neither control bytes nor a kilobyte of it.
                let shown = String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes));
                Self::Name(shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
            }
        }
    }
}

/// Why bytes could not be read, a value not decoded, or an edit not made.
///
/// One word wide. `Display` says what was expected, at which byte and under which key, and never prints a value.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: Box<str>,
    detail: Option<Box<str>>,
    offset: Option<usize>,
    // Innermost first: it grows while the error travels outwards.
    path: Vec<Step>,
    data: bool,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<Box<str>>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), detail: None, offset: None, path: Vec::new(), data: false }))
    }

    pub(crate) fn custom(detail: impl fmt::Display) -> Self {
        let mut error = Self::new(ErrorKind::Custom, "refused by the type itself");
        error.0.detail = Some(detail.to_string().into());
        error
    }

    /// Bytes that are at fault: a stored session, or the argument of `unserialize()`.
    pub(crate) fn data(fault: Fault, path: Vec<Step>) -> Self {
        let mut error = Self::new(fault.kind, fault.what);
        error.0.offset = Some(fault.at);
        error.0.path = path;
        error.0.data = true;
        error
    }

    pub(crate) fn at(mut self, offset: usize) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    pub(crate) fn under(mut self, key: KeyRef<'_>) -> Self {
        self.0.path.push(key.into());
        self
    }

    /// An error in bytes or a value that the caller gave: not the stored session's fault.
    pub(crate) fn not_data(mut self) -> Self {
        self.0.data = false;
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The byte where it went wrong, counted in the bytes that were read.
    pub fn offset(&self) -> Option<usize> {
        self.0.offset
    }

    /// The keys that lead there, such as `cart[3].price`; empty at the root.
    pub fn path(&self) -> String {
        let mut out = String::new();
        let shown = 16;
        for (n, step) in self.0.path.iter().rev().enumerate() {
            if n == shown {
                out.push('\u{2026}');
                break;
            }
            match step {
                Step::Index(index) => {
                    out.push('[');
                    out.push_str(itoa::Buffer::new().format(*index));
                    out.push(']');
                }
                Step::Name(name) => {
                    if n > 0 {
                        out.push('.');
                    }
                    out.push_str(name);
                }
            }
        }
        out
    }

    /// What a type's own `Serialize` or `Deserialize` said. Not part of `Display`: it may quote values.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// Whether the stored bytes are bad, as opposed to a caller that asked for another type or for something
    /// that the format cannot carry.
    pub fn is_data(&self) -> bool {
        self.0.data
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)?;
        if let Some(offset) = self.0.offset {
            write!(f, " at byte {offset}")?;
        }
        if !self.0.path.is_empty() {
            write!(f, ", key {}", self.path())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("what", &self.0.what)
            .field("offset", &self.0.offset)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}
