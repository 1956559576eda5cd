//! What can go wrong in the testkit itself: one text that says what was tried and what came back.

use std::fmt;

/// A failure of the test apparatus (not of what is tested): a missing program, a server that does not start, a bad scenario file.
#[derive(Debug)]
pub struct Failure(String);

/// The result of anything the testkit does.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure that reads `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Puts what was being done in front of somebody else's error.
pub trait Doing<T> {
    /// `doing` names the action, as in "reading fixtures/scenarios/start.json".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure(format!("{}: {error}", doing())))
    }
}
