//! The redis store keeps every promise of the suite.
