//! Traits of web frameworks for our types. They can only be implemented where the types live; they hold no logic.

#[cfg(feature = "axum")]
mod axum;
