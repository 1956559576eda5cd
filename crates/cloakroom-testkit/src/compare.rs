//! Comparing two transcripts, and what cloakroom is expected to answer: PHP's answers with the deliberate differences patched in.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::play::{Answer, Transcript};
use crate::scenario::{Patch, Scenario};
use crate::times;

/// One place in which an answer is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The answer, counted from 0.
    pub answer: usize,
    /// What differs: `status`, `header 2`, `result 3 ["get","n"]`, `store sess_x bytes`, ...
    pub what: String,
    /// As it should be.
    pub expected: String,
    /// As it is.
    pub got: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answer {}, {}\n    expected {}\n    got      {}", self.answer, self.what, self.expected, self.got)
    }
}

/// What cloakroom shall answer to this scenario, given what PHP answers.
pub fn expected_of_cloakroom(scenario: &Scenario, php: &Transcript) -> Transcript {
    let patches = scenario.differs.as_ref().map_or(&[][..], |differs| &differs.expect);
    patched(php, patches)
}

/// The transcript with the patches applied.
pub fn patched(transcript: &Transcript, patches: &[Patch]) -> Transcript {
    let mut out = transcript.clone();
    for patch in patches {
        let Some(answer) = out.answers.get_mut(patch.answer) else { continue };
        if let Some(headers) = &patch.headers {
            answer.headers.clone_from(headers);
        }
        for (&op, result) in &patch.results {
            if let Some(slot) = answer.results.get_mut(op) {
                slot.clone_from(result);
            }
        }
        let store = answer.store.get_or_insert_default();
        for (name, entry) in &patch.store {
            match entry {
                Some(entry) => store.insert(name.clone(), entry.clone()),
                None => store.remove(name),
            };
        }
        if patch.refused.is_some() {
            answer.refused.clone_from(&patch.refused);
        }
    }
    out
}

/// Every difference between the expected transcript and the other one. `scenario` gives the ops their names.
pub fn compare(scenario: &Scenario, expected: &Transcript, got: &Transcript) -> Vec<Difference> {
    let ops: Vec<&[Value]> = scenario
        .requests
        .iter()
        .flat_map(|request| std::iter::once(request).chain(&request.meanwhile))
        .map(|request| request.ops.as_slice())
        .collect();
    let mut out = Vec::new();
    if expected.answers.len() != got.answers.len() {
        let text = |n: usize| format!("{n} answers");
        out.push(Difference {
            answer: 0,
            what: "transcript".into(),
            expected: text(expected.answers.len()),
            got: text(got.answers.len()),
        });
    }
    for (n, (a, b)) in expected.answers.iter().zip(&got.answers).enumerate() {
        let mut push =
            |what: String, expected: String, got: String| out.push(Difference { answer: n, what, expected, got });
        compare_answers(ops.get(n).copied().unwrap_or_default(), a, b, &mut push);
    }
    out
}

fn compare_answers(ops: &[Value], a: &Answer, b: &Answer, push: &mut impl FnMut(String, String, String)) {
    if a.status != b.status {
        push("status".into(), a.status.to_string(), b.status.to_string());
    }
    if a.body != b.body {
        let text = |body: &Option<String>| body.clone().unwrap_or_else(|| "a body as the contract says".into());
        push("body".into(), text(&a.body), text(&b.body));
    }
    let nothing = || "(nothing)".to_owned();
    let (a_headers, b_headers) = (by_name(&a.headers), by_name(&b.headers));
    for n in 0..a_headers.len().max(b_headers.len()) {
        match (a_headers.get(n), b_headers.get(n)) {
            (Some(x), Some(y)) if times::alike(x, y) => {}
            (x, y) => push(
                format!("header {n}"),
                x.map_or_else(nothing, ToString::to_string),
                y.map_or_else(nothing, ToString::to_string),
            ),
        }
    }
    for n in 0..a.results.len().max(b.results.len()) {
        let (x, y) = (a.results.get(n), b.results.get(n));
        if x != y {
            let op = ops.get(n).map_or_else(String::new, Value::to_string);
            let text = |value: Option<&Value>| value.map_or_else(nothing, Value::to_string);
            push(format!("result {n} {op}"), text(x), text(y));
        }
    }
    // The contract has no place for it, so a server that does not tell is not asked.
    if let Some(refused) = &b.refused {
        let wanted = a.refused.clone().unwrap_or_default();
        if &wanted != refused {
            push("refused".into(), wanted.join(" "), refused.join(" "));
        }
    }
    if let (Some(x), Some(y)) = (&a.store, &b.store) {
        let names: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
        for name in names {
            let (x, y) = (x.get(name), y.get(name));
            if !matches!((x, y), (Some(x), Some(y)) if x.is_like(y)) {
                let text = |entry| serde_json::to_string(&entry).unwrap_or_default();
                push(format!("store {name}"), text(x), text(y));
            }
        }
    }
}

/// The lines in the order of their names, lines of one name in their own order. PHP's order among different names depends on which of
/// them were replaced (a rotated cookie stands after the cache headers); nobody reads it, and other servers keep headers in a map.
fn by_name(headers: &[String]) -> Vec<&str> {
    let mut lines: Vec<&str> = headers.iter().map(String::as_str).collect();
    lines.sort_by_key(|line| line.split(':').next());
    lines
}
