//! The store against the kernel, against PHP, and against itself in other processes.
#![cfg(target_os = "linux")]

mod basics;
mod util;
