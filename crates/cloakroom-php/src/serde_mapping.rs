//! What serde's types become in PHP, and what they are read from. Documentation only; every row has a test.
//!
//! | Rust | is written as | is read from |
//! |---|---|---|
//! | `bool` | `b:1;` | bool |
//! | integers, also 128-bit | `i:5;`; beyond 64 signed bits an error | int within the type's range |
//! | `f32`, `f64` | `d:0.1;` by `serialize_precision` | float; int up to 2^53 |
//! | `char`, `str`, `String` | `s:3:"tea";` | string that is UTF-8, else an error |
//! | `serde_bytes`, [`PhpStr`](crate::PhpStr) | `s:` | any string |
//! | `Option` | `N;` or the value | null is `None`; for `get` so is an absent key, `contains` tells them apart |
//! | `()`, unit struct | `N;` | null |
//! | newtype struct | what is in it | the same |
//! | `Vec`, set, tuple, tuple struct | array with keys 0, 1, 2 … | array with just these keys in order, else an error that names the gap |
//! | struct | array with the field names, in the order of the fields | array, or object of any class by property name, whatever its visibility |
//! | map | array **sorted by key**: integers first, then strings by their bytes | array or object |
//! | unit variant | `s:6:"Hearts";` | string, or an enum's case of that name |
//! | variant with data | array with the variant's name as its one key | the same |
//! | [`Value`](crate::Value), [`Array`](crate::Array) | as it is, order kept | anything; in other formats an object is `{class, properties}` |
//! | `IgnoredAny` | | anything, skipped |
//!
//! An empty array is an empty list, map and struct alike. Map keys are strings, integers, booleans (0 and 1), chars
//! and unit variants; a string that PHP's arrays take for an integer becomes one, and is read back as text where text
//! is asked for. Maps are sorted because serde does not tell a `HashMap` from an ordered map, and a session that is
//! written in another order each time would count as changed each time; where the order matters, use
//! [`Array`](crate::Array).
//!
//! Types are strict: `"5"` is no integer, 1 no boolean. [`Options::loose`](crate::Options::loose) reads
//!
//! | asked for | also from |
//! |---|---|
//! | integer | string of digits, bool, whole float |
//! | float | numeric string, bool |
//! | bool | 0 and 1; `1 true on yes`, `0 false off no` and the empty string, in any case |
//! | text | int and float |
//!
//! References are followed, also into other keys of the session; what contains itself ends at
//! [`Options::serde_depth`](crate::Options::serde_depth).
