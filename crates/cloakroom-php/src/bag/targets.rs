//! Where what each reference means is written, found in one more walk over bytes whose grammar has been checked.
//!
//! PHP counts variables, so a key that comes again in the same array has its number lead to the later value. What
//! reads as if a key might come again, and whatever is found wrong, goes to the [`Graph`], which follows variables
//! themselves. Four bytes per value and eight per key of the arrays that are open are held while walking.

use super::graph::{Graph, payload_may_count};
use super::index::{Notes, small};
use crate::error::{ErrorKind, Fault, Result};
use crate::key::KeyRef;
use crate::number::parse_int;
use crate::scan::{Head, RawKey, Scan, Sink, Walker};

/// References and what they mean, each by where it lies, in the order of the bytes.
pub(crate) type Targets = Vec<(u32, u32)>;

/// More names than one compares with each other are sorted.
const FEW: usize = 16;

#[derive(Default)]
struct Open {
    // Where its names begin.
    names: usize,
    // It has begun with so many keys 0, 1, 2 and so on.
    list: i64,
    // Integers stand among its names.
    integers: bool,
}

pub(super) struct Follower<'a> {
    bytes: &'a [u8],
    pub(super) notes: Notes,
    // Where what each number counts is written.
    slots: Vec<u32>,
    // As in the graph: numbers from here on are uncertain, and so many may be hidden in payloads.
    certain: Option<usize>,
    hidden: usize,
    // The innermost array or object, and those around it.
    inner: Open,
    outer: Vec<Open>,
    names: Vec<u64>,
    pub(super) targets: Targets,
}

/// What only the graph can judge; what it says is reported.
#[cold]
fn unclear(at: usize) -> Fault {
    Fault { kind: ErrorKind::Reference, at, what: "a reference that does not fit" }
}

impl<'a> Follower<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            notes: Notes::default(),
            slots: Vec::new(),
            certain: None,
            hidden: 0,
            inner: Open::default(),
            outer: Vec::new(),
            names: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Gives the next number to what is written here.
    pub(super) fn number(&mut self, at: Option<u32>) {
        self.slots.extend(at);
    }

    fn target(&self, n: u64, at: usize) -> Scan<Option<u32>> {
        let n = usize::try_from(n).ok().and_then(|n| n.checked_sub(1)).ok_or_else(|| unclear(at))?;
        match self.certain {
            Some(certain) if n >= certain => {
                if n < self.slots.len() + self.hidden {
                    Ok(None)
                } else {
                    Err(unclear(at))
                }
            }
            _ => self.slots.get(n).copied().map(Some).ok_or_else(|| unclear(at)),
        }
    }
}

impl<'a> Sink<'a> for Follower<'_> {
    #[inline]
    fn key(&mut self, key: RawKey<'a>, _: usize, at: usize, _: usize) -> Scan<()> {
        let open = &mut self.inner;
        let key = match key {
            RawKey::Int(text) => KeyRef::Int(parse_int(text)),
            RawKey::Str(text) => KeyRef::of(text),
            RawKey::Escaped(..) => return Err(unclear(at)),
        };
        if let KeyRef::Int(n) = key {
            if n == open.list && !open.integers {
                open.list += 1;
                return Ok(());
            }
            if (0..open.list).contains(&n) {
                return Err(unclear(at));
            }
            open.integers = true;
        }
        let name = key.fingerprint();
        let before = &self.names[open.names..];
        if before.len() < FEW && before.contains(&name) {
            return Err(unclear(at));
        }
        self.names.push(name);
        Ok(())
    }

    #[inline]
    fn head(&mut self, head: Head<'a>, at: usize, end: usize) -> Scan<()> {
        let here = small(at);
        if matches!(head, Head::Alias(_) | Head::Handle(_) | Head::Custom(..)) {
            self.notes.see(head, end);
        }
        match head {
            Head::Alias(n) => {
                let target = self.target(n, at)?.unwrap_or(here);
                self.targets.push((here, target));
                return Ok(());
            }
            Head::Handle(n) => {
                let target = self.target(n, at)?;
                if target.is_some_and(|target| !matches!(self.bytes[target as usize], b'O' | b'C' | b'E')) {
                    return Err(unclear(at));
                }
                let target = target.unwrap_or(here);
                self.targets.push((here, target));
                self.slots.push(target);
                return Ok(());
            }
            Head::Array(_) | Head::Object(..) => {
                let open = Open { names: self.names.len(), list: 0, integers: false };
                self.outer.push(std::mem::replace(&mut self.inner, open));
                self.slots.push(here);
            }
            Head::Custom(_, payload) if payload_may_count(payload) => {
                self.slots.push(here);
                self.certain.get_or_insert(self.slots.len());
                self.hidden += payload.len() / 2;
            }
            _ => self.slots.push(here),
        }
        Ok(())
    }

    #[inline]
    fn close(&mut self, end: usize) -> Scan<()> {
        let Some(outer) = self.outer.pop() else { return Ok(()) };
        let open = std::mem::replace(&mut self.inner, outer);
        let names = &mut self.names[open.names..];
        if names.len() > FEW {
            names.sort_unstable();
            if names.windows(2).any(|two| two[0] == two[1]) {
                return Err(unclear(end));
            }
        }
        self.names.truncate(open.names);
        Ok(())
    }
}

