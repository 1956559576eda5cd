//! What a session does, on the memory store: the verbs, the cookie, and what two requests do to each other.

mod cancel;
mod faults;
mod races;
mod rotate;
mod start;
mod support;
mod verbs;
