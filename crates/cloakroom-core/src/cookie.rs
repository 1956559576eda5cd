//! The ticket on the wire: reading the `Cookie` header as PHP does (`php_default_treat_data`), and the bytes of PHP's
//! `Set-Cookie` (`php_session_send_cookie`).

use std::fmt::{self, Write as _};

use http::{HeaderMap, HeaderValue, header};

use crate::date::HttpDate;
use crate::{SessionId, Settings, Tag};

/// What a request's cookies hold under a session's name.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CookieValue {
    /// No such cookie.
    Absent,
    /// `NAME[key]=value`: PHP makes an array of it, which is no id, whatever other cookies say.
    Array,
    /// The value, percent-decoded; `+` stays `+`.
    Text(Vec<u8>),
}

impl fmt::Debug for CookieValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CookieValue::Absent => f.write_str("Absent"),
            CookieValue::Array => f.write_str("Array"),
            CookieValue::Text(text) => write!(f, "Text({})", Tag::of(text)),
        }
    }
}

impl CookieValue {
    /// The value, where there is one and it is not empty.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            CookieValue::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// Looks a session's cookie up as PHP fills `$_COOKIE`.
///
/// Split at `;` alone, blanks before a name dropped and those behind a value kept, names not decoded, the first of
/// several wins unless one is an array. A space, a dot or a lone `[` in a name becomes `_`, but never so that
/// a name begins to look like `__Host-` or `__Secure-`.
///
/// ```
/// use cloakroom_core::cookie::{CookieValue, find};
/// assert_eq!(find([b"a=1; PHPSESSID=x%2Cy".as_slice()], "PHPSESSID"), CookieValue::Text(b"x,y".to_vec()));
/// ```
pub fn find<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &str) -> CookieValue {
    let mut found = CookieValue::Absent;
    for pair in headers.into_iter().flat_map(|header| header.split(|&byte| byte == b';')) {
        let start = pair.iter().position(|byte| !is_space(*byte)).unwrap_or(pair.len());
        let pair = &pair[start..];
        let (raw_name, value) = match pair.iter().position(|&byte| byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        match name_of(raw_name, name.as_bytes()) {
            Some(Form::Array) => return CookieValue::Array,
            Some(Form::Plain) if found == CookieValue::Absent => found = CookieValue::Text(percent_decode(value)),
            _ => {}
        }
    }
    found
}

enum Form {
    Plain,
    Array,
}

/// Whether a cookie's raw name is `name` once PHP has mangled it (`php_register_variable_ex`), and in which form.
fn name_of(raw: &[u8], name: &[u8]) -> Option<Form> {
    // PHP's variable names end at a NUL.
    let raw = &raw[..raw.iter().position(|&byte| byte == 0).unwrap_or(raw.len())];
    if raw == name && !raw.iter().any(|byte| matches!(byte, b'[' | b'.' | b' ')) {
        return Some(Form::Plain);
    }
    let open = raw.iter().position(|&byte| byte == b'[');
    let (base, form) = match open {
        Some(at) if raw[at..].contains(&b']') && at > 0 => (&raw[..at], Form::Array),
        _ => (raw, Form::Plain),
    };
    let mangle = |byte: &u8| if matches!(byte, b' ' | b'.' | b'[') { b'_' } else { *byte };
    if base.len() != name.len() || !base.iter().map(mangle).eq(name.iter().copied()) {
        return None;
    }
    let forged = base != name && (name.starts_with(b"__Host-") || name.starts_with(b"__Secure-"));
    (!forged).then_some(form)
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// PHP's `php_raw_url_decode`: `%XX` and nothing else.
pub fn percent_decode(value: &[u8]) -> Vec<u8> {
    if !value.contains(&b'%') {
        return value.to_vec();
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = match tail {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        let Some((high, low)) = escaped else {
            out.push(byte);
            rest = tail;
            continue;
        };
        out.push(high << 4 | low);
        rest = &tail[2..];
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// PHP's `urlencode`, by which it writes cookie values.
fn url_encode(value: &[u8], out: &mut String) {
    for &byte in value {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            // Writing to a String cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
}

/// PHP's danger filter: an id with one of these bytes counts as absent, whatever the handler.
pub fn is_dangerous(id: &[u8]) -> bool {
    id.iter().any(|byte| matches!(byte, b'\r' | b'\n' | b'\t' | b' ' | b'<' | b'>' | b'\'' | b'"' | b'\\'))
}

/// A name that PHP sends no cookie under (`session.name cannot contain any of the following…`).
pub fn is_sendable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', ',', ';', '.', '[', ' ', '\t', '\r', '\n', '\x0b', '\x0c', '\0'])
}

/// The `Set-Cookie` that marks the browser with `id`, byte for byte PHP's.
///
/// `None` where PHP sends none: the name or an attribute would break the header.
///
/// ```
/// use cloakroom_core::{SessionId, Settings, cookie};
/// let id = SessionId::parse("abc,123").unwrap();
/// let header = cookie::mark(&Settings::php_defaults(), id.expose(), 0).unwrap();
/// assert_eq!(header, "PHPSESSID=abc%2C123; path=/");
/// ```
pub fn mark(settings: &Settings, id: &[u8], now: i64) -> Option<HeaderValue> {
    let mut text = begin(settings)?;
    url_encode(id, &mut text);
    let lifetime = settings.cookie_lifetime;
    // PHP leaves a lifetime out with which its arithmetic could overflow.
    if lifetime > 0 && lifetime < i64::MAX - i64::from(i32::MAX) {
        let expires = HttpDate(now.saturating_add(lifetime));
        _ = write!(text, "; expires={expires}; Max-Age={lifetime}");
    }
    finish(settings, text)
}

/// The `Set-Cookie` that removes the browser's mark, with the attributes it was set with.
pub fn unmark(settings: &Settings) -> Option<HeaderValue> {
    let mut text = begin(settings)?;
    _ = write!(text, "deleted; expires={}; Max-Age=0", HttpDate(1));
    finish(settings, text)
}

fn begin(settings: &Settings) -> Option<String> {
    is_sendable_name(&settings.name).then(|| format!("{}=", settings.name))
}

fn finish(settings: &Settings, mut text: String) -> Option<HeaderValue> {
    for (attribute, value) in [("path", &settings.cookie_path), ("domain", &settings.cookie_domain)] {
        if !value.is_empty() {
            _ = write!(text, "; {attribute}={value}");
        }
    }
    if settings.cookie_secure {
        text.push_str("; secure");
    }
    if settings.cookie_httponly {
        text.push_str("; HttpOnly");
    }
    if !settings.cookie_samesite.is_empty() {
        _ = write!(text, "; SameSite={}", settings.cookie_samesite);
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

/// Puts a session's `Set-Cookie` into a response in the place of any other of the same name.
pub(crate) fn replace(headers: &mut HeaderMap, name: &str, value: &HeaderValue) {
    let is_ours = |line: &HeaderValue| {
        let (line, name) = (line.as_bytes(), name.as_bytes());
        line.starts_with(name) && line.get(name.len()) == Some(&b'=')
    };
    if headers.get_all(header::SET_COOKIE).iter().any(is_ours) {
        let kept: Vec<_> = headers.get_all(header::SET_COOKIE).iter().filter(|line| !is_ours(line)).cloned().collect();
        headers.remove(header::SET_COOKIE);
        for line in kept {
            headers.append(header::SET_COOKIE, line);
        }
    }
    headers.append(header::SET_COOKIE, value.clone());
}

/// Takes the session's id from what a cookie holds: nothing unless it is one that PHP's `files` handler takes.
pub(crate) fn id_of(value: &CookieValue) -> Option<SessionId> {
    value.text().and_then(SessionId::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: &str, name: &str, expect: Option<&str>) {
        let expect = expect.map_or(CookieValue::Absent, |text| CookieValue::Text(text.into()));
        assert_eq!(find([header.as_bytes()], name), expect, "{header}");
    }

    /// The right column is what PHP 8.2.36 had in `$_COOKIE`.
    #[test]
    fn reads_cookies_as_php_does() {
        check("PHPSESSID=first; PHPSESSID=second", "PHPSESSID", Some("first"));
        check("PHPSESSID=a%2Cb+c", "PHPSESSID", Some("a,b+c"));
        check("PHPSESSID=abcd  ;x=1", "PHPSESSID", Some("abcd  "));
        check("PHP%53ESSID=x", "PHPSESSID", None);
        check("phpsessid=x", "PHPSESSID", None);
        check("PHP.SESSID=x", "PHP_SESSID", Some("x"));
        check("PHP SESSID=x", "PHP_SESSID", Some("x"));
        check("PHP[SESSID=x", "PHP_SESSID", Some("x"));
        check("PHPSESSID", "PHPSESSID", Some(""));
        check("PHPSESSID=\"q\"", "PHPSESSID", Some("\"q\""));
        check("a=1,PHPSESSID=x", "PHPSESSID", None);
        check("  \tPHPSESSID=x", "PHPSESSID", Some("x"));
        check("__Host-S=good; ..Host-S=evil", "__Host-S", Some("good"));
        check("..Host-S=evil; __Host-S=good", "__Host-S", Some("good"));
        check("%5F_Host-S=enc; __Host-S=good", "__Host-S", Some("good"));
        check("PHPSESSID=%zz%4", "PHPSESSID", Some("%zz%4"));
    }

    #[test]
    fn an_array_is_no_id_whatever_else_there_is() {
        for header in ["PHPSESSID[a]=1; PHPSESSID=ok", "PHPSESSID=ok; PHPSESSID[a]=1", "PHPSESSID[]=1"] {
            assert_eq!(find([header.as_bytes()], "PHPSESSID"), CookieValue::Array, "{header}");
        }
    }

    #[test]
    fn http2_may_split_the_header() {
        assert_eq!(find([b"a=1".as_slice(), b"PHPSESSID=x"], "PHPSESSID"), CookieValue::Text(b"x".to_vec()));
    }

    #[track_caller]
    fn check_mark(change: impl Fn(&mut Settings), expect: Option<&str>) {
        let mut settings = Settings::php_defaults();
        change(&mut settings);
        let header = mark(&settings, b"abcdefghijklmnopqrstuvwxyz012345", 1_795_405_896);
        let expect = expect.map(|text| text.replace("=I", "=abcdefghijklmnopqrstuvwxyz012345"));
        assert_eq!(header.as_ref().map(HeaderValue::as_bytes), expect.as_deref().map(str::as_bytes));
    }

    /// The lines that PHP 8.2.36 sent.
    #[test]
    fn marks_as_php_does() {
        check_mark(|_| {}, Some("PHPSESSID=I; path=/"));
        check_mark(
            |s| s.cookie_lifetime = 3600,
            Some("PHPSESSID=I; expires=Mon, 23 Nov 2026 04:51:36 GMT; Max-Age=3600; path=/"),
        );
        check_mark(|s| s.cookie_lifetime = i64::MAX - i64::from(i32::MAX), Some("PHPSESSID=I; path=/"));
        check_mark(|s| s.cookie_path = String::new(), Some("PHPSESSID=I"));
        check_mark(|s| s.cookie_path = "/a b;c=d".into(), Some("PHPSESSID=I; path=/a b;c=d"));
        check_mark(|s| s.cookie_domain = ".example.com".into(), Some("PHPSESSID=I; path=/; domain=.example.com"));
        check_mark(|s| s.cookie_samesite = "bogus value".into(), Some("PHPSESSID=I; path=/; SameSite=bogus value"));
        check_mark(
            |s| {
                s.cookie_lifetime = 3600;
                s.cookie_path = "/app/".into();
                s.cookie_domain = "example.com".into();
                (s.cookie_secure, s.cookie_httponly) = (true, true);
                s.cookie_samesite = "Strict".into();
            },
            Some(
                "PHPSESSID=I; expires=Mon, 23 Nov 2026 04:51:36 GMT; Max-Age=3600; path=/app/; domain=example.com; \
                 secure; HttpOnly; SameSite=Strict",
            ),
        );
        check_mark(|s| s.name = "x]".into(), Some("x]=I; path=/"));
        check_mark(|s| s.name = "a.b".into(), None);
        check_mark(|s| s.cookie_path = "/\r\nX: y".into(), None);
    }

    #[test]
    fn encodes_the_value_as_a_form_would() {
        let header = mark(&Settings::php_defaults(), b"ab,cd-EF_.~ /", 0).unwrap();
        assert_eq!(header, "PHPSESSID=ab%2Ccd-EF_.%7E+%2F; path=/");
    }

    #[test]
    fn unmarks_with_the_same_attributes() {
        let mut settings = Settings::php_defaults();
        settings.cookie_domain = "example.com".into();
        settings.cookie_secure = true;
        assert_eq!(
            unmark(&settings).unwrap(),
            "PHPSESSID=deleted; expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; path=/; domain=example.com; secure"
        );
    }

    #[test]
    fn replaces_only_its_own() {
        let mut headers = HeaderMap::new();
        for line in ["A=1", "PHPSESSID=old; path=/", "PHPSESSID2=x"] {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(line));
        }
        replace(&mut headers, "PHPSESSID", &HeaderValue::from_static("PHPSESSID=new"));
        let lines: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(lines, ["A=1", "PHPSESSID2=x", "PHPSESSID=new"]);
    }
}
