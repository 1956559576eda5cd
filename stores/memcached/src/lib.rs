#![doc = include_str!("../README.md")]
//!
//! The files of this crate: `layout.rs` and `ring.rs` are PHP's contract, `config.rs` the settings, `store.rs` the store;
//! `wait.rs` takes locks, `lock.rs` keeps them and gives them back, `commit.rs` carries out what is to be done under them;
//! `sweep.rs` has what was set aside; `pool.rs` and `wire.rs` talk to the servers.

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
