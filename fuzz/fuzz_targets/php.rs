//! Sessions in the format `php`: `cargo xtask fuzz php`.
#![no_main]

use cloakroom_php::Format;
use libfuzzer_sys::fuzz_target;

#[path = "../check.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::check(Format::Php, bytes));
