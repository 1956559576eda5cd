//! cloakroom as a [tower](https://docs.rs/tower) layer, for axum and every other framework of that family.
//!
//! The layer translates headers in and headers out; what a session does is decided in `cloakroom-core`. A request
//! that never touches its session costs no store call and hardly any memory.

mod future;
mod layer;
mod service;

pub use future::ResponseFuture;
pub use layer::SessionLayer;
pub use service::SessionService;
