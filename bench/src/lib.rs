//! What the benchmarks of cloakroom share: sessions to work on, clocks, tables, and PHP as a child process.
//!
//! Nothing here is published; `README.md` beside this crate says how to run it and what was measured.

pub mod apps;
pub mod corpus;
pub mod node;
pub mod php;
pub mod shapes;
pub mod timing;

/// What all of these programs fail with.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of all of these programs.
pub type Result<T, E = Error> = std::result::Result<T, E>;
