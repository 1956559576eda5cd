//! The service: begins a request's session.

use std::task::{Context, Poll};

use cloakroom_core::{Engine, Session};
use http::{Request, Response};
use tower_service::Service;

use crate::ResponseFuture;

/// The service of a [`SessionLayer`](crate::SessionLayer).
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    engine: Engine,
}

impl<S> SessionService<S> {
    pub(crate) fn new(inner: S, engine: Engine) -> SessionService<S> {
        SessionService { inner, engine }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: From<&'static str> + Send + 'static,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let name = &self.engine.settings().name;
        if Session::of_request(&head.extensions, name).is_some() {
            return ResponseFuture::outer(self.inner.call(Request::from_parts(head, body)));
        }
        let session = self.engine.begin(&head);
        session.insert_into(&mut head.extensions);
        ResponseFuture::new(self.inner.call(Request::from_parts(head, body)), session, self.engine.clone())
    }
}
