//! A visitor with a cookie jar of one cookie, without a web framework.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use cloakroom_core::cookie::{self, CookieValue};
use cloakroom_core::{Engine, Result, Session, SessionId, Settings};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request};

use super::IO;
use super::tools::Shared;

/// An engine on this store, with the limits of the suite.
pub(crate) fn engine(store: Shared) -> Engine {
    engine_with(store, |_| {})
}

pub(crate) fn engine_with(store: Shared, change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = Settings::php();
    settings.io_timeout = IO;
    settings.gc_probability = 0;
    change(&mut settings);
    let (clock, random) = (cloakroom_core::SystemClock, cloakroom_core::SystemRandom);
    Engine::from_parts(store, settings, std::sync::Arc::new(clock), std::sync::Arc::new(random)).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    engine: Engine,
    pub(crate) cookie: Option<String>,
}

impl Visitor {
    /// A visitor who has never been here.
    pub(crate) fn new(engine: &Engine) -> Visitor {
        Visitor { engine: engine.clone(), cookie: None }
    }

    /// A visitor with a session in which `n` is 1.
    pub(crate) async fn with_session(engine: &Engine) -> Visitor {
        let mut visitor = Visitor::new(engine);
        let session = visitor.begin();
        session.update(|s| s.set("n", &1)).await.unwrap();
        visitor.finish(session).await.unwrap();
        assert!(visitor.cookie.is_some());
        visitor
    }

    /// The same visitor, who comes by another way.
    pub(crate) fn by(&self, engine: &Engine) -> Visitor {
        Visitor { engine: engine.clone(), cookie: self.cookie.clone() }
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
    pub(crate) async fn finish(&mut self, session: Session) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        self.engine.finish(session, &mut headers).await?;
        self.take(&headers);
        Ok(headers)
    }

    /// Ends the request as an adapter does: where that fails, the response is replaced by the error, with what took
    /// effect all the same. The headers the browser gets, and whether it was an error.
    pub(crate) async fn end(&mut self, session: Session) -> (HeaderMap, Result<()>) {
        let mut headers = HeaderMap::new();
        let ended = self.engine.finish(session.clone(), &mut headers).await;
        if ended.is_err() {
            headers.clear();
            self.engine.finish(session, &mut headers).await.unwrap();
        }
        self.take(&headers);
        (headers, ended)
    }

    fn take(&mut self, headers: &HeaderMap) {
        let lines = cookies(headers);
        assert!(lines.len() <= 1, "{lines:?}");
        let Some(line) = lines.first() else { return };
        if line.contains("Max-Age=0") {
            self.cookie = None;
        } else if let CookieValue::Text(value) = cookie::find([line.as_bytes()], &self.engine.settings().name) {
            self.cookie = Some(String::from_utf8(value).unwrap());
        }
    }

    /// One request that reads `key`.
    pub(crate) async fn get(&mut self, key: &str) -> Result<Option<i64>> {
        let session = self.begin();
        let value = session.read().await?.get(key)?;
        self.finish(session).await?;
        Ok(value)
    }

    /// The id in the jar.
    pub(crate) fn id(&self) -> SessionId {
        SessionId::parse(self.cookie.as_ref().unwrap()).unwrap()
    }
}

/// The `Set-Cookie` lines.
pub(crate) fn cookies(headers: &HeaderMap) -> Vec<String> {
    headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
}
