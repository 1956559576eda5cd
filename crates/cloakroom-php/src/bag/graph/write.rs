//! Writing a graph: every variable and object once, then references to it (`php_var_serialize_intern`).

use super::{Content, Graph, Place, payload_may_count, uncertain};
use crate::error::Result;
use crate::number::{Precision, parse_float, parse_int};
use crate::scan::{Head, unescape};
use crate::serialize;
use crate::unserialize::{class_name, property_key};

pub(super) struct Writer<'g, 'a> {
    graph: &'g Graph<'a>,
    pub(super) out: Vec<u8>,
    canonical: Option<Precision>,
    pub(super) number: u64,
    pub(super) cell_numbers: Vec<u64>,
    content_numbers: Vec<u64>,
    // The last number before a payload that may hold numbered values, and whether a reference means one behind it.
    certain: Option<u64>,
    uncertain: bool,
}

impl<'g, 'a> Writer<'g, 'a> {
    pub(super) fn new(graph: &'g Graph<'a>, canonical: Option<Precision>) -> Self {
        Self {
            graph,
            out: Vec::new(),
            canonical,
            number: 0,
            cell_numbers: vec![0; graph.cells.len()],
            content_numbers: vec![0; graph.contents.len()],
            certain: None,
            uncertain: false,
        }
    }

    /// Writes a reference if this variable or object has been written; else says what is to be written.
    fn seen(&mut self, place: Place, as_variable: bool) -> Option<u32> {
        let cell_at = self.graph.places[place as usize] as usize;
        let cell = self.graph.cells[cell_at];
        let content = &self.graph.contents[cell.content as usize];
        let shared = cell.shared && as_variable;
        let (variable, object) = (self.cell_numbers[cell_at], self.content_numbers[cell.content as usize]);
        let object = if content.is_object() { object } else { 0 };
        // PHP takes a reference to an object for the object, and writes `R:` where this place is a reference.
        let alias = if self.canonical.is_some() && object != 0 { object } else { variable };
        if shared && alias != 0 {
            self.reference(b'R', alias);
            return None;
        }
        self.number += 1;
        if shared {
            self.cell_numbers[cell_at] = self.number;
        }
        // A case is the same object however often it is written, so an uncertain number can be done without.
        let again = matches!(content.head, Head::Enum(..)) && self.is_uncertain(object);
        if object != 0 && !again {
            self.reference(b'r', object);
            return None;
        }
        self.content_numbers[cell.content as usize] = self.number;
        Some(cell.content)
    }

    /// What has been written, if PHP will take every number for what it means here.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        if self.uncertain { Err(uncertain()) } else { Ok(self.out) }
    }

    fn is_uncertain(&self, number: u64) -> bool {
        self.certain.is_some_and(|certain| number > certain)
    }

    fn reference(&mut self, tag: u8, number: u64) {
        self.uncertain |= self.is_uncertain(number);
        serialize::write_reference(&mut self.out, tag, number);
    }

    pub(super) fn value(&mut self, place: Place, as_variable: bool) {
        let mut open: Vec<(u32, usize)> = Vec::new();
        let mut next = Some((place, as_variable));
        loop {
            if let Some((place, as_variable)) = next.take()
                && let Some(at) = self.seen(place, as_variable)
            {
                let content = &self.graph.contents[at as usize];
                self.head(content);
                if matches!(content.head, Head::Array(_) | Head::Object(..)) {
                    open.push((at, 0));
                }
            }
            let Some((at, child)) = open.last_mut() else { return };
            let content = &self.graph.contents[*at as usize];
            let Some(element) = content.children.get(*child) else {
                self.out.push(b'}');
                open.pop();
                continue;
            };
            *child += 1;
            next = Some((element.place, true));
            if self.canonical.is_none() {
                self.out.extend_from_slice(element.raw);
            } else {
                let key = match content.head {
                    Head::Object(class, _) => property_key(element.key, class_name(class)),
                    _ => element.key.to_key(),
                };
                serialize::write_key(&mut self.out, key.as_ref());
            }
        }
    }

    fn head(&mut self, content: &Content<'a>) {
        if let (Head::Custom(_, payload), None) = (content.head, self.certain) {
            self.certain = payload_may_count(payload).then_some(self.number);
        }
        let children = content.children.len();
        let unchanged = match content.head {
            Head::Array(n) | Head::Object(_, n) => n as usize == children,
            _ => true,
        };
        match self.canonical {
            None if unchanged => self.out.extend_from_slice(content.raw),
            precision => write_head(&mut self.out, content.head, children, precision.unwrap_or_default()),
        }
    }
}

/// A head as PHP writes it, whatever was accepted when it was read.
fn write_head(out: &mut Vec<u8>, head: Head<'_>, children: usize, precision: Precision) {
    match head {
        Head::Null => out.extend_from_slice(b"N;"),
        Head::Bool(value) => out.extend_from_slice(if value { b"b:1;" } else { b"b:0;" }),
        Head::Int(text) => serialize::write_int(out, parse_int(text)),
        Head::Float(text) => serialize::write_double(out, parse_float(text), precision),
        Head::Str(text) => serialize::write_str(out, text),
        Head::Escaped(len, text) => serialize::write_str(out, &unescape(len, text)),
        Head::Array(_) => serialize::write_array_head(out, children),
        Head::Object(class, _) => {
            serialize::write_counted(out, b'O', &[class_name(class)], b':');
            serialize::number(out, children);
            out.extend_from_slice(b":{");
        }
        Head::Custom(class, payload) => serialize::write_custom(out, class, payload),
        Head::Enum(class, case) => serialize::write_counted(out, b'E', &[class, b":", case], b';'),
        Head::Alias(n) => serialize::write_reference(out, b'R', n),
        Head::Handle(n) => serialize::write_reference(out, b'r', n),
    }
}
