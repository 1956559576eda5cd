//! Edits: what `$_SESSION[$key] = $value`, `unset()` and `session_decode()` do, made on the bytes.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::Bag;
use super::graph::{payload_may_count, payload_may_refer};
use super::index::{Entry, Index, small};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Format;
use crate::key::{AsKey, Key, KeyRef};
use crate::scan::{Head, Scan, Sink, Walker};
use crate::value::Value;

/// What a value that is to be put in has to do with numbers.
#[derive(Default)]
struct Count {
    places: usize,
    references: bool,
    // That may refer out of themselves.
    payloads: bool,
    // That may hold more places.
    hidden: bool,
}

impl<'a> Sink<'a> for Count {
    fn head(&mut self, head: Head<'a>, _: usize, _: usize) -> Scan<()> {
        self.places += 1;
        match head {
            Head::Alias(_) | Head::Handle(_) => self.references = true,
            Head::Custom(_, payload) => {
                self.payloads |= payload_may_refer(payload);
                self.hidden |= payload_may_count(payload);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Bag {
    /// Sets a key to a value by serde. An error if the session's format cannot carry the key, or PHP not the value;
    /// the session is then as it was.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: impl AsKey, value: &T) -> Result<()> {
        let key = key.as_key();
        self.format.check_key(key)?;
        let (bytes, known) = crate::ser::written(value, self.options).map_err(|error| error.under(key))?;
        // Without references in the session nobody counts its places.
        if known && self.index.links.is_none() {
            debug_assert!(matches!(crate::unserialize::check(&bytes), Ok(targets) if targets.is_empty()));
            return self.splice(key, &bytes);
        }
        self.put(key, &bytes)
    }

    /// Sets a key to a value of PHP.
    pub fn set_value(&mut self, key: impl AsKey, value: &Value) -> Result<()> {
        let key = key.as_key();
        self.format.check_key(key)?;
        let bytes = value.serialize_with(self.options).map_err(|error| error.under(key))?;
        self.put(key, &bytes)
    }

    /// `$_SESSION[$key] = unserialize($bytes)`, with the bytes as they are where nothing has to be numbered anew.
    pub fn set_serialized(&mut self, key: impl AsKey, bytes: &[u8]) -> Result<()> {
        let key = key.as_key();
        self.format.check_key(key)?;
        crate::unserialize::check(bytes).map_err(|error| error.under(key).not_data())?;
        self.put(key, bytes)
    }

    /// Removes a key, as `unset($_SESSION[$key])`; whether it was there. What refers to its value keeps it.
    pub fn remove(&mut self, key: impl AsKey) -> Result<bool> {
        let key = key.as_key();
        let Some(first) = self.index.find(self.format, &self.data, key) else { return Ok(false) };
        let entry = self.index.entries[self.winner(first) as usize];
        if self.index.links.is_some() && !self.is_behind_references(first) {
            if self.is_frozen() {
                return self.remove_frozen(key, first, entry);
            }
            let owned = Key::from(key);
            let mut graph = self.index.graph(self.format, &self.data)?;
            graph.unset(&owned);
            let bytes = graph.session(self.format, None).map_err(|error| error.under(key))?;
            self.replace(bytes, key)?;
        } else {
            self.cut(first, None)?;
        }
        Ok(true)
    }

    /// Removes all keys.
    pub fn clear(&mut self) {
        *self = Self::new(self.format).with_options(self.options);
    }

    /// `session_decode()`: under `php` and `php_binary` the keys of `bytes` are added and replace those that are
    /// there, under `php_serialize` they become the session.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() && self.format != Format::PhpSerialize {
            return Ok(());
        }
        let new = Self::parse(self.format, Bytes::copy_from_slice(bytes)).map_err(Error::not_data)?;
        if self.format == Format::PhpSerialize || self.is_empty() {
            let options = self.options;
            *self = if bytes.is_empty() { Self::new(self.format) } else { new };
            self.options = options;
            return Ok(());
        }
        let mut graph = self.index.graph(self.format, &self.data)?;
        graph.add_session(self.format, &new.data, new.index.parts(self.format, &new.data))?;
        let bytes = graph.session(self.format, None)?;
        let merged = Self::parse(self.format, bytes)?;
        if merged.is_frozen() && !self.is_frozen() && !new.is_frozen() {
            return Err(Error::new(ErrorKind::Unsupported, "references would come to stand behind a `C:` payload"));
        }
        *self = merged.with_options(self.options);
        Ok(())
    }

    /// The entry that has the value of this one's key.
    fn winner(&self, first: u32) -> u32 {
        self.index.winner(self.format, &self.data, first)
    }

    /// Whether a payload makes numbers uncertain.
    pub(super) fn is_frozen(&self) -> bool {
        self.index.links.as_ref().is_some_and(|links| links.frozen)
    }

    /// Whether no number can mean anything in this entry or behind it but from within: it may change freely.
    fn is_behind_references(&self, first: u32) -> bool {
        let entry = self.index.entries[first as usize];
        self.winner(first) == first && self.index.links.as_ref().is_none_or(|links| links.last <= entry.key)
    }

    fn put(&mut self, key: KeyRef<'_>, value: &[u8]) -> Result<()> {
        let mut count = Count::default();
        Walker::default().value(value, 0, usize::from(self.format == Format::PhpSerialize), &mut count).map_err(
            |fault| {
                let error = crate::unserialize::with_path(value, fault).under(key);
                error.not_data()
            },
        )?;
        let first = self.index.find(self.format, &self.data, key);
        let plain = !count.references && !count.payloads;
        let free = first.is_none_or(|first| self.is_behind_references(first));
        if plain && (self.index.links.is_none() || free) {
            return self.splice(key, value);
        }
        if self.is_frozen() {
            return self.put_frozen(key, first, value, plain.then_some(count));
        }
        if let Some(first) = first.filter(|first| plain && !count.hidden && self.moves_nothing(*first, count.places)) {
            return self.cut(first, Some(value));
        }
        let mut graph = self.index.graph(self.format, &self.data)?;
        graph.set(&key.into(), value).map_err(|error| error.under(key).not_data())?;
        let bytes = graph.session(self.format, None).map_err(|error| error.under(key))?;
        self.replace(bytes, key)
    }

    /// Whether a value with so many places may be written over this one: all others keep their numbers, and what
    /// refers to it follows, as it does in PHP.
    fn moves_nothing(&self, first: u32, places: usize) -> bool {
        let entry = self.index.entries[first as usize];
        let Some(links) = &self.index.links else { return true };
        // What repeats a key, or refers to the session as a whole, is for the graph.
        let repeated = self.index.repeats(self.format, &self.data);
        if repeated || self.format == Format::PhpSerialize && links.targets.iter().any(|(_, to)| *to == 0) {
            return false;
        }
        if self.is_scalar(entry) {
            return places == 1;
        }
        let within = |at: u32| (entry.value..entry.end).contains(&at);
        if links.targets.iter().any(|(from, to)| within(*from) || within(*to)) {
            return false;
        }
        let mut old = Count::default();
        let walked = Walker::default().value(&self.data, entry.value as usize, 0, &mut old);
        walked.is_ok() && old.places == places && !old.hidden && !old.payloads
    }

    /// Sets a key where no number can mean anything but from within.
    fn splice(&mut self, key: KeyRef<'_>, value: &[u8]) -> Result<()> {
        match self.index.find(self.format, &self.data, key) {
            Some(first) => self.cut(first, Some(value)),
            None => self.append(key, value),
        }
    }

    /// Behind a payload whose values PHP may have counted, one scalar may take the place of another: no number moves,
    /// and what refers to it follows, as it does in PHP.
    fn put_frozen(&mut self, key: KeyRef<'_>, first: Option<u32>, value: &[u8], plain: Option<Count>) -> Result<()> {
        if let (Some(first), Some(count)) = (first, plain) {
            let entry = self.index.entries[first as usize];
            let alias = self.data[entry.value as usize..].starts_with(b"R:");
            let stays = count.places == 1 && !count.hidden && self.is_scalar(entry) || self.is_last(entry) && !alias;
            if stays && self.winner(first) == first {
                return self.cut(first, Some(value));
            }
        }
        Err(refused(key))
    }

    fn remove_frozen(&mut self, key: KeyRef<'_>, first: u32, entry: Entry) -> Result<bool> {
        // An alias has no number, so nothing moves when it goes.
        let is_alias = self.data[entry.value as usize..].starts_with(b"R:");
        let repeated = self.winner(first) != first;
        if is_alias && !repeated {
            self.cut(first, None)?;
            return self.reindex().map(|()| true);
        }
        // References only point back: with none behind this entry, nothing counts on it or on what follows.
        if self.is_last(entry) && !repeated {
            self.cut(first, None)?;
            return self.reindex().map(|()| true);
        }
        Err(refused(key))
    }

    fn is_last(&self, entry: Entry) -> bool {
        self.index.links.as_ref().is_none_or(|links| links.last <= entry.end)
    }

    fn is_scalar(&self, entry: Entry) -> bool {
        matches!(self.data.get(entry.value as usize), Some(b'N' | b'b' | b'i' | b'd' | b's' | b'S'))
    }

    fn reindex(&mut self) -> Result<()> {
        self.index = Index::build(self.format, &self.data)?;
        Ok(())
    }

    /// Takes a session that has been written anew, unless a payload has made its numbers uncertain.
    fn replace(&mut self, bytes: Vec<u8>, key: KeyRef<'_>) -> Result<()> {
        let new = Self::parse(self.format, bytes).map_err(|error| error.under(key).not_data())?;
        if new.is_frozen() {
            return Err(refused(key));
        }
        *self = new.with_options(self.options);
        Ok(())
    }

    fn too_long(&self, more: usize, key: KeyRef<'_>) -> Result<()> {
        if self.data.len() + more + 32 >= u32::MAX as usize {
            return Err(Error::new(ErrorKind::Limit, "more than 4 GiB").under(key));
        }
        Ok(())
    }

    /// Replaces the value of an entry, or takes the entry out; repetitions of its key go.
    fn cut(&mut self, first: u32, value: Option<&[u8]>) -> Result<()> {
        let entry = self.index.entries[first as usize];
        if let (Some(value), true) = (value, self.winner(first) == first) {
            let (start, end) = (entry.value as usize, entry.end as usize);
            if self.data[start..end] == *value {
                return Ok(());
            }
            let key = self.index.key(self.format, &self.data, first);
            self.too_long(value.len(), key)?;
            let tail =
                if self.format == Format::PhpSerialize { self.index.body.1 as usize + 1 } else { self.data.len() };
            let mut data = Vec::with_capacity(tail - (end - start) + value.len());
            data.extend_from_slice(&self.data[..start]);
            data.extend_from_slice(value);
            data.extend_from_slice(&self.data[end..tail]);
            self.data = data.into();
            let index = Arc::make_mut(&mut self.index);
            index.spliced(first, start + value.len());
            // Else what was written over has no references, and no numbers have moved.
            let frozen = index.links.as_ref().is_some_and(|links| links.frozen && links.last as usize > start);
            return if frozen { self.reindex() } else { Ok(()) };
        }
        // Entries go: the bytes of those that stay are put together anew.
        let key = Key::from(self.index.key(self.format, &self.data, first));
        self.too_long(value.map_or(0, <[u8]>::len), key.as_ref())?;
        let mut body = Vec::with_capacity(self.data.len() + value.map_or(0, <[u8]>::len));
        let mut count = 0;
        for (n, entry) in (0..).zip(&*self.index.entries) {
            let again = self.index.key(self.format, &self.data, n) == key.as_ref();
            match value {
                _ if n != first && !again => {
                    body.extend_from_slice(&self.data[entry.key as usize..entry.end as usize]);
                }
                Some(value) if n == first => {
                    body.extend_from_slice(&self.data[entry.key as usize..entry.value as usize]);
                    body.extend_from_slice(value);
                }
                _ => continue,
            }
            count += 1;
        }
        self.data = self.framed(&body, count);
        self.reindex()
    }

    /// Entries with what stands around them.
    fn framed(&self, body: &[u8], count: usize) -> Bytes {
        if self.format != Format::PhpSerialize {
            return Bytes::copy_from_slice(body);
        }
        let mut data = Vec::with_capacity(body.len() + 16);
        crate::serialize::write_array_head(&mut data, count);
        data.extend_from_slice(body);
        data.push(b'}');
        data.into()
    }

    fn append(&mut self, key: KeyRef<'_>, value: &[u8]) -> Result<()> {
        self.too_long(value.len() + key.as_bytes().map_or(24, |key| key.len() + 24), key)?;
        let (start, end) = (self.index.body.0 as usize, self.index.body.1 as usize);
        let mut data = Vec::with_capacity(end - start + value.len() + key.as_bytes().map_or(24, <[u8]>::len) + 40);
        if self.format == Format::PhpSerialize {
            crate::serialize::write_array_head(&mut data, self.index.entries.len() + 1);
        }
        let moved = data.len();
        data.extend_from_slice(&self.data[start..end]);
        let at = data.len();
        self.format.write_key(&mut data, key);
        let value_at = data.len();
        data.extend_from_slice(value);
        let value_end = data.len();
        if self.format == Format::PhpSerialize {
            data.push(b'}');
        }
        self.data = data.into();
        if moved != start {
            // The count has grown by a digit, or there was none.
            return self.reindex();
        }
        let (format, data) = (self.format, self.data.clone());
        let index = Arc::make_mut(&mut self.index);
        if let Ok((raw, _)) = format.entry(&data, at) {
            let entry = Entry { key: small(at), value: small(value_at), end: small(value_end) };
            index.add(format, &data, raw, entry);
        }
        index.body.1 = small(value_end);
        Ok(())
    }
}

fn refused(key: KeyRef<'_>) -> Error {
    let what = "a `C:` payload stands before references: this edit would move what their numbers count";
    Error::new(ErrorKind::Unsupported, what).under(key)
}
