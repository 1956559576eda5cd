//! PHP's session and serialize formats: a lazy bag over raw bytes, serde, and values; no I/O.
