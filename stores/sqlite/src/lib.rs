#![doc = include_str!("../README.md")]
//!
//! The files of this crate: `layout.rs` is the contract with PHP and with people who look into the table, `config.rs` the
//! settings, `store.rs` the store; `shared.rs` brings its calls to `reader.rs` and, as a `job.rs`, to `writer.rs`, the
//! thread that writes. `way.rs` stands for one of the layouts, `native.rs` and `symfony.rs`; `commit.rs` decides what a
//! commit does to a row, `lock.rs` holds locks, `sweep.rs` and `list.rs` go through all rows, `file.rs` opens the file, and `checkpoint.rs`
//! keeps its log short.

mod checkpoint;
mod commit;
mod config;
mod error;
mod file;
mod job;
mod layout;
mod list;
mod lock;
mod native;
mod reader;
mod shared;
mod store;
mod sweep;
mod symfony;
mod way;
mod writer;

pub use config::{SqliteConfig, Synchronous};
pub use layout::{Expiry, Layout, LockMode, Symfony};
pub use store::SqliteStore;
