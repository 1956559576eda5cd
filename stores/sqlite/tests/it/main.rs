//! The store against SQLite's files, against PHP, and against itself in other processes.
#![cfg(unix)]

mod conformance;
mod util;
