//! The index pass: where each key's value lies, after PHP's whole grammar has been checked.
//!
//! Its bound: 192 bytes for up to 12 keys, else per key of the session 12 bytes, doubled while it grows; and above 16
//! keys, once several have been asked for, a hash cell of at most 11. Per reference 8 bytes. Only in a session with
//! references are values counted: see [`super::targets`].

use std::sync::Arc;

use super::entries::Entries;
pub(super) use super::entries::Entry;
use super::graph::{Graph, payload_may_count, payload_may_refer};
use super::lookup::Lookup;
use super::targets::Counter;
use crate::error::{Error, ErrorKind, Fault, Result};
use crate::formats::{Format, array_head};
use crate::key::{Key, KeyRef, canonical_int};
use crate::scan::{Head, RawKey, Scan, Sink, Walker, behind_scalar, plain_string, unescape};
use crate::trail::Trail;

/// What is to be known where numbers are at stake.
#[derive(Clone, Default)]
pub(super) struct Links {
    /// Where each reference lies, and where what it means is written.
    pub(super) targets: Vec<(u32, u32)>,
    /// The end of the last reference, or of the last payload that may hold one.
    pub(super) last: u32,
    /// Where the last `R:` lies that means an object; 0 if there is none. An `r:` before it may stand for the variable that
    /// both share, which PHP then writes as `R:`.
    pub(super) shared: u32,
    /// A payload makes the numbers behind it uncertain: nothing before `last` may move.
    pub(super) frozen: bool,
}

#[derive(Clone, Default)]
pub(super) struct Index {
    /// All keys and values in the order of the bytes; keys that come again stand here too.
    pub(super) entries: Entries,
    // Keys written as `S:`, which cannot be borrowed from the bytes.
    escaped: Vec<(u32, Box<[u8]>)>,
    /// Where the entries begin and end.
    pub(super) body: (u32, u32),
    pub(super) links: Option<Box<Links>>,
    lookup: Lookup,
}

impl Links {
    fn new(bytes: &[u8], targets: Vec<(u32, u32)>, noted: &Links) -> Self {
        let tag = |at: u32| bytes.get(at as usize);
        let shares =
            |(from, to): &&(u32, u32)| tag(*from) == Some(&b'R') && matches!(tag(*to), Some(b'O' | b'C' | b'E'));
        let shared = targets.iter().rev().find(shares).map_or(0, |(from, _)| *from);
        Self { targets, shared, last: noted.last, frozen: noted.frozen }
    }
}

/// What a walk finds out about references.
#[derive(Default)]
pub(super) struct Notes {
    // A payload that may hold counted values has been seen.
    loose: bool,
    links: Links,
}

impl Notes {
    pub(super) fn see(&mut self, head: Head<'_>, end: usize) {
        match head {
            Head::Alias(_) | Head::Handle(_) => {
                self.links.frozen |= self.loose;
                self.links.last = small(end);
            }
            Head::Custom(_, payload) => {
                self.loose |= payload_may_count(payload);
                if payload_may_refer(payload) {
                    self.links.frozen = true;
                    self.links.last = small(end);
                }
            }
            _ => {}
        }
    }
}

/// A sink for the values of a session.
pub(super) trait Entered<'a>: Sink<'a> {
    /// A session's key and its value begin here and there.
    fn entry(&mut self, _format: Format, _key: usize, _value: usize) {}
}

impl Entered<'_> for Unlinked {}
impl Entered<'_> for Notes {}
impl Entered<'_> for Counter<'_> {
    fn entry(&mut self, format: Format, key: usize, value: usize) {
        match format {
            Format::PhpSerialize => self.elements(key),
            _ => self.alone(value),
        }
    }
}

/// Stops at the first reference: with one, all values have to be counted.
#[derive(Default)]
struct Unlinked {
    notes: Notes,
    references: bool,
}

impl<'a> Sink<'a> for Unlinked {
    const BLIND: bool = true;

