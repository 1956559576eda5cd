//! The store against SQLite's files, against PHP, and against itself in other processes.
#![cfg(unix)]

#[cfg(test)]
mod basics;
#[cfg(test)]
mod child;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod sweeping;
#[cfg(test)]
mod symfony;
#[cfg(test)]
mod util;
