//! A router and requests to it, without a socket.

use axum::Router;
use axum::body::Body;
use cloakroom_core::{Engine, Settings};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};
use cloakroom_web_tower::SessionLayer;
use http::{Request, Response};
use tower::ServiceExt;

pub(crate) fn engine() -> Engine {
    Engine::new(MemoryStore::new(MemoryConfig::default()), Settings::php()).unwrap()
}

pub(crate) fn layer(engine: &Engine) -> SessionLayer {
    SessionLayer::new(engine.clone())
}

pub(crate) fn request(path: &str, cookie: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path);
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    request.body(Body::empty()).unwrap()
}

pub(crate) async fn send(app: &Router, path: &str, cookie: Option<&str>) -> Response<Body> {
    app.clone().oneshot(request(path, cookie)).await.unwrap()
}

/// The `NAME=value` of the response's only cookie.
pub(crate) fn cookie(response: &Response<Body>) -> String {
    let lines: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].to_str().unwrap().split(';').next().unwrap().to_owned()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    use http_body_util::BodyExt;
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
