//! The examples as programs: the race table, and the probe with PHP as its judge.

mod program;
mod races;
mod scenarios;
