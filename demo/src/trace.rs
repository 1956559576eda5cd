//! What just happened: an observer outside of everything else, which sees what a browser would see (the request's
//! cookie, the reply's `Set-Cookie`) and then looks at the session's file.
//!
//! After a form comes a redirect, and the page that follows is to tell of the form. Nothing about the browser is
//! remembered for that: the redirect carries a random number of its own (`/?after=…`), under which the exchange is kept.
//! So it works when the session has just been destroyed, and two tabs do not mix; whoever cannot guess the number
//! sees nothing.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use cloakroom::cookie::{self, CookieValue};
use cloakroom::{Cloakroom, KeyRef, SessionId, SystemRandom};

use crate::shop::Reply;
use crate::words::{Act, Language};

/// How many exchanges are kept.
const MOST_KEPT: usize = 256;
/// How much of a foreign header is kept.
const LONGEST_HEADER: usize = 2048;

/// A request and its response.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) language: Language,
    pub(crate) act: Act,
    /// `POST /pizza HTTP/1.1`
    pub(crate) request: String,
    pub(crate) cookie: Option<String>,
    pub(crate) status: StatusCode,
    pub(crate) set_cookie: Vec<String>,
    /// The id that the browser sent, if it is one.
    pub(crate) before: Option<String>,
    /// The id that it has now.
    pub(crate) after: Option<String>,
    /// Whether the file of `before` is still there; asked where the id has changed.
    pub(crate) before_lives: Option<bool>,
    pub(crate) coat: Option<Coat>,
}

/// The session's file.
#[derive(Clone, Debug)]
pub(crate) struct Coat {
    pub(crate) name: String,
    pub(crate) file: Option<File>,
}

#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// In seconds.
    pub(crate) age: i64,
    pub(crate) text: Result<Vec<Line>, String>,
}

/// One key of the file and what lies under it, as they are written there.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// What is noted of a request before it goes on.
#[derive(Debug)]
pub(crate) struct Heard {
    request: String,
    cookies: HeaderMap,
    /// The number that a redirect has carried here.
    pub(crate) after: Option<String>,
}

impl Heard {
    pub(crate) fn of<B>(request: &Request<B>) -> Heard {
        let mut cookies = HeaderMap::new();
        for cookie in request.headers().get_all(header::COOKIE) {
            cookies.append(header::COOKIE, cookie.clone());
        }
        let query = request.uri().query().unwrap_or_default();
        let after = query.split('&').find_map(|pair| pair.strip_prefix("after=")).map(str::to_owned);
        let line = format!("{} {} {:?}", request.method(), request.uri(), request.version());
        Heard { request: line, cookies, after }
    }
}

/// Puts together what happened, when all of it has.
pub(crate) async fn exchange(
    room: &Cloakroom,
    directory: &Path,
    heard: &Heard,
    status: StatusCode,
    sent: &HeaderMap,
    reply: &Reply,
) -> Exchange {
    let before = id_in(room, &heard.cookies);
    let cookies = cookies_after(room, &heard.cookies, sent);
    let after = id_in(room, &cookies);
    let moved = before.as_ref().filter(|_| before != after);
    let mut coat = None;
    if let Some(id) = &after {
        let name = file_name(id);
        let file = look_at(room, &directory.join(&name), cookies).await;
        coat = Some(Coat { name, file });
    }
    Exchange {
        language: reply.language,
        act: reply.act,
        request: heard.request.clone(),
        cookie: lines(&heard.cookies, &header::COOKIE).into_iter().reduce(|all, one| format!("{all}; {one}")),
        status,
        set_cookie: lines(sent, &header::SET_COOKIE),
        before_lives: moved.map(|id| directory.join(file_name(id)).exists()),
        before: before.as_ref().map(text_of),
        after: after.as_ref().map(text_of),
        coat,
    }
}

/// What the browser's next request will have in its `Cookie` header, as far as this session goes.
fn cookies_after(room: &Cloakroom, before: &HeaderMap, sent: &HeaderMap) -> HeaderMap {
    let name = &room.settings().name;
    let is_ours =
        |line: &&HeaderValue| line.as_bytes().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
    let Some(line) = sent.get_all(header::SET_COOKIE).iter().rfind(is_ours) else { return before.clone() };
    let pair = line.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default();
    let mut cookies = HeaderMap::new();
    if !pair.ends_with(b"=deleted")
        && let Ok(pair) = HeaderValue::from_bytes(pair)
    {
        cookies.insert(header::COOKIE, pair);
    }
    cookies
}

