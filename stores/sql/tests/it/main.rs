//! The store on real servers: PostgreSQL and MariaDB, each started once for this program.

mod conformance;
mod faults;
mod proxy;
mod rounds;
mod servers;
mod sweeping;
mod symfony;
mod tables;
mod util;
