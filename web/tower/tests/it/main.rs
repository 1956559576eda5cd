//! The layer under axum: what it costs, and how requests end.

mod cost;
mod endings;
mod nesting;
mod support;
