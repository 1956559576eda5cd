#![doc = include_str!("../README.md")]
//!
//! The files of this crate: `layout.rs` is PHP's contract, `config.rs` the settings, `store.rs` the store; `access.rs`
//! takes locks and carries out what is to be done under them, `lock.rs` and `pool.rs` wait for them; `file.rs`, `write.rs`,
//! `redo.rs`, `side.rs` and `aside.rs` work on one file, `sweep.rs` and `list.rs` on all of them; `gauge.rs` decides on
//! which thread.

mod config;
pub mod layout;

#[cfg(unix)]
mod access;
#[cfg(unix)]
mod aside;
#[cfg(unix)]
mod file;
#[cfg(unix)]
mod gauge;
#[cfg(unix)]
mod list;
#[cfg(unix)]
mod lock;
#[cfg(unix)]
mod pool;
#[cfg(unix)]
mod redo;
#[cfg(unix)]
mod side;
#[cfg(unix)]
mod store;
#[cfg(unix)]
mod sweep;
#[cfg(unix)]
mod write;

#[cfg(not(unix))]
#[path = "elsewhere.rs"]
mod store;

pub use config::{Durability, FilesConfig, Io};
pub use layout::SavePathError;
pub use store::FilesStore;
