//! Real servers for the stores: one for all tests of a program, ended with it.

pub mod redis;
pub mod memcached;
//! The real servers that stores are tested with: one a test program, with its own directory and port, as an ordinary user.

mod database;
pub mod mariadb;
pub mod postgres;
