//! Conformance suite for cloakroom stores, real servers as child processes, PHP as judge.

pub mod conformance;
pub mod faulty;
