//! Server-side sessions for Rust web services that are, byte for byte, PHP's.
//!
//! The ticket is the cookie, the coat is the session: the cookie unlocks the session, the cookie is not the session.
//! A browser without a ticket gets one, a large random number in hex; the data stay on the server, by default in small
//! files that anyone may open and read, and that a PHP application reads and writes at the same time.
//!
//! ```no_run
//! # #[cfg(feature = "axum")] mod app {
//! use axum::{Router, routing::get};
//! use cloakroom::{Cloakroom, Session};
//!
//! async fn pizzas(session: Session) -> cloakroom::Result<String> {
//!     let pizzas = session.update(|s| {
//!         let pizzas = s.get::<i64>("pizzas")?.unwrap_or(0) + 1;
//!         s.set("pizzas", &pizzas)?;
//!         Ok(pizzas)
//!     }).await?;
//!     Ok(format!("{pizzas} pizzas"))
//! }
//!
//! # pub async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let room = Cloakroom::connect("files:///var/lib/php/sessions").await?;
//! let app = Router::new().route("/", get(pizzas)).layer(room.layer());
//! axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await?;
//! # Ok(()) }
//! # }
//! ```
//!
//! # Three verbs
//!
//! | verb | what it does | its lock |
//! |---|---|---|
//! | [`Session::read`] | a snapshot; marks nobody, changes nothing | none, and waits for nobody |
//! | [`Session::update`] | a change as one atomic step, run again if another request was faster | only while it is written |
//! | [`Session::start`] | PHP's `session_start()`: open until the head of the response leaves | for all that time |
//!
//! [`Session::rotate`] gives the session a new id, [`Session::destroy`] ends it.
//!
//! # Words
//!
//! A *session* is what a browser's cookie unlocks; a *record* is what a store keeps of it; a *format* is how a record is
//! written (`session.serialize_handler`); a *lease* is a held lock.
//!
//! # Features
//!
//! | feature | turn it on when |
//! |---|---|
//! | `files` (default) | sessions lie in PHP's own files |
//! | `memory` (default) | tests, and services of one process that may forget |
//! | `axum` | your handlers are axum's: [`Session`] is an extractor, [`Error`] a response |
//! | `tower` | you use another framework on tower |
//! | `redis` | sessions lie in Redis or Valkey: one, a cluster, or behind sentinels |
//! | `memcached` | … in Memcached |
//! | `sqlite` | … in an SQLite database |
//! | `sql` | … in PostgreSQL, MySQL or MariaDB |
//!
//! The [`guide`] has the rest: logins, sharing with PHP, choosing a store, what can be lost when something breaks.

mod cloakroom;
mod connect;
mod elsewhere;
pub mod guide;
pub mod php;

pub use cloakroom_core::{
    AsKey, Bag, Clock, Draft, Engine, Error, ErrorKind, Format, KeyRef, Random, Result, Session, SessionId, Settings,
    Snapshot, StartOptions, Started, Store, SystemClock, SystemRandom, Value, cookie, store,
};
#[cfg(feature = "files")]
pub use cloakroom_store_files as files;
#[cfg(feature = "memory")]
pub use cloakroom_store_memory as memory;
#[cfg(feature = "tower")]
pub use cloakroom_web_tower as tower;

pub use crate::cloakroom::{Builder, Cloakroom};

/// The examples of the README, for the tests.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../../README.md")]
mod readme {}
