//! The guide: what to know beyond the names of functions.
//!
//! | page | read it when |
//! |---|---|
//! | [`getting_started`] | you have an axum service and no sessions yet |
//! | [`verbs`] | two requests of one visitor may run at once, which they always may |
//! | [`logins`] | somebody logs in, or out |
//! | [`sharing_with_php`] | a PHP application has the same sessions |
//! | [`stores`] | you choose where sessions lie |
//! | [`failures`] | you want to know what visitors see when something is down, and what can be lost |
//! | [`operations`] | you run it |
//!
//! Every example is compiled by the tests, and run where it needs no server.

#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("verbs.md")]
pub mod verbs {}

#[doc = include_str!("logins.md")]
pub mod logins {}

#[doc = include_str!("sharing_with_php.md")]
pub mod sharing_with_php {}

#[doc = include_str!("stores.md")]
pub mod stores {}

#[doc = include_str!("failures.md")]
pub mod failures {}

#[doc = include_str!("operations.md")]
pub mod operations {}
