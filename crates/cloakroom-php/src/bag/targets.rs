//! Where what each reference means is written.
//!
//! PHP counts variables; here it is only noted, every few values, which number comes next where, so that the walk can
//! pass over plain elements as fast as it does without references. The few numbers that are referred to are looked up
//! afterwards. Twelve bytes per array or object, and per run of elements between two of them, are held meanwhile.
//!
//! A key that comes again in the same array has the number of its first value lead to the later one. Where what is
//! referred to might have such a key, and where anything is found wrong, the [`Graph`] decides, which follows the
//! variables themselves.

use super::graph::{Graph, payload_may_count};
use super::index::{Notes, small};
use crate::error::{ErrorKind, Fault, Result};
use crate::key::KeyRef;
use crate::number::parse_int;
use crate::scan::{Head, RawKey, Scan, Sink, Walker, key};

/// References and what they mean, each by where it lies, in the order of the bytes.
pub(crate) type Targets = Vec<(u32, u32)>;

/// Elements of an array that lie one after another: all but the last are plain, and take one number each.
#[derive(Clone, Copy)]
struct Span {
    /// The number of the first element.
    first: u32,
    /// Where its key begins.
    at: u32,
    /// It is no element of an array, but one value, which begins there.
    alone: bool,
}

/// Counts values, and says what references mean once all have been counted.
pub(super) struct Counter<'a> {
    bytes: &'a [u8],
    pub(super) notes: Notes,
    count: usize,
    spans: Vec<Span>,
    // As in the graph: numbers above this one are uncertain, and so many may be hidden in payloads.
    certain: Option<usize>,
    hidden: usize,
    // Where each reference lies, and its number; 0 if that is uncertain.
    references: Vec<(u32, u32)>,
}

/// What is referred to.
struct Target {
    number: u32,
    key: usize,
    value: usize,
    /// Its key is known not to come again.
    settled: bool,
}

/// What only the graph can judge; what it says is reported.
#[cold]
fn unclear(at: usize) -> Fault {
    Fault { kind: ErrorKind::Reference, at, what: "a reference that does not fit" }
}

