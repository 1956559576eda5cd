//! What users depend on: opening a store by URL or php.ini, the PHP facade, and that nothing secret gets out.
#![expect(clippy::unwrap_used, reason = "in tests an error is a failure")]

mod connect;
mod gone;
mod leaks;
mod php;
