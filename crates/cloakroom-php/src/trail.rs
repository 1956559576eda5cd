//! The keys that lead to where a walk stopped: walked again, because only an error needs them.

use crate::scan::{Head, RawKey, Scan, Sink};

/// The keys that lead to where a walk stopped, for the error message.
#[derive(Default)]
pub(crate) struct Trail<'a> {
    keys: Vec<RawKey<'a>>,
    depth: usize,
}

impl<'a> Sink<'a> for Trail<'a> {
    fn key(&mut self, key: RawKey<'a>, depth: usize, _: usize, _: usize) -> Scan<()> {
        self.keys.truncate(depth - 1);
        self.keys.push(key);
        Ok(())
    }
    fn head(&mut self, head: Head<'a>, _: usize, _: usize) -> Scan<()> {
        self.depth += usize::from(matches!(head, Head::Array(_) | Head::Object(..)));
        Ok(())
    }
    fn close(&mut self, _: usize) -> Scan<()> {
        self.depth -= 1;
        self.keys.truncate(self.depth);
        Ok(())
    }
}

impl Trail<'_> {
    /// Innermost first, as [`crate::Error`] keeps it; the walk stopped because of what comes after the last key.
    pub(crate) fn steps(&self) -> Vec<crate::error::Step> {
        self.keys.iter().rev().map(|key| key.to_key().as_ref().into()).collect()
    }
}
