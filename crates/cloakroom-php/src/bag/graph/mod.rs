//! A session that has references, as PHP holds it in memory: variables, what they share, and what stands in them.
//!
//! PHP numbers the values of a whole session (`php_add_var_hash` in `ext/standard/var.c`, `var_push` in
//! `var_unserializer.re`), so an edit of one key may change numbers under all the others. Here the numbers are
//! followed once, the edit is made on variables, and all numbers are given anew. Only sessions with references pay.

mod build;
mod write;

use std::collections::HashMap;

use build::Builder;
use write::Writer;

use crate::error::{Error, ErrorKind, Result};
use crate::formats::Format;
use crate::key::Key;
use crate::number::Precision;
use crate::scan::{Head, RawKey, Walker};
use crate::serialize;
use crate::unserialize::with_path;

/// A variable: an element, a property or a session key.
pub(crate) type Place = u32;

#[derive(Clone, Copy)]
struct Cell {
    content: u32,
    // PHP's `Z_ISREF`: several places are this same variable.
    shared: bool,
}

struct Content<'a> {
    head: Head<'a>,
    at: u32,
    raw: &'a [u8],
    children: Vec<Child<'a>>,
}

struct Child<'a> {
    key: RawKey<'a>,
    raw: &'a [u8],
    place: Place,
}

/// A key of the session.
pub(crate) struct Root<'a> {
    pub(crate) key: Key,
    /// The key as it lies in the session, with what delimits it.
    pub(crate) raw: Option<&'a [u8]>,
    pub(crate) place: Place,
}

pub(crate) struct Graph<'a> {
    contents: Vec<Content<'a>>,
    cells: Vec<Cell>,
    places: Vec<u32>,
    pub(crate) roots: Vec<Root<'a>>,
    // The variable of the session itself, where it has a number.
    top: Option<Place>,
    // An enum's case is one object wherever it stands.
    cases: HashMap<(&'a [u8], &'a [u8]), u32>,
    // Where each reference lies, its place, and where what it means is written.
    references: Vec<(u32, Place, u32)>,
    // Nothing has changed since places were counted.
    settled: bool,
    /// A reference's number may or may not count what a `C:` payload holds.
    pub(crate) uncertain: bool,
}

/// Whether a `C:` payload may hold values that PHP counts: whether it holds anything that looks like one.
pub(crate) fn payload_may_count(payload: &[u8]) -> bool {
    payload.windows(2).any(|w| w == b"N;" || (w[1] == b':' && b"bidsSaOCErR".contains(&w[0])))
}

/// Whether a `C:` payload may itself refer to values outside of it: whether it holds what reads like a reference.
pub(crate) fn payload_may_refer(payload: &[u8]) -> bool {
    let starts = |at: &usize| {
        let word = *at > 0 && payload[*at - 1].is_ascii_alphanumeric();
        let digits = payload[at + 2..].iter().take_while(|b| b.is_ascii_digit()).count();
        !word && digits > 0 && payload.get(at + 2 + digits) == Some(&b';')
    };
    (0..payload.len().saturating_sub(2))
        .filter(|at| matches!(payload[*at..*at + 2], [b'r' | b'R', b':']))
        .any(|at| starts(&at))
}

fn small(n: usize) -> u32 {
    // Bytes are at most u32::MAX long, and every place and value takes at least one.
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn uncertain() -> Error {
    let what = "a `C:` payload stands before references, and only its class knows what their numbers count";
    Error::new(ErrorKind::Unsupported, what)
}

impl Content<'_> {
    fn is_object(&self) -> bool {
        matches!(self.head, Head::Object(..) | Head::Custom(..) | Head::Enum(..))
    }
}

impl<'a> Graph<'a> {
    fn new() -> Self {
        Self {
            contents: Vec::new(),
            cells: Vec::new(),
            places: Vec::new(),
            roots: Vec::new(),
            top: None,
            cases: HashMap::new(),
            references: Vec::new(),
            settled: false,
            uncertain: false,
        }
    }

    fn builder(&mut self, bytes: &'a [u8]) -> Builder<'_, 'a> {
        Builder {
            graph: self,
            bytes,
            slots: Vec::new(),
            certain: None,
            hidden: 0,
            open: Vec::new(),
            names: HashMap::new(),
            place: 0,
        }
    }

    fn place(&mut self) -> Place {
        self.places.push(u32::MAX);
        small(self.places.len() - 1)
    }

    /// A new variable of its own in this place.
    fn assign(&mut self, place: Place, content: u32) {
        self.cells.push(Cell { content, shared: false });
        self.places[place as usize] = small(self.cells.len() - 1);
    }

