//! The sql store keeps every promise of the suite.
