//! Finding a session's keys: by looking through them, until that has been done often enough among many to be worth a
//! table.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::key::{KeyRef, KeyTable};

/// So many keys are always looked through.
const FEW: u32 = 16;

/// So often more of them are.
const PATIENCE: u32 = 4;

#[derive(Default)]
pub(super) struct Lookup {
    table: OnceLock<Box<Table>>,
    looked: AtomicU32,
}

/// The first entry of each key; and for keys that come again, in the order of their first entries, the last one.
#[derive(Clone)]
pub(super) struct Table {
    firsts: KeyTable,
    lasts: Vec<(u32, u32)>,
    again: Vec<u32>,
}

impl Clone for Lookup {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), looked: AtomicU32::new(self.looked.load(Ordering::Relaxed)) }
    }
}

impl Table {
    fn new<'k>(count: u32, key: impl Fn(u32) -> KeyRef<'k>) -> Self {
        let mut table = Self { firsts: KeyTable::new(), lasts: Vec::new(), again: Vec::new() };
        for n in 0..count {
            match table.firsts.find(key(n), &key) {
                None => table.firsts.insert(key(n), n, &key),
                Some(first) => {
                    table.lasts.push((first, n));
                    table.again.push(n);
                }
            }
        }
        // Of several with the same first, the last.
        table.lasts.sort_unstable();
        table.lasts.reverse();
        table.lasts.dedup_by_key(|(first, _)| *first);
        table.lasts.reverse();
        table
    }

    /// The first entry of this key.
    pub(super) fn first<'k>(&self, wanted: KeyRef<'_>, key: impl Fn(u32) -> KeyRef<'k>) -> Option<u32> {
        self.firsts.find(wanted, key)
    }

    /// The last entry of this key.
    pub(super) fn last<'k>(&self, wanted: KeyRef<'_>, key: impl Fn(u32) -> KeyRef<'k>) -> Option<u32> {
        let first = self.firsts.find(wanted, key)?;
        Some(self.lasts.binary_search_by_key(&first, |(first, _)| *first).map_or(first, |at| self.lasts[at].1))
    }

    /// Whether this entry is the first of its key.
    pub(super) fn is_first(&self, n: u32) -> bool {
        self.again.binary_search(&n).is_err()
    }
}

impl Lookup {
    /// The table, if it is worth having; `often`, if it will be asked for every key. Else one looks through them.
    #[inline]
    pub(super) fn table<'k>(&self, count: u32, often: bool, key: impl Fn(u32) -> KeyRef<'k>) -> Option<&Table> {
        if count <= FEW {
            return None;
        }
        let looked = self.looked.load(Ordering::Relaxed);
        if looked < PATIENCE && !often {
            self.looked.store(looked + 1, Ordering::Relaxed);
            return None;
        }
        Some(self.table.get_or_init(|| Box::new(Table::new(count, key))))
    }

    /// Another entry has come, of a new key.
    pub(super) fn added<'k>(&mut self, n: u32, key: impl Fn(u32) -> KeyRef<'k>) {
        if let Some(table) = self.table.get_mut() {
            table.firsts.insert(key(n), n, key);
        }
    }
}
