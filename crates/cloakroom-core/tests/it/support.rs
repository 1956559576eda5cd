//! A visitor with a cookie jar of one cookie, without a web framework.

use cloakroom_core::cookie::{self, CookieValue};
use cloakroom_core::{Engine, Session, Settings};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request};

pub(crate) fn memory() -> MemoryStore {
    MemoryStore::new(MemoryConfig::default())
}

pub(crate) fn engine() -> Engine {
    Engine::new(memory(), Settings::php()).unwrap()
}

/// An engine whose settings were changed.
pub(crate) fn engine_with(change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = Settings::php();
    change(&mut settings);
    Engine::new(memory(), settings).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    pub(crate) engine: Engine,
    pub(crate) cookie: Option<String>,
}

impl Visitor {
    pub(crate) fn new(engine: &Engine) -> Visitor {
        Visitor { engine: engine.clone(), cookie: None }
    }

    /// A visitor that sends this cookie.
    pub(crate) fn with(engine: &Engine, cookie: &str) -> Visitor {
        Visitor { engine: engine.clone(), cookie: Some(cookie.into()) }
    }

    /// A visitor with a session in which `n` is 1.
    pub(crate) async fn with_session(engine: &Engine) -> Visitor {
        let mut visitor = Visitor::new(engine);
        let session = visitor.begin();
        session.update(|s| s.set("n", &1)).await.unwrap();
        visitor.finish(session).await;
        assert!(visitor.cookie.is_some());
        visitor
    }

    pub(crate) fn begin(&self) -> Session {
        let mut request = Request::new(());
        if let Some(cookie) = &self.cookie {
            let line = format!("{}={cookie}", self.engine.settings().name);
            request.headers_mut().insert(COOKIE, HeaderValue::from_str(&line).unwrap());
        }
        self.engine.begin(&request.into_parts().0)
    }

    /// Ends the request and does to the jar what a browser would.
    pub(crate) async fn finish(&mut self, session: Session) -> HeaderMap {
        let mut headers = HeaderMap::new();
        self.engine.finish(session, &mut headers).await.unwrap();
        self.take(&headers);
        headers
    }

    pub(crate) fn take(&mut self, headers: &HeaderMap) {
        let lines: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert!(lines.len() <= 1, "{lines:?}");
        let Some(line) = lines.first() else { return };
        if line.as_bytes().windows(9).any(|part| part == b"Max-Age=0") {
            self.cookie = None;
        } else if let CookieValue::Text(value) = cookie::find([line.as_bytes()], &self.engine.settings().name) {
            self.cookie = Some(String::from_utf8(value).unwrap());
        }
    }

    /// One request that reads `key`.
    pub(crate) async fn get(&mut self, key: &str) -> Option<i64> {
        let session = self.begin();
        let value = session.read().await.unwrap().get(key).unwrap();
        self.finish(session).await;
        value
    }

    /// One request that sets `key`.
    pub(crate) async fn set(&mut self, key: &str, value: i64) {
        let session = self.begin();
        session.update(|s| s.set(key, &value)).await.unwrap();
        self.finish(session).await;
    }
}

/// The lines of a header.
pub(crate) fn lines(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
}
