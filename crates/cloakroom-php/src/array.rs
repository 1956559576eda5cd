//! PHP's array: an ordered map whose keys are integers or strings (`Zend/zend_hash.c`).

use std::fmt;

use crate::key::{AsKey, Key, KeyRef, KeyTable};
use crate::value::Value;

/// An ordered map with PHP's key rules: `"5"` is the integer 5, `push` takes the next free integer, a key that is
/// set again keeps its place.
#[derive(Default)]
pub struct Array(Option<Box<Inner>>);

struct Inner {
    entries: Vec<(Key, Value)>,
    // Only for arrays that are no lists and too long to look through.
    table: Option<Box<KeyTable>>,
    next: Option<i64>,
    list: bool,
}

/// Up to here looking through beats hashing.
const FEW: usize = 16;

type Iter<'a> = std::iter::Map<std::slice::Iter<'a, (Key, Value)>, fn(&(Key, Value)) -> (&Key, &Value)>;

fn pairs(entry: &(Key, Value)) -> (&Key, &Value) {
    (&entry.0, &entry.1)
}

impl Array {
    /// An empty array.
    pub fn new() -> Self {
        Self(None)
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// Whether the keys are 0, 1, 2 and so on, in this order (`array_is_list`).
    pub fn is_list(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.list)
    }

    pub(crate) fn entries(&self) -> &[(Key, Value)] {
        self.0.as_ref().map_or(&[], |inner| &inner.entries)
    }

    /// The elements in PHP's order.
    pub fn iter(&self) -> Iter<'_> {
        self.entries().iter().map(pairs)
    }

    /// The element under this key.
    pub fn get(&self, key: impl AsKey) -> Option<&Value> {
        let inner = self.0.as_ref()?;
        let at = inner.find(key.as_key())?;
        Some(&inner.entries[at].1)
    }

    /// The element under this key, to be changed.
    pub fn get_mut(&mut self, key: impl AsKey) -> Option<&mut Value> {
        let inner = self.0.as_mut()?;
        let at = inner.find(key.as_key())?;
        Some(&mut inner.entries[at].1)
    }

    /// Sets an element, as `$array[$key] = $value` does; the value that was there.
    pub fn insert(&mut self, key: impl AsKey, value: impl Into<Value>) -> Option<Value> {
        self.put(key.as_key().into(), value.into())
    }

    /// Appends an element, as `$array[] = $value` does. `false` where PHP throws: no integer is left.
    pub fn push(&mut self, value: impl Into<Value>) -> bool {
        let next = self.0.as_ref().map_or(Some(0), |inner| inner.next);
        next.is_some_and(|next| self.put(Key::Int(next), value.into()).is_none())
    }

    /// Takes an element out, as `unset()` does. The others keep their keys.
    pub fn remove(&mut self, key: impl AsKey) -> Option<Value> {
        let inner = self.0.as_mut()?;
        let at = inner.find(key.as_key())?;
        let (_, value) = inner.entries.remove(at);
        inner.list = inner.list && at == inner.entries.len();
        inner.table = None;
        inner.index();
        Some(value)
    }

    pub(crate) fn put(&mut self, key: Key, value: Value) -> Option<Value> {
        let inner = self
            .0
            .get_or_insert_with(|| Box::new(Inner { entries: Vec::new(), table: None, next: Some(0), list: true }));
        if let Some(at) = inner.find(key.as_ref()) {
            return Some(std::mem::replace(&mut inner.entries[at].1, value));
        }
        let at = inner.entries.len();
        if let Key::Int(n) = key {
            // Negative keys leave 0 as the next, as before PHP 8.3.
            inner.next = inner.next.and_then(|next| if n >= next { n.checked_add(1) } else { Some(next) });
        }
        let was_list = inner.list;
        inner.list = was_list && matches!(key, Key::Int(n) if usize::try_from(n) == Ok(at));
        inner.entries.push((key, value));
        if !inner.list && at >= FEW {
            if was_list || inner.table.is_none() {
                inner.index();
            } else if let (Some(table), Ok(at)) = (&mut inner.table, u32::try_from(at)) {
                let entries = &inner.entries;
                table.insert(entries[at as usize].0.as_ref(), at, |i| entries[i as usize].0.as_ref());
            }
        }
        None
    }

    /// An empty array with room for so many elements, which are known to come.
    pub(crate) fn with_room(count: usize) -> Self {
        if count == 0 {
            return Self::new();
        }
        Self(Some(Box::new(Inner { entries: Vec::with_capacity(count), table: None, next: Some(0), list: true })))
    }

    /// Gives back what growing has taken in advance.
    pub(crate) fn shrink(&mut self) {
        if let Some(inner) = &mut self.0 {
            inner.entries.shrink_to_fit();
        }
    }

    /// The elements, to be taken or dropped without recursion.
    fn take(&mut self) -> Vec<(Key, Value)> {
        self.0.take().map_or_else(Vec::new, |mut inner| std::mem::take(&mut inner.entries))
    }
}

