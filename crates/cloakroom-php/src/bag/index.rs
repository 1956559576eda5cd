//! The index pass: where each key's value lies, after PHP's whole grammar has been checked.
//!
//! Its bound: per key of the session 20 bytes, doubled while it grows, and above 16 keys a hash cell of at most 11;
//! per reference 8 bytes. Only a session with references is followed value by value: see [`super::targets`].

use bytes::Bytes;

use super::graph::{Graph, payload_may_count, payload_may_refer};
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::formats::{Format, array_head};
use crate::key::{Key, KeyRef, KeyTable, canonical_int};
use crate::scan::{Head, RawKey, Scan, Sink, Walker, unescape};
use crate::trail::Trail;

/// A key and its value. Keys that come again stand in the list too.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) end: u32,
    /// The entry whose value counts; `AGAIN` where this is not the first of its key.
    pub(super) winner: u32,
    // Of the key: where it differs the keys do.
    print: u32,
}

/// This entry repeats a key: the first one has the place, the last one the value.
pub(super) const AGAIN: u32 = u32::MAX;

const FEW: usize = 16;

/// Room for so many keys before there is the first.
const USUAL: usize = 12;

/// What is to be known where numbers are at stake.
#[derive(Clone, Default)]
pub(super) struct Links {
    /// Where each reference lies, and where what it means is written.
    pub(super) targets: Vec<(u32, u32)>,
    /// The end of the last reference, or of the last payload that may hold one.
    pub(super) last: u32,
    /// A payload makes the numbers behind it uncertain: nothing before `last` may move.
    pub(super) frozen: bool,
}

#[derive(Clone, Default)]
pub(super) struct Index {
    pub(super) entries: Vec<Entry>,
    /// How many different keys there are.
    pub(super) live: usize,
    table: Option<KeyTable>,
    // Keys written as `S:`, which cannot be borrowed from the bytes.
    escaped: Vec<(u32, Box<[u8]>)>,
    /// Where the entries begin and end.
    pub(super) body: (u32, u32),
    pub(super) links: Option<Box<Links>>,
}

#[derive(Default)]
struct Notes {
    references: bool,
    // A payload that may hold counted values has been seen.
    loose: bool,
    links: Links,
}

impl<'a> Sink<'a> for Notes {
    const BLIND: bool = true;

