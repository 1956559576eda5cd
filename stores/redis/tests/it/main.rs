//! The store against real servers, beside real php-redis, and through their failures.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod network;
#[cfg(test)]
mod php;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod util;
