#![doc = include_str!("../README.md")]

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
