//! cloakroom sessions in memory: for tests, for development, and for services of one process whose visitors may
//! be logged out by a restart.
//!
//! It is also the smallest complete store: whoever wants to write one may read this one first. It locks, counts
//! versions and forgets expired records just as the stores that share their records with PHP do. It is bounded: at
//! its limit it refuses new sessions and never evicts a live one.
//!
//! ```
//! use cloakroom_store_memory::{MemoryConfig, MemoryStore};
//!
//! let store = MemoryStore::new(MemoryConfig::default().max_bytes(64 << 20));
//! let same_records = store.clone();
//! # drop(same_records);
//! ```

mod config;
mod lock;
mod store;
mod sweep;
mod table;

pub use config::MemoryConfig;
pub use store::MemoryStore;
pub use sweep::SetAside;