/// The references of one value that is known to fit the grammar.
pub(crate) fn of_value(bytes: &[u8]) -> Result<Targets> {
    let mut follower = Follower::new(bytes);
    match Walker::default().value(bytes, 0, 0, &mut follower) {
        Ok(_) => Ok(follower.targets),
        Err(_) => Ok(Graph::of_value(bytes)?.targets()),
    }
}

#[cfg(test)]
#[expect(clippy::format_push_string, reason = "a test")]
mod tests {
    use super::*;

    /// Random arrays whose keys often come again, with references to anything.
    fn value(random: &mut u64, depth: usize, out: &mut String) {
        let mut below = |n: u64| {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            *random % n
        };
        match if depth == 0 { 9 + below(5) } else { below(if depth > 3 { 9 } else { 14 }) } {
            0..=3 => out.push_str("i:1;"),
            4 => out.push_str("E:3:\"S:a\";"),
            5 | 6 => out.push_str(&format!("R:{};", 1 + below(6))),
            7 if below(2) == 0 => out.push_str(&format!("r:{};", 1 + below(6))),
            8 if below(8) == 0 => out.push_str("C:1:\"c\":4:{i:1;}"),
            7 | 8 => out.push_str("O:1:\"U\":0:{}"),
            kind => {
                let wide = below(12) == 0;
                let n = if wide { 24 } else { below(5) };
                let head = if kind < 12 { "a:" } else { "O:1:\"U\":" };
                out.push_str(&format!("{head}{n}:{{"));
                for at in 0..n {
                    let key = if below(8) == 0 { below(n) } else { at };
                    match below(12) {
                        0 => out.push_str(&format!("s:1:\"{}\";", key % 10)),
                        1 if below(4) == 0 => out.push_str("S:1:\"\\61\";"),
                        2..=6 => out.push_str(&format!("s:7:\"key..{key:02}\";")),
                        _ => out.push_str(&format!("i:{key};")),
                    }
                    // The closure holds the seed.
                    let mut seed = 1 + below(u64::MAX - 1);
                    value(&mut seed, depth + 1, out);
                }
                out.push('}');
            }
        }
    }

    #[test]
    fn follows_as_the_graph_does() {
        let mut random = 88;
        let (mut followed, mut refused, mut both) = (0, 0, 0);
        for _ in 0..30_000 {
            let mut text = String::new();
            value(&mut random, 0, &mut text);
            let mut follower = Follower::new(text.as_bytes());
            let walked = Walker::default().value(text.as_bytes(), 0, 0, &mut follower);
            match (walked, Graph::of_value(text.as_bytes()).map(|graph| graph.targets())) {
                (Ok(_), Ok(known)) => {
                    followed += usize::from(!known.is_empty());
                    assert_eq!(follower.targets.len(), known.len(), "{text}");
                    for (found, known) in follower.targets.iter().zip(known) {
                        // A case of an enum is one object: the graph names the first, whatever stands there again.
                        let case =
                            text.as_bytes()[found.1 as usize] == b'E' && text[known.1 as usize..].starts_with('E');
                        assert!(*found == known || found.0 == known.0 && case, "{found:?} {known:?} {text}");
                    }
                }
                (Ok(_), Err(error)) => panic!("{error}: {text}"),
                (Err(_), Ok(_)) => refused += 1,
                (Err(_), Err(_)) => both += 1,
            }
        }
        assert!(followed > 1000 && refused > 1000 && both > 1000, "{followed} {refused} {both}");
    }
}
