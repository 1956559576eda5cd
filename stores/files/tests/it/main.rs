//! The store against the kernel, against PHP, and against itself in other processes.
#![cfg(target_os = "linux")]

#[cfg(test)]
mod basics;
#[cfg(test)]
mod child;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod php;
#[cfg(test)]
mod planted;
#[cfg(test)]
mod sweep;
#[cfg(test)]
mod syscalls;
#[cfg(test)]
mod util;
#[cfg(test)]
mod waiting;
