//! The store on real servers: PostgreSQL and MariaDB, each started once for this program.
#![cfg(target_os = "linux")]

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod network;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod rounds;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod sweeping;
#[cfg(test)]
mod symfony;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod util;
#[cfg(test)]
mod waits;
