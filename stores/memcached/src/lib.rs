//! cloakroom sessions in Memcached, as php-memcached keeps them: its keys, its locks, its lives, and its choice of a
//! server where there are several. A PHP application beside it uses the same sessions at the same time, and neither loses
//! an update of the other.
//!
//! ```no_run
//! # async fn open() -> cloakroom_core::Result<()> {
//! use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
//!
//! let store = MemcachedStore::open(MemcachedConfig::from_url("memcached://10.0.0.1,10.0.0.2")?).await?;
//! # Ok(()) }
//! ```

mod commit;
mod config;
mod layout;
mod lock;
mod pool;
mod ring;
mod store;
mod sweep;
mod wait;
mod wire;

pub use config::{Address, MemcachedConfig, MemcachedServer};
pub use ring::Hash;
pub use store::MemcachedStore;
pub use sweep::SetAside;
