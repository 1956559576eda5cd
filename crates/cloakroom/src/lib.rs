//! Server-side sessions for Rust that are, byte for byte, PHP's.
