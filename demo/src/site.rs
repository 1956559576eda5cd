//! The whole site: the shop in Rust, the shop in PHP, and around both the observer that makes the pages.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use cloakroom::{Cloakroom, SessionId, SystemRandom};

use crate::page;
use crate::php::{self, PhpState};
use crate::shop::{self, Content, Reply};
use crate::trace::{self, Heard, Traces};

/// How much a form may send.
pub(crate) const LARGEST_FORM: usize = 16 << 10;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) room: Cloakroom,
    pub(crate) sessions: PathBuf,
    pub(crate) php: PhpState,
    pub(crate) traces: Traces,
}

impl Site {
    pub(crate) fn new(room: Cloakroom, sessions: PathBuf, php: PhpState) -> Site {
        Site { room, sessions, php, traces: Traces::default() }
    }
}

pub(crate) fn router(site: Arc<Site>) -> Router {
    let in_rust = shop::routes().layer(site.room.layer());
    let in_php = Router::new()
        .route("/php", any(php::forward))
        .route("/php/", any(php::forward))
        .route("/php/{*path}", any(php::forward))
        .with_state(Arc::clone(&site));
    in_rust
        .merge(in_php)
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(from_fn(own_forms_only))
        .layer(from_fn_with_state(site, observe))
}

async fn own_forms_only(request: Request, next: Next) -> Response {
    if trace::is_own(&request) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this form was not sent from a page of the demo\n").into_response()
    }
}

/// Stands outside of the session's layer: here the response has all its headers, and the session is put back.
async fn observe(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let heard = Heard::of(&request);
    let mut response = next.run(request).await;
    let Some(reply) = response.extensions_mut().remove::<Reply>() else { return response };
    let now = trace::exchange(&site.room, &site.sessions, &heard, response.status(), response.headers(), &reply).await;

    if let Content::SeeOther(to) = &reply.content {
        let to = site.traces.keep(now).map_or_else(|| to.clone(), |number| format!("{to}?after={number}"));
        if let Ok(to) = HeaderValue::try_from(to) {
            response.headers_mut().insert(header::LOCATION, to);
        }
        return response;
    }
    let before = heard.after.as_deref().and_then(|number| site.traces.find(number));
    let Ok(nonce) = SessionId::generate(&SystemRandom, 32, 4) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let nonce = String::from_utf8_lossy(nonce.expose());
    let html = page::page(&site, &reply, before.as_ref(), &now, &nonce).into_string();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    for (name, value) in headers(&nonce) {
        response.headers_mut().insert(name, value);
    }
    *response.body_mut() = html.into();
    response
}

/// The page loads nothing, runs nothing, and is framed by nobody; its forms go home. It shows ids, so no cache keeps it.
fn headers(nonce: &str) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; img-src data:; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let policy = HeaderValue::from_str(&policy).ok().map(|policy| (header::CONTENT_SECURITY_POLICY, policy));
    let fixed = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    fixed.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).chain(policy)
}
