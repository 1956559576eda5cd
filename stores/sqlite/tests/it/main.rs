//! The store against SQLite's files, against PHP, and against itself in other processes.
#![cfg(unix)]

#[cfg(test)]
mod child;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod symfony;
#[cfg(test)]
mod util;
