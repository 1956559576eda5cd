//! What the verbs hand to a request: the contents of a session, to read ([`Snapshot`]) or to change ([`Draft`]).

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use cloakroom_php::{AsKey, Bag, KeyRef, Value};
use serde::{Deserialize, Serialize};

use crate::moved::RESERVED;
use crate::{Error, Result};

/// The contents of a session, PHP's `$_SESSION`.
///
/// Nothing is decoded before it is asked for, and what is not changed keeps its bytes. Keys are text, bytes or
/// integers; text that PHP's arrays take for an integer is one.
#[derive(Clone)]
pub struct Draft {
    bag: Bag,
}

impl Draft {
    pub(crate) fn new(bag: Bag) -> Draft {
        Draft { bag }
    }

    /// The value under `key`, or `None` if there is none or it is PHP's `null`.
    ///
    /// A value of another type is [`ErrorKind::Mismatch`](crate::ErrorKind::Mismatch) and stays as it is.
    pub fn get<'a, T: Deserialize<'a>>(&'a self, key: impl AsKey) -> Result<Option<T>> {
        Ok(self.bag.get(key)?)
    }

    /// Puts a value under `key`. A new key goes to the end, as in PHP.
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for what PHP's format could not keep, for example a
    /// `|` in a key; nothing has changed then.
    pub fn set<T: Serialize + ?Sized>(&mut self, key: impl AsKey, value: &T) -> Result<()> {
        let key = key.as_key();
        ours_alone(&key)?;
        Ok(self.bag.set(key, value)?)
    }

    /// Removes `key`. False if there was none.
    pub fn remove(&mut self, key: impl AsKey) -> Result<bool> {
        let key = key.as_key();
        ours_alone(&key)?;
        Ok(self.bag.remove(key)?)
    }

    /// Removes everything but what cloakroom itself remembers: PHP's `session_unset`.
    pub fn clear(&mut self) {
        let ours = self.bag.serialized(RESERVED).ok().flatten();
        self.bag.clear();
        if let Some(ours) = ours {
            // It was a whole value a moment ago.
            let _ = self.bag.set_serialized(RESERVED, &ours);
        }
    }

    /// True if there is such a key, be its value `null` or not.
    pub fn contains(&self, key: impl AsKey) -> bool {
        self.bag.contains(key)
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl Iterator<Item = KeyRef<'_>> {
        self.bag.keys().filter(|key| !is_reserved(key))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys().count()
    }

    /// True if there is no key.
    pub fn is_empty(&self) -> bool {
        self.keys().next().is_none()
    }

    /// The value under `key` as PHP sees it.
    pub fn value(&self, key: impl AsKey) -> Result<Option<Value>> {
        Ok(self.bag.value(key)?)
    }

    /// Puts a PHP value under `key`.
    pub fn set_value(&mut self, key: impl AsKey, value: &Value) -> Result<()> {
        let key = key.as_key();
        ours_alone(&key)?;
        Ok(self.bag.set_value(key, value)?)
    }

    /// The bytes of the value under `key` as they lie in the store, not decoded.
    pub fn raw(&self, key: impl AsKey) -> Option<&[u8]> {
        self.bag.raw(key)
    }

    /// The session as it will lie in the store.
    pub fn as_bytes(&self) -> &[u8] {
        self.bag.as_bytes()
    }

    /// The raw session, for what the methods here do not offer.
    pub fn bag(&self) -> &Bag {
        &self.bag
    }

    /// The raw session, to be changed.
    pub fn bag_mut(&mut self) -> &mut Bag {
        &mut self.bag
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        self.bag.to_bytes()
    }

    pub(crate) fn into_bag(self) -> Bag {
        self.bag
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} bytes)", self.as_bytes().len())
    }
}

fn is_reserved(key: &KeyRef<'_>) -> bool {
    matches!(key, KeyRef::Str(name) if *name == RESERVED.as_bytes())
}

fn ours_alone(key: &KeyRef<'_>) -> Result<()> {
    if is_reserved(key) {
        return Err(Error::misuse("the key _cloakroom is reserved for what cloakroom itself remembers"));
    }
    Ok(())
}

/// The contents of a session at one moment. It is owned, holds no lock, stays as it is, and may outlive the request.
#[derive(Clone, Debug)]
pub struct Snapshot {
    draft: Draft,
    exists: bool,
}

impl Snapshot {
    pub(crate) fn new(bag: Bag, exists: bool) -> Snapshot {
        Snapshot { draft: Draft::new(bag), exists }
    }

    /// True if there is a session, be it empty or not.
    pub fn exists(&self) -> bool {
        self.exists
    }
}

impl Deref for Snapshot {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}
