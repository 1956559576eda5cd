//! cloakroom sessions in Redis and Valkey, as php-redis keeps them: the same keys, values and lives, the same lock, on
//! one server, several, a cluster, or behind sentinels. A PHP application beside it works on the same sessions at the
//! same time.
//!
//! ```no_run
//! # async fn open() -> cloakroom_core::Result<()> {
//! use cloakroom_store_redis::{RedisConfig, RedisStore};
//!
//! let store = RedisStore::open(RedisConfig::from_url("redis://:password@localhost:6379/0")?).await?;
//! # drop(store);
//! # Ok(()) }
//! ```
//!
//! The README lists every option, and says what a Redis with replicas can still lose.

mod aside;
mod config;
mod dial;
mod error;
mod layout;
mod link;
mod lock;
mod reply;
mod save_path;
mod script;
mod store;
mod url;

pub use config::{Layout, Login, RedisAddress, RedisConfig, RedisServer, RedisServers};
pub use store::RedisStore;
