//! The real servers that stores are tested with: one a test program, with its own directory and port, as an ordinary user.

mod database;
pub mod mariadb;
pub mod memcached;
pub mod postgres;
pub mod redis;
