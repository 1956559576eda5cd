//! A session as the bytes that lie in the store, with an index over its keys: what `session_decode()` and
//! `session_encode()` do to `$_SESSION` (`ext/session/session.c`), without decoding what nobody asks for.

mod edit;
mod entries;
pub(crate) mod graph;
pub(crate) mod index;
mod lookup;
pub(crate) mod targets;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::error::Result;
use crate::formats::Format;
use crate::key::{AsKey, KeyRef};
use crate::number::Precision;
use crate::options::Options;
use crate::unserialize::{build, build_numbered};
use crate::value::Value;
use index::Index;

/// A session: its bytes, and where each key's value lies in them.
///
/// Reading decodes one key; `set` and `remove` replace one key's bytes and leave all others as they are, whatever
/// they are. Cloning is cheap.
///
/// ```
/// use cloakroom_php::{Bag, Format};
/// let mut bag = Bag::parse(Format::Php, &br#"user|s:3:"ada";cart|a:2:{i:0;i:7;i:1;i:9;}seen|O:3:"Foo":0:{}"#[..])?;
/// assert_eq!(bag.get::<Vec<u32>>("cart")?, Some(vec![7, 9]));
/// bag.set("user", "grace")?;
/// assert_eq!(bag.as_bytes(), br#"user|s:5:"grace";cart|a:2:{i:0;i:7;i:1;i:9;}seen|O:3:"Foo":0:{}"#);
/// # Ok::<(), cloakroom_php::Error>(())
/// ```
///
/// # What is decided here
///
/// * Under `php_serialize`, bytes behind the array are ignored as PHP ignores them, and dropped by the first edit.
/// * A `php_serialize` session that is no array is refused with [`ErrorKind::RootNotArray`](crate::ErrorKind):
///   PHP accepts it and then loses every change to it.
/// * Whether classes and enums exist is not judged: that only PHP's application knows.
/// * A key that comes twice has the place of the first and the value of the last; setting or removing it removes
///   the repetition.
/// * With references in the session, `set` and `remove` do what PHP does to `$_SESSION` (writing through `R:`, moving
///   a value to the first that still refers to it). Where numbers move, all references are numbered anew and repeated
///   keys dropped; where they do not, all other bytes stay. Where a
///   `C:` payload makes the numbers uncertain, they are refused unless nothing moves.
#[derive(Clone)]
pub struct Bag {
    format: Format,
    options: Options,
    data: Bytes,
    index: Arc<Index>,
}

impl Bag {
    /// An empty session.
    pub fn new(format: Format) -> Self {
        let data = Bytes::from_static(if format == Format::PhpSerialize { b"a:0:{}" } else { b"" });
        let mut index = Index::default();
        if format == Format::PhpSerialize {
            index.body = (5, 5);
        }
        Self { format, options: Options::default(), data, index: Arc::new(index) }
    }

    /// The session in these bytes. One pass checks all of PHP's grammar, references included, and builds nothing but
    /// the index. Nothing at all is the empty session.
    pub fn parse(format: Format, bytes: impl Into<Bytes>) -> Result<Self> {
        let data = bytes.into();
        let index = Index::build(format, &data)?;
        Ok(Self { format, options: Options::default(), data, index })
    }

    /// The same session, read and written with other options.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The session's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The options it is read and written with.
    pub fn options(&self) -> Options {
        self.options
    }

    /// The session as it is to be stored, all edits included.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }

    /// [`Bag::as_bytes`], shared.
    pub fn to_bytes(&self) -> Bytes {
        self.data.clone()
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.index.entries.is_empty()
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.index.live(self.format, &self.data).count()
    }

    /// Whether it has this key, be it `null`.
    pub fn contains(&self, key: impl AsKey) -> bool {
        self.index.find(self.format, &self.data, key.as_key()).is_some()
    }

