//! The tests of `cloakroom-php`, with PHP as the judge. One binary, because linking costs more than running.

mod corpus;
mod differential;
mod php;
mod random;
mod samples;
mod support;
