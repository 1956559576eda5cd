//! What a session does, on the memory store: the verbs, the cookie, and what two requests do to each other.
#![expect(clippy::unwrap_used, reason = "in tests an error is a failure")]

mod cancel;
mod faults;
mod lock_first;
mod one_lock;
mod races;
mod rotate;
mod shutdown;
mod start;
mod support;
mod verbs;
