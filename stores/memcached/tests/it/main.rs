//! The store against real servers, beside real php-memcached, and through their failures.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod util;
