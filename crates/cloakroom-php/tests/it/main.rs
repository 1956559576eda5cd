//! The tests of `cloakroom-php`, with PHP as the judge. One binary, because linking costs more than running.

#![expect(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test panics and says why")]
#![expect(clippy::items_after_statements, reason = "a type stands where its one test needs it")]

mod corpus;
mod differential;
mod fuzz_corpus;
mod limits;
mod php;
mod random;
mod references;
mod samples;
mod serde_table;
mod support;
