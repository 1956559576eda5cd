//! The sqlite store keeps every promise of the suite.
