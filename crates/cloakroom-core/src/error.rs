//! The one error type: opaque, one word wide, and sorted by who has to act.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What cloakroom's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act on an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The setup is wrong: an unknown setting, a directory that is not there. For whoever deploys.
    Config,
    /// Others were faster again and again, and nothing was changed. Try again later.
    Conflict,
    /// The stored bytes are not a session. The record has not been touched; see the message for key and byte.
    Corrupt,
    /// The session has been destroyed or has expired since this request saw it. It stays so: log in again.
    Gone,
    /// Another request held the session longer than the waiting limit. Try again later.
    Locked,
    /// A value is there, but not of the type that was asked for. Nothing has been changed.
    Mismatch,
    /// The program uses the library in a way that cannot work; the message says what to do instead.
    Misuse,
    /// The session or the store would grow beyond its limit. The old data are still there.
    TooLarge,
    /// The store did not answer, or answered with a failure. For operations.
    Unavailable,
    /// The format or the store has no room for this: a `|` in a key of PHP's `php` format, an unsigned number
    /// above `i64::MAX`.
    Unsupported,
}

impl ErrorKind {
    /// The kind as one lower-case word, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Config => "config",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Gone => "gone",
            ErrorKind::Locked => "locked",
            ErrorKind::Mismatch => "mismatch",
            ErrorKind::Misuse => "misuse",
            ErrorKind::TooLarge => "too large",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something about a session did not work. See [`ErrorKind`] for who has to act.
///
/// Neither `Debug` nor `Display` ever shows a session id, a password or what a session holds.
#[must_use]
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    maybe_applied: bool,
    waited: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; the message completes the words "failed to …" and holds nothing secret.
    #[cold]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Inner { kind, message: message.into(), maybe_applied: false, waited: None, source: None }))
    }

    /// The store failed: [`ErrorKind::Unavailable`].
    #[cold]
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Unavailable, message)
    }

    /// The session is no more: [`ErrorKind::Gone`].
    #[cold]
    pub fn gone() -> Error {
        Error::new(ErrorKind::Gone, "the session has been destroyed or has expired meanwhile")
    }

    /// Somebody held the session for the whole waiting limit: [`ErrorKind::Locked`].
    #[cold]
    pub fn locked(waited: Duration) -> Error {
        let mut error = Error::new(ErrorKind::Locked, format!("locked by another request for {waited:.1?}"));
        error.0.waited = Some(waited);
        error
    }

    /// Who held a session was away for so long that its lock ran out, and others may have changed it: nothing was
    /// done. [`ErrorKind::Conflict`].
    #[cold]
    pub fn lock_lost() -> Error {
        Error::new(ErrorKind::Conflict, "write a session whose lock was lost meanwhile")
    }

    /// The program has to be changed: [`ErrorKind::Misuse`].
    #[cold]
    pub fn misuse(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Misuse, message)
    }

    /// The setup has to be changed: [`ErrorKind::Config`].
    #[cold]
    pub fn config(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Config, message)
    }

    /// An option of a store's address that there is not: [`ErrorKind::Config`]. `address` completes "… has no option".
    ///
    /// A password with a `?` in it makes a query of its rest. So the name is repeated only where it looks like that of
    /// an option, mistyped at worst, and no `@` stands behind it.
    #[cold]
    pub fn unknown_option(address: &str, name: &str, query: &str) -> Error {
        if query.contains('@') {
            return Error::config(format!(
                "{address} has no such option; if a password was meant, its ? is written %3F and its @ %40"
            ));
        }
        let is_name = name.len() <= 30 && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'-'));
        Error::config(if is_name {
            format!("{address} has no option `{name}`")
        } else {
            format!("{address} has no option of such a name")
        })
    }

    /// Keeps `source` as the cause of this error.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.0.source = Some(source.into());
        self
    }

    /// Says that the store may have carried the change out although no answer came.
    pub fn or_maybe_applied(mut self) -> Error {
        self.0.maybe_applied = true;
        self
    }

    /// Who has to act.
    ///
    /// ```
    /// use cloakroom_core::{Error, ErrorKind};
    /// assert_eq!(Error::gone().kind(), ErrorKind::Gone);
    /// ```
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// True where the reply of the store was lost, so that the change may have been carried out. cloakroom
    /// itself never repeats such a change.
    pub fn may_have_been_applied(&self) -> bool {
        self.0.maybe_applied
    }

    /// How long [`ErrorKind::Locked`] waited.
    pub fn waited(&self) -> Option<Duration> {
        self.0.waited
    }

    /// True where the same request may well succeed a moment later, and repeating it changes nothing twice.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Conflict | ErrorKind::Locked | ErrorKind::Unavailable) && !self.0.maybe_applied
    }

    /// The status that stands for this error in HTTP: 503 for `Unavailable` and `Locked`, else 500.
    pub fn status(&self) -> http::StatusCode {
        match self.kind() {
            ErrorKind::Locked | ErrorKind::Unavailable => http::StatusCode::SERVICE_UNAVAILABLE,
            _ => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The whole response that stands for this error: its [`status`](Error::status), `Retry-After` beside a 503, and
    /// a body that says nothing of the cause.
    pub fn to_response<B: From<&'static str>>(&self) -> http::Response<B> {
        let status = self.status();
        let unavailable = status == http::StatusCode::SERVICE_UNAVAILABLE;
        let text = if unavailable { "Service Unavailable\n" } else { "Internal Server Error\n" };
        let mut response = http::Response::new(B::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        if unavailable {
            headers.insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
        }
        response
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if self.0.maybe_applied {
            f.write_str(" (the change may have been applied)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind)?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<cloakroom_php::Error> for Error {
    #[cold]
    fn from(error: cloakroom_php::Error) -> Error {
        use cloakroom_php::ErrorKind as Php;
        let kind = match error.kind() {
            _ if error.is_data() => ErrorKind::Corrupt,
            Php::Type | Php::Number | Php::Utf8 | Php::Custom => ErrorKind::Mismatch,
            _ => ErrorKind::Unsupported,
        };
        Error::new(kind, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn a_lost_reply_is_not_retryable() {
        assert!(Error::unavailable("no answer").is_retryable());
        assert!(!Error::unavailable("no answer").or_maybe_applied().is_retryable());
    }

    #[test]
    fn debug_shows_the_chain() {
        let error = Error::unavailable("write a session").with_source(std::io::Error::other("disk full"));
        assert_eq!(format!("{error:?}"), "unavailable: write a session: disk full");
    }
}
