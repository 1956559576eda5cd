//! Sessions in the format `php`: `cargo +nightly fuzz run php`.
#![no_main]

use cloakroom_php::{Bag, ErrorKind, Format, Value};
use libfuzzer_sys::fuzz_target;

include!("../check.rs");

fuzz_target!(|bytes: &[u8]| check(Format::Php, bytes));
