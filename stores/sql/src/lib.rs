//! cloakroom sessions in PostgreSQL, MySQL and MariaDB: in a table of cloakroom's own, or in that of Symfony's
//! `PdoSessionHandler`, beside PHP and with its locks.
//!
//! ```
//! use cloakroom_store_sql::{LockMode, SqlConfig, Symfony};
//!
//! let own = SqlConfig::from_url("postgres://app:secret@db.example.com/shop?sslmode=verify-full")?;
//!
//! let mut symfony = Symfony::default();
//! symfony.lock = LockMode::Advisory;
//! let shared_with_php = SqlConfig::from_url("mysql://app:secret@db.example.com/shop")?.layout(symfony);
//! # drop((own, shared_with_php)); Ok::<(), cloakroom_core::Error>(())
//! ```
//!
//! | to know | look in |
//! |---|---|
//! | tables, columns, what a column of expiry means, names of locks | `layout.rs` |
//! | the statements | `native_sql.rs`, `symfony_sql.rs` |
//! | who holds a lock, and how it is waited for | `lock.rs`, `symfony.rs` |
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
mod pool;
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
