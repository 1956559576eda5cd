//! What a session adds to the head of the response: `Set-Cookie`, the cache limiter's headers, `Vary`.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::cookie;

/// What has been decided so far; written into the response when its head is about to leave.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// In PHP's order: a header that is set again goes to the end.
    lines: Vec<Line>,
    /// The contents have been looked at, so that the response depends on the cookie.
    pub(crate) accessed: bool,
    /// Send PHP's headers as they are, without the `no-store` that cloakroom adds beside a cookie.
    pub(crate) exact: bool,
}

#[derive(Debug)]
enum Line {
    /// By cookie name: PHP replaces an earlier cookie of the same name and keeps those of others.
    Cookie(String, HeaderValue),
    Limiter(HeaderName, HeaderValue),
}

impl Head {
    pub(crate) fn set_cookie(&mut self, name: &str, value: HeaderValue) {
        self.drop_cookie(name);
        self.lines.push(Line::Cookie(name.to_owned(), value));
    }

    pub(crate) fn drop_cookie(&mut self, name: &str) {
        self.lines.retain(|line| !matches!(line, Line::Cookie(other, _) if other == name));
    }

    pub(crate) fn set_limiter(&mut self, headers: Vec<(HeaderName, HeaderValue)>) {
        for (name, value) in headers {
            self.lines.retain(|line| !matches!(line, Line::Limiter(other, _) if *other == name));
            self.lines.push(Line::Limiter(name, value));
        }
    }

    pub(crate) fn write(&self, out: &mut HeaderMap) {
        for line in &self.lines {
            match line {
                Line::Cookie(name, value) => cookie::replace(out, name, value),
                Line::Limiter(name, value) if !out.contains_key(name) => _ = out.insert(name, value.clone()),
                // The handler has set it itself.
                Line::Limiter(..) => {}
            }
        }
        let marks = self.lines.iter().any(|line| matches!(line, Line::Cookie(..)));
        if marks && !self.exact && !says(out, &header::CACHE_CONTROL, "no-store") {
            out.append(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if self.accessed && !says(out, &header::VARY, "cookie") && !says(out, &header::VARY, "*") {
            out.append(header::VARY, HeaderValue::from_static("Cookie"));
        }
    }
}

/// Whether one of the comma-separated words of a header is `word`.
fn says(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: &Head, mut out: HeaderMap) -> Vec<(String, String)> {
        head.write(&mut out);
        out.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_cookie_is_never_cached() {
        let mut head = Head::default();
        head.set_cookie("SID", HeaderValue::from_static("SID=1"));
        head.set_limiter(vec![(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60"))]);
        let found = written(&head, HeaderMap::new());
        assert!(found.contains(&pair("cache-control", "no-store")), "{found:?}");

        let mut own = HeaderMap::new();
        own.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, No-Store"));
        let found = written(&head, own);
        assert_eq!(found.iter().filter(|(name, _)| name == "cache-control").count(), 1, "{found:?}");
    }

    #[test]
    fn the_handlers_own_headers_stay() {
        let mut head = Head::default();
        head.set_limiter(vec![(header::PRAGMA, HeaderValue::from_static("no-cache"))]);
        let mut own = HeaderMap::new();
        own.insert(header::PRAGMA, HeaderValue::from_static("mine"));
        assert_eq!(written(&head, own), [pair("pragma", "mine")]);
    }

    #[test]
    fn reading_varies_by_cookie() {
        let head = Head { accessed: true, ..Head::default() };
        assert_eq!(written(&head, HeaderMap::new()), [pair("vary", "Cookie")]);
        let mut own = HeaderMap::new();
        own.insert(header::VARY, HeaderValue::from_static("accept, cookie"));
        assert_eq!(written(&head, own), [pair("vary", "accept, cookie")]);
    }
}