impl<'a> Counter<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        // As many as there are in most sessions.
        let spans = Vec::with_capacity(bytes.len() / 64);
        Self { bytes, notes: Notes::default(), count: 0, spans, certain: None, hidden: 0, references: Vec::new() }
    }

    /// The next number is that of the value that begins here, or of the element whose key does.
    fn note(&mut self, at: usize, alone: bool) {
        self.spans.push(Span { first: small(self.count + 1), at: small(at), alone });
    }

    /// Here begins a value that is no element of an array.
    pub(super) fn alone(&mut self, at: usize) {
        self.note(at, true);
    }

    /// A reference's number, if there is such a value by now.
    fn number(&self, n: u64, at: usize) -> Scan<u32> {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        match self.certain {
            Some(certain) if n > certain && n <= self.count + self.hidden => Ok(0),
            certain if n > 0 && n <= certain.unwrap_or(self.count) => Ok(small(n)),
            _ => Err(unclear(at)),
        }
    }

    /// What each reference means; `None` where only the graph can judge.
    pub(super) fn targets(&self) -> Option<Targets> {
        let mut targets = self.located()?;
        self.settle(&mut targets)?;
        let mut found = Targets::with_capacity(self.references.len());
        for &(at, number) in &self.references {
            let Ok(known) = targets.binary_search_by_key(&number, |target| target.number) else {
                found.push((at, at));
                continue;
            };
            let target = small(targets[known].value);
            // An `r:` has a number of its own, and means what it refers to.
            let target = found.binary_search_by_key(&target, |(at, _)| *at).map_or(target, |known| found[known].1);
            let tag = |at: u32| self.bytes.get(at as usize);
            if tag(at) == Some(&b'r') && !matches!(tag(target), Some(b'O' | b'C' | b'E')) {
                return None;
            }
            found.push((at, target));
        }
        Some(found)
    }

    /// Where the numbers lie that are referred to, in their order.
    fn located(&self) -> Option<Vec<Target>> {
        let mut numbers: Vec<u32> = self.references.iter().map(|(_, number)| *number).filter(|n| *n > 0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut targets = Vec::<Target>::with_capacity(numbers.len());
        let mut walker = Walker::default();
        for number in numbers {
            let span = self.spans[self.spans.partition_point(|span| span.first <= number).checked_sub(1)?];
            let (mut at, mut first) = (span.at as usize, span.first);
            if span.alone {
                targets.push(Target { number, key: at, value: at, settled: true });
                continue;
            }
            // From the one before, if that is nearer.
            if let Some(last) = targets.last().filter(|last| last.number >= first) {
                (at, first) = (last.key, last.number);
            }
            let mut value = key(self.bytes, at).ok()?.1;
            for _ in first..number {
                at = walker.value(self.bytes, value, 0, &mut ()).ok()?;
                value = key(self.bytes, at).ok()?.1;
            }
            targets.push(Target { number, key: at, value, settled: false });
        }
        Some(targets)
    }

    /// Makes sure that no target's key comes again: looks through the rest of each one's array. `None` if one may, or
    /// if arrays within arrays are referred to so often that the graph is faster.
    fn settle(&self, targets: &mut [Target]) -> Option<()> {
        let mut budget = self.bytes.len().saturating_mul(8);
        let mut walker = Walker::default();
        let mut names = Vec::new();
        for first in 0..targets.len() {
            if targets[first].settled {
                continue;
            }
            names.clear();
            let (mut at, mut next) = (targets[first].key, first);
            while *self.bytes.get(at)? != b'}' {
                let (name, value) = key(self.bytes, at).ok()?;
                names.push(match name {
                    RawKey::Int(text) => KeyRef::Int(parse_int(text)).fingerprint(),
                    RawKey::Str(text) => KeyRef::of(text).fingerprint(),
                    RawKey::Escaped(..) => return None,
                });
                // Other targets in this array need not be looked at again.
                next += targets[next..].iter().take_while(|target| target.value < value).count();
                if let Some(target) = targets.get_mut(next).filter(|target| target.value == value) {
                    target.settled = true;
                }
                let end = walker.value(self.bytes, value, 0, &mut ()).ok()?;
                budget = budget.checked_sub(end - at)?;
                at = end;
            }
            names.sort_unstable();
            if names.windows(2).any(|two| two[0] == two[1]) {
                return None;
            }
        }
        Some(())
    }
}

impl<'a> Sink<'a> for Counter<'_> {
    const BLIND: bool = true;

    #[inline]
    fn elements(&mut self, at: usize) {
        self.note(at, false);
    }

    #[inline]
    fn plain(&mut self, count: u32) {
        self.count += count as usize;
    }

    #[inline]
    fn head(&mut self, head: Head<'a>, at: usize, end: usize) -> Scan<()> {
        match head {
            Head::Alias(n) | Head::Handle(n) => {
                self.notes.see(head, end);
                self.references.push((small(at), self.number(n, at)?));
                // `R:` is no variable of its own.
                self.count += usize::from(matches!(head, Head::Handle(_)));
            }
            Head::Custom(_, payload) => {
                self.notes.see(head, end);
                self.count += 1;
                if payload_may_count(payload) {
                    self.certain.get_or_insert(self.count);
                    self.hidden += payload.len() / 2;
                }
            }
            _ => self.count += 1,
        }
        Ok(())
    }
}

/// The references of one value that is known to fit the grammar.
pub(crate) fn of_value(bytes: &[u8]) -> Result<Targets> {
    match followed(bytes) {
        Some(targets) => Ok(targets),
        None => Ok(Graph::of_value(bytes)?.targets()),
    }
}

fn followed(bytes: &[u8]) -> Option<Targets> {
    let mut counter = Counter::new(bytes);
    counter.alone(0);
    Walker::default().value(bytes, 0, 0, &mut counter).ok()?;
    counter.targets()
}

