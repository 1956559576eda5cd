//! The demo as people meet it: the real program on a port of its own, and browsers that keep their cookies.
#![expect(clippy::expect_used, reason = "a test panics and says why")]

mod browser;
mod php;
mod program;
mod shop;
mod stop;
