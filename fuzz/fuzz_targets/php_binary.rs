//! Sessions in the format `php_binary`: `cargo +nightly fuzz run php_binary`.
#![no_main]

use cloakroom_php::{Bag, ErrorKind, Format, Value};
use libfuzzer_sys::fuzz_target;

include!("../check.rs");

fuzz_target!(|bytes: &[u8]| check(Format::PhpBinary, bytes));