    fn unknown(&mut self, place: Place, at: u32) {
        self.uncertain = true;
        self.contents.push(Content { head: Head::Null, at, raw: b"N;", children: Vec::new() });
        self.assign(place, small(self.contents.len() - 1));
    }

    /// The graph of one value that is known to fit the grammar.
    pub(crate) fn of_value(bytes: &'a [u8]) -> Result<Self> {
        let mut graph = Self::new();
        let place = graph.add_value(bytes)?;
        graph.roots.push(Root { key: Key::Int(0), raw: None, place });
        Ok(graph)
    }

    /// Adds a value with numbers of its own.
    fn add_value(&mut self, bytes: &'a [u8]) -> Result<Place> {
        let place = self.place();
        self.settled = false;
        let mut builder = self.builder(bytes);
        builder.place = place;
        Walker::default().value(bytes, 0, 0, &mut builder).map_err(|fault| with_path(bytes, fault))?;
        Ok(place)
    }

    /// The graph of a session whose grammar has been checked; `entries` are its keys and values in the order of the
    /// bytes, each as key, raw key, and where the value begins.
    pub(crate) fn of_session(
        format: Format,
        bytes: &'a [u8],
        entries: impl Iterator<Item = (Key, &'a [u8], usize)>,
    ) -> Result<Self> {
        let mut graph = Self::new();
        graph.add_session(format, bytes, entries)?;
        Ok(graph)
    }

    /// Adds the keys of a session; a key that is there already is bound anew (`php_set_session_var`).
    pub(crate) fn add_session(
        &mut self,
        format: Format,
        bytes: &'a [u8],
        entries: impl Iterator<Item = (Key, &'a [u8], usize)>,
    ) -> Result<()> {
        let mut seen: HashMap<Key, usize> = self.roots.iter().map(|r| r.key.clone()).zip(0..).collect();
        let mut roots = std::mem::take(&mut self.roots);
        let root = matches!(format, Format::PhpSerialize).then(|| self.place());
        self.settled = false;
        let mut builder = self.builder(bytes);
        if let Some(root) = root {
            builder.slots.push(root);
            let head = Head::Array(0);
            builder.graph.contents.push(Content { head, at: 0, raw: b"", children: Vec::new() });
            builder.graph.assign(root, small(builder.graph.contents.len() - 1));
        }
        let mut walker = Walker::default();
        for (key, raw, at) in entries {
            let fresh = roots.len();
            let index = *seen.entry(key.clone()).or_insert(fresh);
            // In the array of php_serialize a key that comes again is the same variable, elsewhere another.
            let place = match roots.get(index) {
                Some(old) if root.is_some() => old.place,
                _ => builder.graph.place(),
            };
            builder.place = place;
            let walked = walker.value(bytes, at, usize::from(root.is_some()), &mut builder);
            walked.map_err(|fault| crate::bag::index::with_key(format, bytes, at, key.as_ref(), fault))?;
            if index == fresh {
                roots.push(Root { key, raw: Some(raw), place });
            } else {
                roots[index].place = place;
            }
        }
        if let Some(root) = root {
            let content = self.cells[self.places[root as usize] as usize].content;
            self.contents[content as usize].children = roots
                .iter()
                .filter_map(|root| {
                    let raw = root.raw?;
                    let (key, _) = crate::scan::key(raw, 0).ok()?;
                    Some(Child { key, raw, place: root.place })
                })
                .collect();
        }
        self.top = root;
        self.roots = roots;
        Ok(())
    }

    /// A reference in this place has been read, and what it means is there.
    fn refers(&mut self, place: Place, at: u32) {
        let content = self.cells[self.places[place as usize] as usize].content;
        self.references.push((at, place, self.contents[content as usize].at));
    }

    /// For every reference, in the order of the bytes, where what it means is written, also if its key came again.
    pub(crate) fn targets(&self) -> Vec<(u32, u32)> {
        let mut targets: Vec<_> = self.references.iter().map(|&(at, _, target)| (at, target)).collect();
        targets.sort_unstable();
        targets
    }

    /// Whether something refers to the session as a whole: PHP reads that, and can never write it again.
    pub(crate) fn refers_to_itself(&self) -> bool {
        self.top.is_some_and(|top| self.cells[self.places[top as usize] as usize].shared)
    }

    /// `$_SESSION[$key] = $value`: through the reference, if the key is one.
    pub(crate) fn set(&mut self, key: &Key, value: &'a [u8]) -> Result<()> {
        // Before the value comes, which nothing holds yet.
        self.settle();
        let value = self.add_value(value)?;
        let content = self.cells[self.places[value as usize] as usize].content;
        let Some(place) = self.roots.iter().find(|root| root.key == *key).map(|root| root.place) else {
            let place = self.place();
            self.assign(place, content);
            self.roots.push(Root { key: key.clone(), raw: None, place });
            return Ok(());
        };
        let cell = &mut self.cells[self.places[place as usize] as usize];
        if cell.shared {
            cell.content = content;
        } else {
            self.assign(place, content);
        }
        Ok(())
    }

    /// `unset($_SESSION[$key])`: what else refers to it keeps it.
    pub(crate) fn unset(&mut self, key: &Key) {
        self.roots.retain(|root| root.key != *key);
        self.settled = false;
    }

    /// A variable with a single place left is no reference any more.
    fn settle(&mut self) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let mut holders = vec![0_u32; self.cells.len()];
        let mut seen = vec![false; self.contents.len()];
        let mut pending: Vec<Place> = self.roots.iter().map(|root| root.place).chain(self.top).collect();
        while let Some(place) = pending.pop() {
            let cell = self.places[place as usize] as usize;
            holders[cell] += 1;
            let content = self.cells[cell].content as usize;
            if !std::mem::replace(&mut seen[content], true) {
                pending.extend(self.contents[content].children.iter().map(|child| child.place));
            }
        }
        for (cell, holders) in self.cells.iter_mut().zip(holders) {
            // An array may be held by nothing but itself, and has to be recognised when it comes again.
            let array = matches!(self.contents[cell.content as usize].head, Head::Array(_));
            cell.shared &= holders > 1 || array;
        }
    }

    fn refuse_uncertain(&self) -> Result<()> {
        if self.uncertain { Err(uncertain()) } else { Ok(()) }
    }

    /// `serialize()` of the one value this is the graph of.
    pub(crate) fn canonical_value(mut self, precision: Precision) -> Result<Vec<u8>> {
        self.refuse_uncertain()?;
        self.settle();
        let mut writer = Writer::new(&self, Some(precision));
        writer.value(self.roots[0].place, true);
        writer.finish()
    }

    /// `serialize($_SESSION[$key])`: the variable's value, numbered from 1.
    pub(crate) fn canonical_place(&mut self, place: Place, precision: Precision) -> Result<Vec<u8>> {
        self.refuse_uncertain()?;
        self.settle();
        let mut writer = Writer::new(self, Some(precision));
        writer.value(place, false);
        writer.finish()
    }

    /// What begins at this byte, serialized by itself.
    pub(crate) fn serialized_at(&mut self, at: usize, precision: Precision) -> Result<Vec<u8>> {
        let place = u32::try_from(at).ok().and_then(|at| self.place_at(at));
        let place = place.ok_or_else(|| Error::new(ErrorKind::Unsupported, "nothing begins here").at(at))?;
        self.canonical_place(place, precision)
    }

    /// The place that holds what begins at this byte of the session.
    fn place_at(&self, at: u32) -> Option<Place> {
        if let Ok(found) = self.references.binary_search_by_key(&at, |(at, ..)| *at) {
            return Some(self.references[found].1);
        }
        (0..).zip(&self.places).find_map(|(place, cell)| {
            let cell = self.cells.get(*cell as usize)?;
            (self.contents[cell.content as usize].at == at).then_some(place)
        })
    }

    /// The session in this format, all numbers given anew: as PHP encodes it with a precision, else with the bytes
    /// of everything that has not changed.
    pub(crate) fn session(mut self, format: Format, canonical: Option<Precision>) -> Result<Vec<u8>> {
        self.refuse_uncertain()?;
        if canonical.is_none() && self.refers_to_itself() {
            let what = "the session contains itself by reference, and PHP would never write it again";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        self.settle();
        let mut writer = Writer::new(&self, canonical);
        if matches!(format, Format::PhpSerialize) {
            serialize::write_array_head(&mut writer.out, self.roots.len());
            writer.number = 1;
            if let Some(top) = self.top {
                writer.cell_numbers[self.places[top as usize] as usize] = 1;
            }
        }
        for root in &self.roots {
            match root.raw {
                Some(raw) if canonical.is_none() => writer.out.extend_from_slice(raw),
                _ => format.write_key(&mut writer.out, root.key.as_ref()),
            }
            writer.value(root.place, true);
        }
        if matches!(format, Format::PhpSerialize) {
            writer.out.push(b'}');
        }
        writer.finish()
    }
}
