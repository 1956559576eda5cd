//! The store on real servers: PostgreSQL and MariaDB, each started once for this program.

mod conformance;
mod servers;
mod symfony;
mod util;
