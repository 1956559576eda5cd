//! Building a graph: following the numbers as `var_push` and `var_access` of `var_unserializer.re` do.

use std::collections::HashMap;

use super::{Child, Content, Graph, Place, payload_may_count, payload_may_refer, small};
use crate::error::{ErrorKind, Fault};
use crate::key::Key;
use crate::scan::{Head, RawKey, Scan, Sink};
use crate::unserialize::{class_name, property_key};

pub(super) struct Builder<'g, 'a> {
    pub(super) graph: &'g mut Graph<'a>,
    pub(super) bytes: &'a [u8],
    pub(super) slots: Vec<Place>,
    // How many slots there were before the first payload that may hold some, and how many may be hidden in payloads.
    pub(super) certain: Option<usize>,
    pub(super) hidden: usize,
    pub(super) open: Vec<u32>,
    pub(super) names: HashMap<(u32, Key), Place>,
    pub(super) place: Place,
}

impl Builder<'_, '_> {
    fn target(&self, n: u64, at: usize) -> Scan<Option<Place>> {
        let wrong = Fault { kind: ErrorKind::Reference, at, what: "a reference to nothing" };
        let n = usize::try_from(n).ok().and_then(|n| n.checked_sub(1)).ok_or(wrong)?;
        match self.certain {
            Some(certain) if n >= certain => {
                if n < self.slots.len() + self.hidden {
                    Ok(None)
                } else {
                    Err(wrong)
                }
            }
            _ => self.slots.get(n).copied().map(Some).ok_or(wrong),
        }
    }
}

impl<'a> Sink<'a> for Builder<'_, 'a> {
    fn key(&mut self, key: RawKey<'a>, _: usize, at: usize, end: usize) -> Scan<()> {
        let Some(&parent) = self.open.last() else { return Ok(()) };
        let name = match self.graph.contents[parent as usize].head {
            Head::Object(class, _) => property_key(key, class_name(class)),
            _ => key.to_key(),
        };
        let fresh = self.graph.places.len();
        self.place = *self.names.entry((parent, name)).or_insert(small(fresh));
        if self.place as usize == fresh {
            self.graph.places.push(u32::MAX);
            let raw = &self.bytes[at..end];
            self.graph.contents[parent as usize].children.push(Child { key, raw, place: self.place });
        }
        Ok(())
    }

    fn head(&mut self, head: Head<'a>, at: usize, end: usize) -> Scan<()> {
        let place = self.place;
        let not_itself = |target: Place| {
            let what = "a reference to itself";
            if target == place { Err(Fault { kind: ErrorKind::Reference, at, what }) } else { Ok(()) }
        };
        match head {
            Head::Alias(n) => {
                match self.target(n, at)? {
                    None => self.graph.unknown(place, small(at)),
                    Some(target) => {
                        not_itself(target)?;
                        let cell = self.graph.places[target as usize];
                        self.graph.cells[cell as usize].shared = true;
                        self.graph.places[place as usize] = cell;
                    }
                }
                self.graph.refers(place, small(at));
                return Ok(());
            }
            Head::Handle(n) => {
                let target = self.target(n, at)?;
                self.slots.push(place);
                match target {
                    None => self.graph.unknown(place, small(at)),
                    Some(target) => {
                        not_itself(target)?;
                        let content = self.graph.cells[self.graph.places[target as usize] as usize].content;
                        if !self.graph.contents[content as usize].is_object() {
                            let what = "an object reference to something else";
                            return Err(Fault { kind: ErrorKind::Reference, at, what });
                        }
                        self.graph.assign(place, content);
                    }
                }
                self.graph.refers(place, small(at));
                return Ok(());
            }
            Head::Custom(_, payload) if payload_may_count(payload) => {
                self.slots.push(place);
                self.certain.get_or_insert(self.slots.len());
                self.hidden += payload.len() / 2;
                self.graph.uncertain |= payload_may_refer(payload);
            }
            _ => self.slots.push(place),
        }
        let content = small(self.graph.contents.len());
        if let Head::Enum(class, case) = head {
            let known = *self.graph.cases.entry((class, case)).or_insert(content);
            if known != content {
                self.graph.assign(place, known);
                return Ok(());
            }
        }
        self.graph.contents.push(Content { head, at: small(at), raw: &self.bytes[at..end], children: Vec::new() });
        self.graph.assign(place, content);
        if matches!(head, Head::Array(_) | Head::Object(..)) {
            self.open.push(content);
        }
        Ok(())
    }

    fn close(&mut self, _: usize) -> Scan<()> {
        self.open.pop();
        Ok(())
    }
}
