//! A pizza shop that shows the life of a session.
fn main() {}
