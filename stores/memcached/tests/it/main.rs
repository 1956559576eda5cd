//! The store against real servers, beside real php-memcached, and through their failures.

#[cfg(test)]
mod beside;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod network;
#[cfg(test)]
mod php;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod renewal;
#[cfg(test)]
mod ring;
#[cfg(test)]
mod trips;
#[cfg(test)]
mod util;
