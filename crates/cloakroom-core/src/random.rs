//! Where randomness comes from: one small trait, so that tests can make it fail.

use std::fmt::Debug;

use crate::{Error, Result};

/// The source of session ids.
pub trait Random: Debug + Send + Sync + 'static {
    /// Fills `bytes` with random bytes that nobody can predict, or fails; there is no second-best source.
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

/// The operating system's random source, which PHP uses as well.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes)
            .map_err(|error| Error::unavailable("the operating system gave no random bytes").with_source(error))
    }
}
