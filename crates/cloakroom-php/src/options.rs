//! The few settings: what PHP has in php.ini, and what serde needs.

use crate::number::Precision;

/// How values are written and how strictly serde reads them. The default is PHP's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Options {
    /// PHP's `serialize_precision`.
    pub serialize_precision: Precision,
    /// How deep serde may go, in both directions. Values of its own this crate takes to PHP's 4096 levels.
    pub serde_depth: u16,
    /// Whether numbers and booleans are also read from the strings that forms leave (`"5"`, `"on"`), integers from
    /// whole floats and booleans, and texts from numbers.
    pub loose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { serialize_precision: Precision::Shortest, serde_depth: 128, loose: false }
    }
}

impl Options {
    /// PHP's default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets PHP's `serialize_precision`.
    #[must_use]
    pub fn serialize_precision(mut self, precision: Precision) -> Self {
        self.serialize_precision = precision;
        self
    }

    /// Sets how deep serde may go.
    #[must_use]
    pub fn serde_depth(mut self, depth: u16) -> Self {
        self.serde_depth = depth;
        self
    }

    /// Sets whether strings of forms are read as numbers and booleans.
    #[must_use]
    pub fn loose(mut self, loose: bool) -> Self {
        self.loose = loose;
        self
    }
}
