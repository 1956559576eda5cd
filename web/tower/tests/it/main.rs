//! The layer under axum: what it costs, and how requests end.
#![expect(clippy::unwrap_used, reason = "in tests an error is a failure")]

mod cost;
mod endings;
mod nesting;
mod support;
