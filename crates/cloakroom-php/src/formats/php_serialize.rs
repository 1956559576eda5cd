//! `php_serialize`: the session as one serialized array (`PS_SERIALIZER_DECODE_FUNC(php_serialize)`).
//!
//! Two decisions. PHP ignores bytes behind the array; so does reading here, and the first edit drops them. PHP also
//! takes a session that is no array and then never writes it again; here that is an error of its own
//! ([`RootNotArray`](crate::ErrorKind::RootNotArray)), except `N;`, which PHP makes an empty session.

use crate::error::{ErrorKind, Fault};
use crate::scan::{Head, Scan, Walker, head, opening};

/// How many elements the array says it has, and where they begin; `None` for `N;`.
pub(crate) fn array_head(buf: &[u8]) -> Scan<Option<(u32, usize)>> {
    if let Some(found) = opening(buf, 0) {
        return Ok(Some(found));
    }
    match head(buf, 0)? {
        (Head::Array(n), start) => Ok(Some((n, start))),
        (Head::Null, _) => Ok(None),
        (other, _) => {
            // Damage is damage first; and nothing can be referred to by the first value.
            if matches!(other, Head::Alias(_) | Head::Handle(_)) {
                return Err(Fault { kind: ErrorKind::Reference, at: 0, what: "a reference to nothing" });
            }
            Walker::default().value(buf, 0, 0, &mut ())?;
            Err(Fault { kind: ErrorKind::RootNotArray, at: 0, what: "the session is not an array" })
        }
    }
}