    #[inline]
    fn head(&mut self, head: Head<'a>, at: usize, end: usize) -> Scan<()> {
        match head {
            Head::Alias(_) | Head::Handle(_) => {
                self.references = true;
                Err(Fault { kind: ErrorKind::Reference, at, what: "a reference" })
            }
            Head::Custom(..) => {
                self.notes.see(head, end);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Goes on to the end.
impl<'a> Sink<'a> for Notes {
    const BLIND: bool = true;

    fn head(&mut self, head: Head<'a>, _: usize, end: usize) -> Scan<()> {
        self.see(head, end);
        Ok(())
    }
}

/// Where a walk ended early: under which entry's key, if it was in a value.
struct Stop {
    fault: Fault,
    entry: Option<(usize, usize)>,
}

impl Stop {
    #[cold]
    fn error(self, format: Format, bytes: &[u8]) -> Error {
        match self.entry.map(|(key, value)| (format.entry(bytes, key), value)) {
            Some((Ok((key, _)), value)) => {
                with_key(format, bytes, value, key.to_session_key(format).as_ref(), self.fault)
            }
            _ => Error::data(self.fault, Vec::new()),
        }
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
    pub(super) fn build(format: Format, bytes: &[u8]) -> Result<Arc<Self>> {
        if bytes.len() >= u32::MAX as usize {
            let what = "more than 4 GiB";
            return Err(Error::data(Fault { kind: ErrorKind::Limit, at: 0, what }, Vec::new()));
        }
        // Made where it stays: it is larger than one likes to move.
        let mut shared = Arc::<Self>::default();
        let index = Arc::make_mut(&mut shared);
        let mut sink = Unlinked::default();
        match index.walk(format, bytes, &mut sink) {
            Ok(()) => {
                index.links = sink.notes.links.frozen.then(|| Box::new(sink.notes.links));
                Ok(shared)
            }
            Err(_) if sink.references => Self::linked(format, bytes).map(Arc::new),
            Err(stop) => Err(stop.error(format, bytes)),
        }
    }

    /// The index of a session that has references.
    fn linked(format: Format, bytes: &[u8]) -> Result<Self> {
        let mut index = Self::default();
        let mut counter = Counter::new(bytes);
        if format == Format::PhpSerialize {
            // The array is the first value.
            counter.alone(0);
            counter.plain(1);
        }
        if index.walk(format, bytes, &mut counter).is_ok()
            && let Some(targets) = counter.targets()
        {
            index.links = Some(Box::new(Links::new(bytes, targets, &counter.notes.links)));
            return Ok(index);
        }
        // What is wrong with the grammar is said first.
        let mut index = Self::default();
        let mut notes = Notes::default();
        index.walk(format, bytes, &mut notes).map_err(|stop| stop.error(format, bytes))?;
        let targets = index.graph(format, bytes)?.targets();
        index.links = Some(Box::new(Links::new(bytes, targets, &notes.links)));
        Ok(index)
    }

    /// Walks over the session and notes its entries.
    #[inline]
    fn walk<'a>(&mut self, format: Format, bytes: &'a [u8], sink: &mut impl Entered<'a>) -> Result<(), Stop> {
        let outside = |fault| Stop { fault, entry: None };
        let listed = format == Format::PhpSerialize && !bytes.is_empty();
        // Elsewhere there are as many as there are.
        let (mut left, mut at) =
            if listed { array_head(bytes).map_err(outside)?.unwrap_or((0, 0)) } else { (u32::MAX, 0) };
        let above = usize::from(listed);
        self.body.0 = small(at);
        let mut walker = Walker::default();
        while left > 0 && (listed || at < bytes.len()) {
            left -= 1;
            let value = if let Some(value) = format.behind_key(bytes, at) {
                value
            } else {
                let (key, value) = format.entry(bytes, at).map_err(outside)?;
                self.note_key(key);
                value
            };
            sink.entry(format, at, value);
            let end = if let Some(end) = behind_scalar(bytes, value) {
                sink.plain(1);
                end
            } else {
                walker.value(bytes, value, above, sink).map_err(|fault| Stop { fault, entry: Some((at, value)) })?
            };
            self.entries.push(Entry { key: small(at), value: small(value), end: small(end) });
            at = end;
        }
        self.body.1 = small(at);
        if listed && at > 0 && bytes.get(at) != Some(&b'}') {
            return Err(outside(crate::scan::fault(bytes, at, "expected `}` after the last element")));
        }
        Ok(())
    }

    /// Before the entry of this key is added.
    #[inline]
    fn note_key(&mut self, key: RawKey<'_>) {
        if let RawKey::Escaped(len, text) = key {
            self.escaped.push((small(self.entries.len()), unescape(len, text).into()));
        }
    }

    /// Adds an entry behind all others, of a key that is not there yet.
    pub(super) fn add(&mut self, format: Format, bytes: &[u8], key: RawKey<'_>, entry: Entry) {
        self.note_key(key);
        self.entries.push(entry);
        let mut lookup = std::mem::take(&mut self.lookup);
        lookup.added(small(self.entries.len() - 1), |n| self.key(format, bytes, n));
        self.lookup = lookup;
    }

    /// The key of an entry.
    pub(super) fn key<'a>(&'a self, format: Format, bytes: &'a [u8], number: u32) -> KeyRef<'a> {
        let entry = self.entries[number as usize];
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

    /// Whether an entry has this key: as its [`Index::key`] says, without making it where its length is enough.
    #[inline]
    fn has_key(&self, format: Format, bytes: &[u8], number: u32, entry: Entry, wanted: KeyRef<'_>) -> bool {
        let (key, value) = (entry.key as usize, entry.value as usize);
        let length = value - key;
        let possible = match (format, wanted) {
            (Format::PhpSerialize, KeyRef::Str(name)) => {
                // `s:1:"a";` or longer; whatever else begins otherwise.
                let quoted = length >= name.len() + 7 && bytes.get(value - 3 - name.len()) == Some(&b'"');
                if quoted && let Some((text, _)) = plain_string(bytes, key) {
                    return text == name && canonical_int(name).is_none();
                }
                quoted || bytes.get(key) == Some(&b'S')
            }
            // Beside the name there is the `|`, or the length.
            (_, KeyRef::Str(name)) => length == name.len() + 1,
            (_, KeyRef::Int(_)) => format == Format::PhpSerialize,
        };
        possible && self.key(format, bytes, number) == wanted
    }

    /// The first entry of this key.
    pub(super) fn find(&self, format: Format, bytes: &[u8], key: KeyRef<'_>) -> Option<u32> {
        match self.lookup.table(small(self.entries.len()), false, |n| self.key(format, bytes, n)) {
            Some(table) => table.first(key, |n| self.key(format, bytes, n)),
            None => (0..)
                .zip(&*self.entries)
                .find(|(n, entry)| self.has_key(format, bytes, *n, **entry, key))
                .map(|(n, _)| n),
        }
    }

    #[inline]
    fn last(&self, format: Format, bytes: &[u8], key: KeyRef<'_>) -> Option<u32> {
        if let Some(table) = self.lookup.table(small(self.entries.len()), false, |n| self.key(format, bytes, n)) {
            return table.last(key, |n| self.key(format, bytes, n));
        }
        let mut entries = self.entries.iter().enumerate().rev().map(|(n, entry)| (small(n), entry));
        entries.find(|(n, entry)| self.has_key(format, bytes, *n, **entry, key)).map(|(n, _)| n)
    }

    /// The entry that has the value of this entry's key, which is the first of its key.
    pub(super) fn winner(&self, format: Format, bytes: &[u8], first: u32) -> u32 {
        self.last(format, bytes, self.key(format, bytes, first)).unwrap_or(first)
    }

    /// The entry that has this key's value.
    #[inline]
    pub(super) fn value(&self, format: Format, bytes: &[u8], key: KeyRef<'_>) -> Option<Entry> {
        self.last(format, bytes, key).map(|last| self.entries[last as usize])
    }

    /// The first entries of all keys, in PHP's order.
    pub(super) fn live<'a>(&'a self, format: Format, bytes: &'a [u8]) -> impl Iterator<Item = u32> + 'a {
        let count = small(self.entries.len());
        let table = self.lookup.table(count, true, |n| self.key(format, bytes, n));
        (0..count).filter(move |n| {
            if let Some(table) = table {
                return table.is_first(*n);
            }
            let key = self.key(format, bytes, *n);
            !(0..*n).zip(&*self.entries).any(|(n, entry)| self.has_key(format, bytes, n, *entry, key))
        })
    }

    /// Whether a key comes again.
    pub(super) fn repeats(&self, format: Format, bytes: &[u8]) -> bool {
        self.live(format, bytes).count() != self.entries.len()
    }

    /// What a graph is made of.
    pub(super) fn parts<'a>(&'a self, format: Format, bytes: &'a [u8]) -> impl Iterator<Item = (Key, &'a [u8], usize)> {
        (0..).zip(&*self.entries).map(move |(n, entry)| {
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
            shift(&mut links.shared);
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

    fn to_session_key(self, format: Format) -> Key {
        match self {
            RawKey::Escaped(..) => self.to_key(),
            key => key.borrowed(format).into(),
        }
    }
}

pub(super) fn small(n: usize) -> u32 {
    // Only called for positions within bytes of which there are fewer.
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_the_key_that_it_says() {
        let keys = [
            r#"s:1:"a";"#,
            r#"s:01:"a";"#,
            r#"s:3:"a"b";"#,
            r#"s:1:"b";"#,
            r#"S:1:"b";"#,
            r#"S:2:"\61b";"#,
            "i:5;",
            "i:05;",
            r#"s:1:"5";"#,
            r#"s:2:"05";"#,
            r#"s:0:"";"#,
            r#"S:4:"abcd";"#,
            r#"s:10:"abcdefghij";"#,
            r#"s:010:"abcdefghij";"#,
            r#"s:5:"1:"ab";"#,
            r#"s:2:"ab";"#,
            r#"s:2:"-5";"#,
            r#"s:2:"-x";"#,
        ];
        let names = ["a", "b", "a\"b", "\\61b", "ab", "5", "05", "", "abcd", "abcdefghij", "1:\"ab", "-5", "-x"];
        let wanted = names.iter().map(|name| KeyRef::Str(name.as_bytes())).chain([5, -5, 0].map(KeyRef::Int));
        let (mut found, wanted) = (0, wanted.collect::<Vec<_>>());
        for key in keys {
            let bytes = format!("a:1:{{{key}N;}}").into_bytes();
            let index = Index::build(Format::PhpSerialize, &bytes).unwrap();
            for wanted in &wanted {
                let is = index.key(Format::PhpSerialize, &bytes, 0) == *wanted;
                assert_eq!(
                    index.has_key(Format::PhpSerialize, &bytes, 0, index.entries[0], *wanted),
                    is,
                    "{key} {wanted:?}"
                );
                found += usize::from(is);
            }
        }
        assert_eq!(found, keys.len());
    }
}
