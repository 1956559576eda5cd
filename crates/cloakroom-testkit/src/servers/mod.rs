//! Real servers for the stores: one for all tests of a program, ended with it.

pub mod redis;
pub mod memcached;
