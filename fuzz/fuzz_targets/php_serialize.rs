//! Sessions in the format `php_serialize`: `cargo +nightly fuzz run php_serialize`.
#![no_main]

use cloakroom_php::{Bag, ErrorKind, Format, Value};
use libfuzzer_sys::fuzz_target;

include!("../check.rs");

fuzz_target!(|bytes: &[u8]| check(Format::PhpSerialize, bytes));
