//! axum: [`Session`] as an extractor, [`Error`] as a response.

use axum_core::body::Body;
use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use crate::{Error, Session};

impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Session, Error> {
        parts.extensions.get::<Session>().cloned().ok_or_else(|| {
            Error::misuse("no session in this request: add the session layer to the router, outside of this route")
        })
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        tracing::error!(kind = %self.kind(), error = ?self, "a request failed for its session");
        self.to_response::<Body>()
    }
}
