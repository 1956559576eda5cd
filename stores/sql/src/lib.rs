#![doc = include_str!("../README.md")]
//!
//! # Where to look
//!
//! | to know | look in |
//! |---|---|
//! | tables, columns, what a column of expiry means, names of locks | `layout.rs` |
//! | the statements | `native_sql.rs`, `symfony_sql.rs` |
//! | who holds a lock, and how it is waited for | `lock.rs`, `symfony_lock.rs` |
//! | what a failure says of a statement's fate | `error.rs` |

mod commit;
mod config;
mod error;
mod layout;
mod list;
mod lock;
mod migrate;
mod native;
mod native_sql;
mod patience;
mod pool;
mod row;
mod shared;
mod store;
mod sweep;
mod symfony;
mod symfony_lock;
mod symfony_sql;

pub use config::SqlConfig;
pub use layout::{Expiry, Layout, LockMode, Symfony};
/// Its options of connections, for what a URL cannot say.
pub use sqlx::{mysql::MySqlConnectOptions, postgres::PgConnectOptions};
pub use store::SqlStore;