    #[inline]
    fn head(&mut self, head: Head<'a>, _: usize, end: usize) -> Scan<()> {
        match head {
            Head::Alias(_) | Head::Handle(_) => {
                self.references = true;
                self.links.frozen |= self.loose;
                self.links.last = u32::try_from(end).unwrap_or(u32::MAX);
            }
            Head::Custom(_, payload) => {
                self.loose |= payload_may_count(payload);
                if payload_may_refer(payload) {
                    self.links.frozen = true;
                    self.links.last = u32::try_from(end).unwrap_or(u32::MAX);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A fault in the value that begins at `at`, under this key of the session.
#[cold]
pub(crate) fn with_key(format: Format, bytes: &[u8], at: usize, key: KeyRef<'_>, fault: Fault) -> Error {
    let mut trail = Trail::default();
    let above = usize::from(format == Format::PhpSerialize);
    let again = Walker::default().value(bytes, at, above, &mut trail);
    Error::data(fault, if again.is_err() { trail.steps() } else { Vec::new() }).under(key)
}

impl Index {
    pub(super) fn build(format: Format, bytes: &Bytes) -> Result<Self> {
        if bytes.len() >= u32::MAX as usize {
            let what = "more than 4 GiB";
            return Err(Error::data(Fault { kind: ErrorKind::Limit, at: 0, what }, Vec::new()));
        }
        let mut index = Self::default();
        let mut notes = Notes::default();
        let mut at = 0;
        // None: as many as there are.
        let mut left = None;
        if format == Format::PhpSerialize && !bytes.is_empty() {
            let head = array_head(bytes).map_err(|fault| crate::unserialize::with_path(bytes, fault))?;
            let (n, start) = head.unwrap_or((0, 0));
            (left, at) = (Some(n), start);
        }
        let above = usize::from(format == Format::PhpSerialize);
        index.entries.reserve(left.map_or(USUAL, |n| USUAL.min(n as usize)));
        index.body.0 = small(at);
        let mut walker = Walker::default();
        while left.map_or(at < bytes.len(), |n| n > 0) {
            left = left.map(|n| n - 1);
            let (key, value) = format.entry(bytes, at).map_err(|fault| Error::data(fault, Vec::new()))?;
            let end = walker
                .value(bytes, value, above, &mut notes)
                .map_err(|fault| with_key(format, bytes, value, key.to_session_key(format).as_ref(), fault))?;
            index.add(format, bytes, key, (at, value, end));
            at = end;
        }
        index.body.1 = small(at);
        if left.is_some() && at > 0 && bytes.get(at) != Some(&b'}') {
            return Err(Error::data(crate::scan::fault(bytes, at, "expected `}` after the last element"), Vec::new()));
        }
        if notes.references || notes.links.frozen {
            if notes.references {
                notes.links.targets = super::targets::of_session(format, bytes, &index)?;
            }
            index.links = Some(Box::new(notes.links));
        }
        Ok(index)
    }

    pub(super) fn add(
        &mut self,
        format: Format,
        bytes: &[u8],
        key: RawKey<'_>,
        (at, value, end): (usize, usize, usize),
    ) {
        let number = small(self.entries.len());
        let owned;
        let name = match key {
            RawKey::Escaped(len, text) if format == Format::PhpSerialize => {
                owned = unescape(len, text);
                self.escaped.push((number, owned.clone().into()));
                KeyRef::of(&owned)
            }
            key => key.borrowed(format),
        };
        let print = print(name);
        let mut entry = Entry { key: small(at), value: small(value), end: small(end), winner: number, print };
        if let Some(first) = self.find_by(print, format, bytes, name) {
            self.entries[first as usize].winner = number;
            entry.winner = AGAIN;
            self.entries.push(entry);
            return;
        }
        self.entries.push(entry);
        self.live += 1;
        let mut table = self.table.take();
        if let Some(table) = &mut table {
            table.insert(name, number, |n| self.key(format, bytes, n));
        } else if self.live > FEW {
            table = Some(self.new_table(format, bytes));
        }
        self.table = table;
    }

    fn new_table(&self, format: Format, bytes: &[u8]) -> KeyTable {
        let mut table = KeyTable::new();
        for (number, entry) in (0..).zip(&self.entries) {
            if entry.winner != AGAIN {
                table.insert(self.key(format, bytes, number), number, |n| self.key(format, bytes, n));
            }
        }
        table
    }

    /// The key of an entry.
    pub(super) fn key<'a>(&'a self, format: Format, bytes: &'a [u8], number: u32) -> KeyRef<'a> {
        let entry = &self.entries[number as usize];
        let (start, value) = (entry.key as usize, entry.value as usize);
        match format {
            Format::Php => KeyRef::Str(&bytes[start..value - 1]),
            Format::PhpBinary => KeyRef::Str(&bytes[start + 1..value]),
            Format::PhpSerialize => match crate::scan::key(bytes, start) {
                Ok((RawKey::Escaped(..), _)) => {
                    let found = self.escaped.binary_search_by_key(&number, |(n, _)| *n);
                    KeyRef::of(found.map_or(&[], |at| &self.escaped[at].1))
                }
                Ok((key, _)) => key.borrowed(format),
                Err(_) => KeyRef::Str(&[]),
            },
        }
    }

    /// The first entry of this key.
    pub(super) fn find(&self, format: Format, bytes: &[u8], key: KeyRef<'_>) -> Option<u32> {
        self.find_by(print(key), format, bytes, key)
    }

    fn find_by(&self, print: u32, format: Format, bytes: &[u8], key: KeyRef<'_>) -> Option<u32> {
        if let Some(table) = &self.table {
            return table.find(key, |n| self.key(format, bytes, n));
        }
        (0..)
            .zip(&self.entries)
            .find(|(n, entry)| entry.print == print && entry.winner != AGAIN && self.key(format, bytes, *n) == key)
            .map(|(n, _)| n)
    }

    /// The entry that has this key's value.
    pub(super) fn value(&self, format: Format, bytes: &[u8], key: KeyRef<'_>) -> Option<Entry> {
        let first = self.find(format, bytes, key)?;
        let winner = self.entries[first as usize].winner;
        Some(self.entries[winner as usize])
    }

    /// The first entries of all keys, in PHP's order.
    pub(super) fn live(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.entries).filter(|(_, entry)| entry.winner != AGAIN).map(|(n, _)| n)
    }

    /// What a graph is made of.
    pub(super) fn parts<'a>(&'a self, format: Format, bytes: &'a [u8]) -> impl Iterator<Item = (Key, &'a [u8], usize)> {
        (0..).zip(&self.entries).map(move |(n, entry)| {
            let (start, value) = (entry.key as usize, entry.value as usize);
            (self.key(format, bytes, n).into(), &bytes[start..value], value)
        })
    }

    pub(super) fn graph<'a>(&'a self, format: Format, bytes: &'a [u8]) -> Result<Graph<'a>> {
        Graph::of_session(format, bytes, self.parts(format, bytes))
    }

    /// Moves everything behind a splice, and puts a new value under the entry that was spliced.
    pub(super) fn spliced(&mut self, number: u32, end: usize) {
        let old = self.entries[number as usize].end;
        let shift = |at: &mut u32| {
            if *at >= old {
                *at = small((*at - old) as usize + end);
            }
        };
        for entry in &mut self.entries[number as usize + 1..] {
            shift(&mut entry.key);
            shift(&mut entry.value);
            shift(&mut entry.end);
        }
        self.entries[number as usize].end = small(end);
        shift(&mut self.body.1);
        if let Some(links) = &mut self.links {
            for (from, to) in &mut links.targets {
                shift(from);
                shift(to);
            }
            shift(&mut links.last);
        }
    }
}

impl<'a> RawKey<'a> {
    /// The key of a session in this format: only php_serialize makes integers of strings.
    fn borrowed(self, format: Format) -> KeyRef<'a> {
        match self {
            RawKey::Int(text) => KeyRef::Int(crate::number::parse_int(text)),
            RawKey::Str(text) | RawKey::Escaped(_, text) => {
                match canonical_int(text).filter(|_| format == Format::PhpSerialize) {
                    Some(n) => KeyRef::Int(n),
                    None => KeyRef::Str(text),
                }
            }
        }
    }

    pub(super) fn to_session_key(self, format: Format) -> Key {
        match self {
            RawKey::Escaped(..) => self.to_key(),
            key => key.borrowed(format).into(),
        }
    }
}

fn print(key: KeyRef<'_>) -> u32 {
    (key.fingerprint() >> 32) as u32
}

pub(super) fn small(n: usize) -> u32 {
    // Only called for positions within bytes of which there are fewer.
    u32::try_from(n).unwrap_or(u32::MAX)
}
