//! PHP's sessions and serialized values, byte for byte, without PHP: no I/O, no clock, no async, no unsafe code.
//!
//! The centre is the [`Bag`]: a session as its bytes, indexed by key but not decoded. Reading a key decodes that key;
//! writing one replaces its bytes and leaves all others as they are, objects of classes that nobody here knows
//! included.
//!
//! ```
//! use cloakroom_php::{Bag, Format};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct User {
//!     id: i64,
//!     name: String,
//! }
//!
//! // What PHP wrote: an object, an array, a counter.
//! let stored = br#"user|O:8:"App\User":2:{s:2:"id";i:7;s:4:"name";s:3:"ada";}pizza|i:1;"#;
//! let mut bag = Bag::parse(Format::Php, &stored[..])?;
//! assert_eq!(bag.get::<User>("user")?, Some(User { id: 7, name: "ada".into() }));
//! bag.set("pizza", &(bag.get::<i64>("pizza")?.unwrap_or(0) + 1))?;
//! assert!(bag.as_bytes().ends_with(b"pizza|i:2;"));
//! # Ok::<(), cloakroom_php::Error>(())
//! ```
//!
//! Beside it: [`Value`] and [`Array`], PHP's values as a tree, with [`Value::unserialize`] and [`Value::serialize`];
//! [`from_slice`] and [`to_vec`], the same by serde, as [`serde_mapping`] lays out; [`Error`], which names the byte and
//! the key, and never shows a value.
//!
//! The promise: what PHP accepts is accepted, what it refuses is refused, what is written PHP would have written.
//! Nothing recurses over data that came from outside except serde's own types, up to a limit; no count in the data
//! is believed before the elements are there; no input panics.

mod array;
mod bag;
mod de;
mod error;
mod formats;
mod key;
mod loose;
mod number;
mod options;
#[cfg(test)]
mod random;
mod scan;
mod ser;
pub mod serde_mapping;
mod serialize;
mod trail;
mod unserialize;
mod value;
mod value_serde;

pub use array::Array;
pub use bag::Bag;
pub use de::{from_slice, from_slice_with};
pub use error::{Error, ErrorKind, Result};
pub use formats::Format;
pub use key::{AsKey, Key, KeyRef};
pub use number::Precision;
pub use options::Options;
pub use ser::{to_vec, to_vec_with};
pub use value::{Custom, Enum, Object, PhpStr, Reference, Value};
