//! Where the time of day comes from: one small trait, so that tests can set it.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day, for cookies and for what cloakroom itself remembers in a session.
///
/// Stores judge by their own clock whether a record has expired, and waiting limits use tokio's time.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    fn unix_time(&self) -> i64;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn unix_time(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
        }
    }
}
