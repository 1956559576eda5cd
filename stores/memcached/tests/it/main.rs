//! The memcached store keeps every promise of the suite.
