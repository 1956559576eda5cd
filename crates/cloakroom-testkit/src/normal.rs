//! What differs from run to run gets a name: generated ids, the scenario's directory, times.
//!
//! A generated id is one that the scenario's own text does not contain. The first one seen becomes `<id1 32x4>` (32 characters of
//! 4 bits), the second `<id2 ...>`; so an answer says which id stands where, and of what form it is, but not which random bytes it has.

use serde_json::Value;

use crate::play::Answer;
use crate::times;

/// The names given so far in one run of one scenario.
#[derive(Debug)]
pub struct Names {
    root: String,
    known: String,
    ids: Vec<String>,
    /// A server's address, and what stands for it.
    place: Option<(&'static str, String)>,
}

impl Names {
    /// Names for a run in the directory `root`; `known` is the scenario's text.
    pub fn new(root: String, known: String) -> Self {
        Self { root, known, ids: Vec::new(), place: None }
    }

    /// A further placeholder, and what it stands for.
    pub fn place(&mut self, place: (&'static str, String)) {
        self.place = Some(place);
    }

    /// Fills in the placeholders of a scenario's text.
    pub fn fill(&self, text: &str) -> String {
        let mut text = text.replace("{save_path}", "{root}/sessions").replace("{root}", &self.root);
        if let Some((placeholder, address)) = &self.place {
            text = text.replace(placeholder, address);
        }
        for (n, id) in self.ids.iter().enumerate() {
            text = text.replace(&format!("{{id{}}}", n + 1), id);
        }
        text
    }

    /// Fills in the placeholders of every text in a JSON value.
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(values) => values.iter().map(|value| self.fill_value(value)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.fill_value(value))).collect(),
            other => other.clone(),
        }
    }

    /// Gives names to all that is new in an answer. `ops` are the ops as sent, `now` is when.
    pub fn normalise(&mut self, answer: &mut Answer, ops: &[Value], now: i64) {
        self.find(answer, ops);
        let max_age = answer
            .headers
            .iter()
            .find_map(|line| line.strip_prefix("Cache-Control: "))
            .and_then(|v| number_after(v, "max-age="));
        for line in &mut answer.headers {
            *line = relative_times(line, now, max_age);
            *line = self.rename(line, true);
        }
        for value in answer.results.iter_mut().chain(&mut answer.said) {
            self.rename_value(value);
        }
        answer.body = answer.body.take().map(|text| self.rename(&text, false));
        if let Some(store) = answer.store.take() {
            let renamed = store.into_iter().map(|(name, mut entry)| {
                entry.bytes = entry.bytes.map(|bytes| self.rename(&bytes, false));
                (self.rename(&name, false), entry)
            });
            answer.store = Some(renamed.collect());
        }
    }

    /// Looks for ids where ids stand: cookies, the results of ops that give ids, file names.
    fn find(&mut self, answer: &Answer, ops: &[Value]) {
        for line in &answer.headers {
            if let Some((_, value)) = line.strip_prefix("Set-Cookie: ").and_then(|cookie| cookie.split_once('=')) {
                self.meet(&value.split(';').next().unwrap_or_default().replace("%2C", ","));
            }
        }
        for (op, result) in ops.iter().zip(&answer.results) {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            if matches!(text(op.get(0)).as_str(), "id" | "set_id" | "create_id" | "rotate") {
                let id = text(result.get("value"));
                self.meet(id.strip_prefix(&text(op.get(1))).unwrap_or(&id));
            }
        }
        for name in answer.store.iter().flat_map(|store| store.keys()) {
            let id = match name.rsplit_once("sess_") {
                Some((_, id)) => id,
                None if self.place.is_none() => continue,
                // Keys end with the id, or with the id and what makes it the key of a lock.
                None => name.trim_end_matches("_LOCK").rsplit([':', '.', '_']).next().unwrap_or_default(),
            };
            self.meet(id);
        }
    }

    fn meet(&mut self, id: &str) {
        let like_an_id = (22..=256).contains(&id.len()) && bits(id).is_some();
        if like_an_id && !self.known.contains(id) && !self.ids.iter().any(|one| one == id) {
            self.ids.push(id.to_owned());
        }
    }

    fn rename(&self, text: &str, encoded: bool) -> String {
        let mut text = text.replace(&format!("{}/sessions", self.root), "{save_path}").replace(&self.root, "{root}");
        if let Some((placeholder, address)) = &self.place {
            text = text.replace(address, placeholder);
        }
        for (n, id) in self.ids.iter().enumerate() {
            let form = format!("<id{} {}x{}>", n + 1, id.len(), bits(id).unwrap_or(0));
            text =
                if encoded { text.replace(&id.replace(',', "%2C"), &form) } else { text.replace(id.as_str(), &form) };
        }
        text
    }

    fn rename_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.rename(text, false),
            Value::Array(values) => values.iter_mut().for_each(|value| self.rename_value(value)),
            Value::Object(map) => map.values_mut().for_each(|value| self.rename_value(value)),
            _ => {}
        }
    }
}

/// How many bits a character of this id carries: the smallest of PHP's three alphabets that has them all.
fn bits(id: &str) -> Option<u8> {
    let all = |test: fn(u8) -> bool| id.bytes().all(test);
    match () {
        () if all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => Some(4),
        () if all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v')) => Some(5),
        () if all(|b| b.is_ascii_alphanumeric() || b == b',' || b == b'-') => Some(6),
        () => None,
    }
}

fn relative_times(line: &str, now: i64, max_age: Option<i64>) -> String {
    if let Some(date) = line.strip_prefix("Expires: ") {
        return format!("Expires: {}", times::relative(date, now, max_age));
    }
    if line.starts_with("Set-Cookie: ")
        && let Some((before, rest)) = line.split_once("; expires=")
    {
        let (date, after) =
            rest.split_once(';').map_or((rest, String::new()), |(date, after)| (date, format!(";{after}")));
        return format!("{before}; expires={}{after}", times::relative(date, now, number_after(&after, "Max-Age=")));
    }
    line.to_owned()
}

fn number_after(text: &str, label: &str) -> Option<i64> {
    let (_, rest) = text.split_once(label)?;
    let end =
        rest.char_indices().find(|&(i, c)| !(c.is_ascii_digit() || i == 0 && c == '-')).map_or(rest.len(), |(i, _)| i);
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Names, bits};

    #[test]
    fn the_alphabet_tells_the_bits() {
        assert_eq!(
            (bits("0123abcf"), bits("0v"), bits("0w"), bits("A,-"), bits("a_b")),
            (Some(4), Some(5), Some(6), Some(6), None)
        );
    }

    #[test]
    fn ids_of_the_scenario_itself_keep_their_text() {
        let mut names = Names::new("/tmp/x".into(), "PHPSESSID=abcdefghijklmnopqrstuvwxyz012345".into());
        names.meet("abcdefghijklmnopqrstuvwxyz012345");
        names.meet("0123456789abcdef0123456789abcdef");
        assert_eq!(
            names.rename("sess_0123456789abcdef0123456789abcdef in /tmp/x/sessions", false),
            "sess_<id1 32x4> in {save_path}"
        );
        assert_eq!(names.fill("{id1} {save_path}"), "0123456789abcdef0123456789abcdef /tmp/x/sessions");
    }
}
