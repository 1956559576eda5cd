//! The entries of a session, in place as long as they are few: most sessions then need no memory for them.

use std::ops::{Deref, DerefMut};

/// A key and its value, by where they lie.
#[derive(Clone, Copy, Default)]
pub(super) struct Entry {
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) end: u32,
}

const IN_PLACE: usize = 12;

#[derive(Clone)]
pub(super) enum Entries {
    Few([Entry; IN_PLACE], usize),
    Many(Vec<Entry>),
}

impl Default for Entries {
    fn default() -> Self {
        Self::Few([Entry::default(); IN_PLACE], 0)
    }
}

impl Entries {
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        if let Self::Few(entries, count) = self {
            if let Some(slot) = entries.get_mut(*count) {
                *slot = entry;
                *count += 1;
                return;
            }
            // The entry is not given along: it would be written to memory each time, only to be read back at once.
            self.move_out();
        }
        if let Self::Many(entries) = self {
            entries.push(entry);
        }
    }

    #[cold]
    #[inline(never)]
    fn move_out(&mut self) {
        let mut many = Vec::with_capacity(2 * IN_PLACE);
        many.extend_from_slice(self);
        *self = Self::Many(many);
    }
}

impl Deref for Entries {
    type Target = [Entry];

    #[inline]
    fn deref(&self) -> &[Entry] {
        match self {
            Self::Few(entries, count) => entries.get(..*count).unwrap_or_default(),
            Self::Many(entries) => entries,
        }
    }
}

impl DerefMut for Entries {
    fn deref_mut(&mut self) -> &mut [Entry] {
        match self {
            Self::Few(entries, count) => entries.get_mut(..*count).unwrap_or_default(),
            Self::Many(entries) => entries,
        }
    }
}