#[cfg(test)]
#[expect(clippy::format_push_string, reason = "a test")]
mod tests {
    use super::*;
    use crate::bag::Bag;
    use crate::formats::Format;
    use crate::key::AsKey;
    use crate::number::Precision;
    use crate::unserialize::{build, build_numbered};

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
    fn sessions_are_followed_as_the_graph_does() {
        let mut random = 90;
        let mut followed = 0;
        for _ in 0..20_000 {
            let (mut one, mut two) = (String::new(), String::new());
            value(&mut random, 0, &mut one);
            value(&mut random, 0, &mut two);
            let sessions = [
                (Format::Php, format!("a|{one}b|{two}")),
                (Format::PhpSerialize, format!("a:3:{{s:1:\"a\";{one}i:0;{two}s:1:\"b\";i:1;}}")),
                (Format::PhpSerialize, format!("a:3:{{s:1:\"a\";{one}i:0;{two}s:1:\"a\";r:2;}}")),
            ];
            for (format, text) in sessions {
                let Ok(bag) = Bag::parse(format, text.clone()) else { continue };
                // Which case of an enum is named may differ.
                if !text.contains('E') && bag.index.links.is_some() {
                    assert_eq!(bag.targets(), bag.graph().unwrap().targets(), "{text}");
                    followed += 1;
                }
            }
        }
        assert!(followed > 500, "{followed}");
    }

    #[test]
    fn a_value_by_itself_is_numbered_as_the_graph_numbers_it() {
        let mut random = 89;
        let (mut whole, mut parts, mut shared) = (0, 0, 0);
        for _ in 0..40_000 {
            let mut text = String::new();
            value(&mut random, 0, &mut text);
            let Some(targets) = followed(text.as_bytes()).filter(|targets| !targets.is_empty()) else { continue };
            if let Some(found) = build_numbered(text.as_bytes(), 0, &targets) {
                let graph = Graph::of_value(text.as_bytes()).unwrap();
                let anew = graph.canonical_value(Precision::Digits(17)).unwrap();
                assert_eq!(found, build(&anew).unwrap(), "{text}");
                whole += 1;
            }
            // What is behind them may share a variable with one of them.
            for last in [String::new(), format!("y|R:{};", 1 + random.rotate_left(20) % 9)] {
                let first = "u|a:1:{i:0;O:1:\"U\":0:{}}";
                let session = format!("{first}v|{text}w|{text}x|a:2:{{i:0;O:1:\"V\":0:{{}}i:1;r:3;}}{last}");
                let Some(bag) = Bag::parse(Format::Php, session.clone()).ok().filter(|bag| !bag.is_frozen()) else {
                    continue;
                };
                for key in ["u", "v", "w", "x"] {
                    let entry = bag.index.value(Format::Php, session.as_bytes(), key.as_key()).unwrap();
                    if bag.is_shared(entry) {
                        shared += 1;
                    } else if let Some(found) = build_numbered(session.as_bytes(), entry.value as usize, bag.targets())
                    {
                        let anew = bag.written_anew(key.as_key(), Precision::Digits(17)).unwrap().unwrap();
                        assert_eq!(found, build(&anew).unwrap(), "{key} {session}");
                        parts += 1;
                    }
                }
            }
        }
        assert!(whole > 500 && parts > 1000 && shared > 100, "{whole} {parts} {shared}");
    }

    #[test]
    fn follows_as_the_graph_does() {
        let mut random = 88;
        let (mut followed, mut refused, mut both) = (0, 0, 0);
        for _ in 0..30_000 {
            let mut text = String::new();
            value(&mut random, 0, &mut text);
            match (super::followed(text.as_bytes()), Graph::of_value(text.as_bytes()).map(|graph| graph.targets())) {
                (Some(targets), Ok(known)) => {
                    followed += usize::from(!known.is_empty());
                    assert_eq!(targets.len(), known.len(), "{text}");
                    for (found, known) in targets.iter().zip(known) {
                        // A case of an enum is one object: the graph names the first, whatever stands there again.
                        let case =
                            text.as_bytes()[found.1 as usize] == b'E' && text[known.1 as usize..].starts_with('E');
                        assert!(*found == known || found.0 == known.0 && case, "{found:?} {known:?} {text}");
                    }
                }
                (Some(_), Err(error)) => panic!("{error}: {text}"),
                (None, Ok(_)) => refused += 1,
                (None, Err(_)) => both += 1,
            }
        }
        assert!(followed > 1000 && refused > 500 && both > 1000, "{followed} {refused} {both}");
    }
}