    /// Its keys in PHP's order.
    pub fn keys(&self) -> impl Iterator<Item = KeyRef<'_>> {
        self.index.live(self.format, &self.data).map(|n| self.index.key(self.format, &self.data, n))
    }

    /// A key's value, decoded by serde; `None` if the key is absent or `null`.
    pub fn get<'a, T: Deserialize<'a>>(&'a self, key: impl AsKey) -> Result<Option<T>> {
        let key = key.as_key();
        let Some(entry) = self.index.value(self.format, &self.data, key) else { return Ok(None) };
        crate::de::decode(self, entry.value as usize).map_err(|error| error.under(key))
    }

    /// A key's value as PHP has it; `None` if the key is absent. References out of it are resolved, its own are
    /// numbered from 1.
    pub fn value(&self, key: impl AsKey) -> Result<Option<Value>> {
        let key = key.as_key();
        let Some(entry) = self.index.value(self.format, &self.data, key) else { return Ok(None) };
        let span = &self.data[entry.value as usize..entry.end as usize];
        if !self.touches_references(entry) {
            return build(span).map(Some).map_err(|error| error.under(key));
        }
        if !self.is_frozen()
            && !self.is_shared(entry)
            && let Some(value) = build_numbered(&self.data, entry.value as usize, self.targets())
        {
            return Ok(Some(value));
        }
        // Numbered from 1, and no key comes twice.
        let Some(bytes) = self.written_anew(key, Precision::Digits(17))? else { return Ok(None) };
        build(&bytes).map(Some).map_err(|error| error.under(key))
    }

    /// A key's value as it lies in the session.
    pub fn raw(&self, key: impl AsKey) -> Option<&[u8]> {
        let entry = self.index.value(self.format, &self.data, key.as_key())?;
        Some(&self.data[entry.value as usize..entry.end as usize])
    }

    /// What PHP's `serialize($_SESSION[$key])` gives; `None` if the key is absent.
    pub fn serialized(&self, key: impl AsKey) -> Result<Option<Vec<u8>>> {
        let key = key.as_key();
        let precision = self.options.serialize_precision;
        let Some(entry) = self.index.value(self.format, &self.data, key) else { return Ok(None) };
        if !self.touches_references(entry) {
            let span = &self.data[entry.value as usize..entry.end as usize];
            let graph = graph::Graph::of_value(span)?;
            return graph.canonical_value(precision).map(Some).map_err(|error| error.under(key));
        }
        self.written_anew(key, precision)
    }

    fn written_anew(&self, key: KeyRef<'_>, precision: Precision) -> Result<Option<Vec<u8>>> {
        let mut graph = self.index.graph(self.format, &self.data)?;
        let place = graph.roots.iter().find(|root| root.key.as_ref() == key).map(|root| root.place);
        let Some(place) = place else { return Ok(None) };
        graph.canonical_place(place, precision).map(Some).map_err(|error| error.under(key))
    }

    /// The session's variables; for what serde meets behind references.
    pub(crate) fn graph(&self) -> Result<graph::Graph<'_>> {
        self.index.graph(self.format, &self.data)
    }

    /// For each reference, where what it means is written.
    pub(crate) fn targets(&self) -> &[(u32, u32)] {
        self.index.links.as_ref().map_or(&[], |links| &links.targets)
    }

    /// Whether there is a reference in this entry, or a payload that may be one.
    fn touches_references(&self, entry: index::Entry) -> bool {
        self.index.links.as_ref().is_some_and(|links| {
            let first = links.targets.partition_point(|(at, _)| *at < entry.value);
            links.targets.get(first).is_some_and(|(at, _)| *at < entry.end) || links.frozen
        })
    }

    /// Whether something behind this entry may share a variable with an `r:` in it.
    fn is_shared(&self, entry: index::Entry) -> bool {
        self.index.links.as_ref().is_some_and(|links| links.shared >= entry.end)
    }

    /// `serialize($_SESSION)`.
    pub fn serialize_all(&self) -> Result<Vec<u8>> {
        let graph = self.index.graph(self.format, &self.data)?;
        graph.session(Format::PhpSerialize, Some(self.options.serialize_precision))
    }

    /// `session_encode()`: the session as PHP would write it anew, which for bytes that PHP wrote is the same bytes.
    /// `None` where PHP gives `false`: an empty session under `php` and `php_binary`, and one that contains itself by
    /// reference under `php_serialize`.
    pub fn encode(&self) -> Result<Option<Vec<u8>>> {
        if self.is_empty() && self.format != Format::PhpSerialize {
            return Ok(None);
        }
        let graph = self.index.graph(self.format, &self.data)?;
        if graph.refers_to_itself() {
            return Ok(None);
        }
        graph.session(self.format, Some(self.options.serialize_precision)).map(Some)
    }
}

/// Shows no content.
impl fmt::Debug for Bag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bag")
            .field("format", &self.format)
            .field("bytes", &self.data.len())
            .field("keys", &self.len())
            .finish_non_exhaustive()
    }
}