fn id_in(room: &Cloakroom, cookies: &HeaderMap) -> Option<SessionId> {
    let headers = cookies.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    match cookie::find(headers, &room.settings().name) {
        CookieValue::Text(text) => SessionId::parse(text),
        _ => None,
    }
}

/// Shown here because the demo teaches. A real service never does this.
fn text_of(id: &SessionId) -> String {
    String::from_utf8_lossy(id.expose()).into_owned()
}

fn file_name(id: &SessionId) -> String {
    format!("sess_{}", text_of(id))
}

/// Looks at a session's file as the next request would, but without counting as use.
async fn look_at(room: &Cloakroom, path: &Path, cookies: HeaderMap) -> Option<File> {
    let found = fs::symlink_metadata(path).ok()?;
    let mut head = Request::new(()).into_parts().0;
    head.headers = cookies;
    let age = room.engine().unix_time().saturating_sub(found.mtime()).max(0);
    let text = lines_of(room, &head).await.map_err(|error| format!("{}: {error}", error.kind()));
    Some(File { mode: found.mode() & 0o7777, size: found.len(), age, text })
}

async fn lines_of(room: &Cloakroom, head: &Parts) -> cloakroom::Result<Vec<Line>> {
    let session = room.begin(head).peek().await?;
    let bag = session.bag();
    let line = |key: KeyRef<'_>| Line {
        key: match key {
            KeyRef::Int(number) => number.to_string(),
            KeyRef::Str(bytes) => lossy(bytes),
        },
        value: bag.raw(key).map(lossy).unwrap_or_default(),
    };
    Ok(bag.keys().map(line).collect())
}

fn lines(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers.get_all(name).iter().map(|value| lossy(&value.as_bytes()[..value.len().min(LONGEST_HEADER)])).collect()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exchanges that pages still have to tell of.
#[derive(Debug, Default)]
pub(crate) struct Traces(Mutex<VecDeque<(String, Exchange)>>);

impl Traces {
    /// Keeps an exchange; the number that leads to it, if there is randomness to be had.
    pub(crate) fn keep(&self, exchange: Exchange) -> Option<String> {
        let number = text_of(&SessionId::generate(&SystemRandom, 26, 5).ok()?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == MOST_KEPT {
            kept.pop_front();
        }
        kept.push_back((number.clone(), exchange));
        Some(number)
    }

    pub(crate) fn find(&self, number: &str) -> Option<Exchange> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(known, _)| known == number).map(|(_, exchange)| exchange.clone())
    }
}

/// Whether a request that changes something comes from the demo's own pages.
///
/// Browsers say where a request comes from (`Sec-Fetch-Site`, and `Origin` in those that do not know it), and a page
/// cannot forge either. A token in each form would do as well, but it would have to lie in the session, which would then
/// no longer be the three lines that this demo is about; and one check here holds for PHP's half too. What sends neither
/// header is no browser and carries nobody's cookies against their will. `SameSite=Lax` stands behind all this.
pub(crate) fn is_own<B>(request: &Request<B>) -> bool {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return true;
    }
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), _, _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin), Some(host)) => origin.strip_prefix("http://") == Some(host),
        (None, origin, _) => origin.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(headers: &[(&str, &str)], expect: bool) {
        let mut request = Request::post("/pizza").body(()).unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        assert_eq!(is_own(&request), expect, "{headers:?}");
    }

    #[test]
    fn forms_of_other_sites_are_refused() {
        let host = ("host", "127.0.0.1:8080");
        check(&[host], true);
        check(&[host, ("sec-fetch-site", "same-origin")], true);
        check(&[host, ("sec-fetch-site", "cross-site"), ("origin", "http://127.0.0.1:8080")], false);
        check(&[host, ("sec-fetch-site", "same-site")], false);
        check(&[host, ("origin", "http://127.0.0.1:8080")], true);
        check(&[host, ("origin", "http://127.0.0.1:9")], false);
        check(&[host, ("origin", "null")], false);
    }
}
