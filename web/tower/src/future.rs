//! The response's future: ends a request's session before the head of the response leaves.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use cloakroom_core::{Engine, Session};
use http::Response;
use pin_project_lite::pin_project;

pin_project! {
    /// The future of a [`SessionService`](crate::SessionService)'s response.
    ///
    /// Dropped early, as when the client goes away or the handler panics, it discards what a `start` has changed and
    /// releases the session's lock.
    pub struct ResponseFuture<F, B> {
        #[pin]
        inner: F,
        own: Option<(Session, Engine)>,
        finishing: Option<Pin<Box<dyn Future<Output = Response<B>> + Send>>>,
    }

    impl<F, B> PinnedDrop for ResponseFuture<F, B> {
        fn drop(this: Pin<&mut Self>) {
            if let Some((session, _)) = this.project().own.take() {
                session.cancel();
            }
        }
    }
}

impl<F, B> ResponseFuture<F, B> {
    pub(crate) fn new(inner: F, session: Session, engine: Engine) -> ResponseFuture<F, B> {
        ResponseFuture { inner, own: Some((session, engine)), finishing: None }
    }

    /// The session belongs to a layer further out.
    pub(crate) fn outer(inner: F) -> ResponseFuture<F, B> {
        ResponseFuture { inner, own: None, finishing: None }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<&'static str> + Send + 'static,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.finishing.is_none() {
            let mut response = ready!(this.inner.as_mut().poll(context))?;
            match this.own.as_ref() {
                Some((session, engine)) if !session.finish_now(response.headers_mut()) => {
                    *this.finishing = Some(Box::pin(finish(engine.clone(), session.clone(), response)));
                }
                _ => {
                    *this.own = None;
                    return Poll::Ready(Ok(response));
                }
            }
        }
        let Some(finishing) = this.finishing.as_mut() else { return Poll::Pending };
        let response = ready!(finishing.as_mut().poll(context));
        *this.finishing = None;
        *this.own = None;
        Poll::Ready(Ok(response))
    }
}

async fn finish<B: From<&'static str>>(engine: Engine, session: Session, mut response: Response<B>) -> Response<B> {
    let Err(error) = engine.finish(session.clone(), response.headers_mut()).await else { return response };
    tracing::error!(kind = %error.kind(), error = ?error, "a response was replaced: its session was not written");
    let mut response = error.to_response::<B>();
    if let Err(error) = engine.finish(session, response.headers_mut()).await {
        tracing::error!(error = ?error, "ending the request failed again");
    }
    response
}

impl<F, B> std::fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
