//! The layer: how a router gets sessions.

use cloakroom_core::Engine;
use tower_layer::Layer;

use crate::SessionService;

/// Gives every request a [`Session`](cloakroom_core::Session) in its extensions.
///
/// Layers may be nested: one further in with the same cookie name uses the request's handle, one with another name
/// adds a session of its own, which is found by [`Session::of_request`](cloakroom_core::Session::of_request).
#[derive(Clone, Debug)]
pub struct SessionLayer {
    engine: Engine,
}

impl SessionLayer {
    /// A layer for the sessions of `engine`.
    pub fn new(engine: Engine) -> SessionLayer {
        SessionLayer { engine }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService::new(inner, self.engine.clone())
    }
}
