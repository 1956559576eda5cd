//! The tests of `cloakroom-php`, with PHP as the judge. One binary, because linking costs more than running.

mod corpus;
mod samples;
mod support;
