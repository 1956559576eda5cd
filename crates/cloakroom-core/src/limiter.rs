//! What PHP's cache limiter adds to a response (`php_session_cache_limiter`).

use http::header::{CACHE_CONTROL, EXPIRES, PRAGMA};
use http::{HeaderName, HeaderValue};

use crate::Settings;
use crate::date::HttpDate;

/// A date that is long past, which PHP has always sent.
const LONG_AGO: HeaderValue = HeaderValue::from_static("Thu, 19 Nov 1981 08:52:00 GMT");

/// The headers of `session.cache_limiter`, in PHP's order; none for a name that PHP does not know.
///
/// PHP adds a `Last-Modified` of the script's file, for which there is nothing to stand here.
pub fn headers(settings: &Settings, now: i64) -> Vec<(HeaderName, HeaderValue)> {
    let max_age = settings.cache_expire.wrapping_mul(60);
    let control = |kind: &str| value(&format!("{kind}, max-age={max_age}"));
    match settings.cache_limiter.to_ascii_lowercase().as_str() {
        "nocache" => vec![
            (EXPIRES, LONG_AGO),
            (CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache, must-revalidate")),
            (PRAGMA, HeaderValue::from_static("no-cache")),
        ],
        "public" => {
            let expires = HttpDate(now.saturating_add(max_age)).to_string();
            vec![(EXPIRES, value(&expires)), (CACHE_CONTROL, control("public"))]
        }
        "private" => vec![(EXPIRES, LONG_AGO), (CACHE_CONTROL, control("private"))],
        "private_no_expire" => vec![(CACHE_CONTROL, control("private"))],
        _ => Vec::new(),
    }
}

fn value(text: &str) -> HeaderValue {
    // Only words, numbers and dates come here.
    HeaderValue::from_str(text).unwrap_or(LONG_AGO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limiter: &str, minutes: i64, expect: &[(&str, &str)]) {
        let mut settings = Settings::php_defaults();
        settings.cache_limiter = limiter.into();
        settings.cache_expire = minutes;
        let found = headers(&settings, 1_795_405_896);
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn sends_what_php_sends() {
        let nocache = [
            ("expires", "Thu, 19 Nov 1981 08:52:00 GMT"),
            ("cache-control", "no-store, no-cache, must-revalidate"),
            ("pragma", "no-cache"),
        ];
        check("nocache", 180, &nocache);
        check("NoCache", 180, &nocache);
        check(
            "public",
            180,
            &[("expires", "Mon, 23 Nov 2026 06:51:36 GMT"), ("cache-control", "public, max-age=10800")],
        );
        check(
            "private",
            -5,
            &[("expires", "Thu, 19 Nov 1981 08:52:00 GMT"), ("cache-control", "private, max-age=-300")],
        );
        check("private_no_expire", 180, &[("cache-control", "private, max-age=10800")]);
        check("", 180, &[]);
        check("anything", 180, &[]);
    }
}