impl Inner {
    fn find(&self, key: KeyRef<'_>) -> Option<usize> {
        if self.list {
            return match key {
                KeyRef::Int(n) => usize::try_from(n).ok().filter(|n| *n < self.entries.len()),
                KeyRef::Str(_) => None,
            };
        }
        match &self.table {
            Some(table) => table.find(key, |i| self.entries[i as usize].0.as_ref()).map(|at| at as usize),
            None => self.entries.iter().position(|(k, _)| k.as_ref() == key),
        }
    }

    fn index(&mut self) {
        if self.list || self.entries.len() <= FEW || u32::try_from(self.entries.len()).is_err() {
            return;
        }
        let mut table = KeyTable::new();
        let entries = &self.entries;
        for (at, (key, _)) in (0_u32..).zip(entries) {
            table.insert(key.as_ref(), at, |i| entries[i as usize].0.as_ref());
        }
        self.table = Some(Box::new(table));
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        if !self.entries().iter().any(|(_, value)| value.elements().is_some_and(|e| !e.is_empty())) {
            return;
        }
        let mut pending = vec![self.take()];
        while let Some(mut entries) = pending.pop() {
            for (_, value) in &mut entries {
                match value.elements_mut() {
                    Some(nested) if !nested.is_empty() => pending.push(nested.take()),
                    _ => {}
                }
            }
        }
    }
}

/// A copy that is being made: what it is of, how far it is, and the element whose own elements are being copied.
struct Copying<'a> {
    copy: Array,
    of: &'a Array,
    rest: std::slice::Iter<'a, (Key, Value)>,
    waiting: Option<(&'a Key, Value)>,
}

impl<'a> Copying<'a> {
    fn of(of: &'a Array) -> Self {
        Self { copy: Array::new(), of, rest: of.entries().iter(), waiting: None }
    }

    fn done(mut self) -> Array {
        self.copy.shrink();
        if let (Some(copy), Some(of)) = (&mut self.copy.0, &self.of.0) {
            copy.next = of.next;
        }
        self.copy
    }
}

impl Clone for Array {
    fn clone(&self) -> Self {
        let mut open = vec![Copying::of(self)];
        let mut done: Option<Self> = None;
        while let Some(top) = open.last_mut() {
            if let (Some(nested), Some((key, mut value))) = (done.take(), top.waiting.take()) {
                if let Some(elements) = value.elements_mut() {
                    *elements = nested;
                }
                top.copy.put(key.clone(), value);
            }
            match top.rest.next() {
                None => done = open.pop().map(Copying::done),
                Some((key, value)) => match value.elements() {
                    Some(elements) if !elements.is_empty() => {
                        top.waiting = Some((key, value.shallow()));
                        open.push(Copying::of(elements));
                    }
                    _ => {
                        top.copy.put(key.clone(), value.clone());
                    }
                },
            }
        }
        done.unwrap_or_default()
    }
}

/// Equal keys and values in the same order, as PHP's `===`.
impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let mut stack = vec![(self.entries(), other.entries())];
        while let Some((a, b)) = stack.pop() {
            for ((key_a, a), (key_b, b)) in a.iter().zip(b) {
                if key_a != key_b || !a.same_head(b) {
                    return false;
                }
                if let (Some(a), Some(b)) = (a.elements(), b.elements()) {
                    stack.push((a.entries(), b.entries()));
                }
            }
        }
        true
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements", self.len())
    }
}

impl<K: AsKey, V: Into<Value>> FromIterator<(K, V)> for Array {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let mut array = Self::new();
        for (key, value) in iter {
            array.insert(key, value);
        }
        array
    }
}

impl<'a> IntoIterator for &'a Array {
    type Item = (&'a Key, &'a Value);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Array {
    type Item = (Key, Value);
    type IntoIter = std::vec::IntoIter<(Key, Value)>;
    fn into_iter(mut self) -> Self::IntoIter {
        self.take().into_iter()
    }
}
