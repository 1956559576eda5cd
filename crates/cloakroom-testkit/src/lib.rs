//! Conformance suite for cloakroom stores, real servers as child processes, PHP as judge.
//!
//! PHP decides what a session does. The same small HTTP contract is served twice, by `php/probe.php` and by cloakroom's own
//! probe; a [`scenario::Scenario`] is played against both and everything a browser or the disk can see is compared:
//!
//! ```text
//! fixtures/scenarios/*.json  ->  scenario  ->  play  -+->  PHP (php, process)       ->  Transcript  -+->  compare
//!                                                     +->  any probe at an address  ->  Transcript  -+
//! fixtures/scenarios/golden/*.json  ->  golden: what PHP answered when it was last recorded
//! ```
//!
//! Generated ids, times and the scenario's own directory differ from run to run; [`normal`] gives them names first.

pub mod compare;
pub mod conformance;
pub mod error;
pub mod faulty;
pub mod golden;
pub mod http;
pub mod keys;
pub mod latin1;
pub mod network;
pub mod normal;
pub mod php;
pub mod play;
pub mod process;
pub mod proxy;
pub mod scenario;
pub mod servers;
pub mod store;
pub mod times;
pub mod worker;

pub use faulty::Faulty;
