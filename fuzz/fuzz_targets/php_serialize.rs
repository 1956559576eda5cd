//! Sessions in the format `php_serialize`: `cargo xtask fuzz php_serialize`.
#![no_main]

use cloakroom_php::Format;
use libfuzzer_sys::fuzz_target;

#[path = "../check.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::check(Format::PhpSerialize, bytes));
