//! The examples as programs: the race table, and the probe with PHP as its judge.
#![expect(clippy::unwrap_used, reason = "in tests an error is a failure")]

mod beside_php;
mod program;
mod races;
mod scenarios;
