//! The tests of `cloakroom-php`, with PHP as the judge. One binary, because linking costs more than running.

#![expect(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a test panics and says why")]

mod corpus;
mod differential;
mod php;
mod random;
mod samples;
mod support;
