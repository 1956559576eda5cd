//! The testkit tested: PHP agrees with itself and with its record, planted faults are noticed, nothing is left running.

#[cfg(test)]
mod command;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod wellformed;
#[cfg(test)]
mod worker;
