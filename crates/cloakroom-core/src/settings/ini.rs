//! The text of a php.ini (`Zend/zend_ini_scanner.l`), as far as `session.*` needs it, and how PHP reads numbers and
//! switches in it.

use std::collections::HashMap;

/// One setting of an ini file.
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) value: String,
}

/// The settings of an ini file in their order; comments are passed over, and what stands in sections for single
/// directories and hosts. `${NAME}` is what an earlier line has set, or what `environment` knows.
pub(super) fn lines<'a>(
    text: &'a str,
    environment: impl Fn(&str) -> Option<String> + 'a,
) -> impl Iterator<Item = Line> + 'a {
    let mut elsewhere = false;
    let mut earlier = HashMap::new();
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            // Only these two kinds of sections mean anything to PHP.
            let kind = section.get(..4).unwrap_or_default().to_ascii_uppercase();
            elsewhere = kind == "PATH" || kind == "HOST";
        }
        if elsewhere || line.is_empty() || line.starts_with([';', '#', '[']) {
            return None;
        }
        let (name, value) = line.split_once('=')?;
        let known = |name: &str| earlier.get(name).cloned().or_else(|| environment(name));
        let (name, value) = (name.trim().to_owned(), unquote(value.trim(), known));
        earlier.insert(name.clone(), value.clone());
        Some(Line { number: index + 1, name, value })
    })
}

fn unquote(value: &str, known: impl Fn(&str) -> Option<String>) -> String {
    if let Some(rest) = value.strip_prefix('\'') {
        return rest.split_once('\'').map_or(rest, |(inside, _)| inside).to_owned();
    }
    if let Some(rest) = value.strip_prefix('"') {
        return expand(rest.split_once('"').map_or(rest, |(inside, _)| inside), known);
    }
    let bare = value.split_once(';').map_or(value, |(value, _)| value).trim_end();
    match bare.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" => "1".into(),
        "off" | "no" | "false" | "none" | "null" => String::new(),
        _ => expand(bare, known),
    }
}

/// Puts in what `${NAME}` stands for: nothing if nobody knows it, or what follows `:-`, as since PHP 8.3.
fn expand(text: &str, known: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, (inside, after))) =
        rest.split_once("${").and_then(|(before, from)| Some((before, from.split_once('}')?)))
    {
        let (name, otherwise) = inside.split_once(":-").unwrap_or((inside, ""));
        expanded.push_str(before);
        expanded.push_str(&known(name).unwrap_or_else(|| otherwise.to_owned()));
        rest = after;
    }
    expanded.push_str(rest);
    expanded
}

/// `zend_ini_parse_bool`.
pub(super) fn boolean(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "on" | "yes" | "true") || leading_integer(value) != 0
}

/// `zend_ini_parse_quantity`: an integer, also with a prefix `0x`, `0o` or `0b`, with an optional factor `K`, `M` or `G`
/// as its last character; whatever else follows the digits is passed over.
pub(super) fn quantity(value: &str) -> i64 {
    let value = value.trim();
    let factor = match value.bytes().last() {
        Some(b'k' | b'K') => 1 << 10,
        Some(b'm' | b'M') => 1 << 20,
        Some(b'g' | b'G') => 1 << 30,
        _ => 1,
    };
    digits(value).0.wrapping_mul(factor)
}

/// Whether PHP reads a quantity without a warning.
pub(super) fn is_quantity(value: &str) -> bool {
    let value = value.trim();
    let (_, rest) = digits(value);
    value.is_empty() || (rest.len() < value.len() && matches!(rest.trim(), "" | "k" | "K" | "m" | "M" | "g" | "G"))
}

/// C's `atol`, saturating: optional blanks and sign, then digits for as long as there are any.
pub(super) fn leading_integer(value: &str) -> i64 {
    let (negative, unsigned) = sign(value.trim_start());
    let (magnitude, _) = magnitude(unsigned, 10);
    if negative { -magnitude } else { magnitude }
}

/// An integer in one of PHP's bases, and what follows it; all of the text if there is none.
fn digits(value: &str) -> (i64, &str) {
    let (negative, unsigned) = sign(value);
    let prefix = unsigned.get(..2).map(str::to_ascii_lowercase);
    let (body, base) = match prefix.as_deref() {
        Some("0x") => (&unsigned[2..], 16),
        Some("0o") => (&unsigned[2..], 8),
        Some("0b") => (&unsigned[2..], 2),
        // A leading zero makes it octal, as in C.
        _ if unsigned.starts_with('0') => (unsigned, 8),
        _ => (unsigned, 10),
    };
    let (magnitude, rest) = magnitude(body, base);
    let rest = if rest.len() == body.len() { value } else { rest };
    (if negative { -magnitude } else { magnitude }, rest)
}

fn sign(value: &str) -> (bool, &str) {
    match value.as_bytes().first() {
        Some(b'-') => (true, &value[1..]),
        Some(b'+') => (false, &value[1..]),
        _ => (false, value),
    }
}

fn magnitude(text: &str, base: u32) -> (i64, &str) {
    let end = text.find(|digit: char| !digit.is_digit(base)).unwrap_or(text.len());
    let digits = text[..end].chars().filter_map(|digit| digit.to_digit(base));
    let number =
        digits.fold(0_i64, |number, digit| number.saturating_mul(i64::from(base)).saturating_add(i64::from(digit)));
    (number, &text[end..])
}

/// PHP's `is_numeric` of a text.
pub(super) fn is_numeric(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    // Rust also takes words such as "inf", which PHP does not.
    text.bytes().any(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'))
        && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_switches_as_php_does() {
        let read = ["1h", " 12 ", "2K", "-3", "x", "0x10", "1.9", "010", "0b11", ""].map(quantity);
        assert_eq!(read, [1, 12, 2048, -3, 0, 16, 1, 8, 3, 0]);
        assert!(["1", " 2K", "", "-3", "0x10"].iter().all(|text| is_quantity(text)));
        assert!(["1h", "x", "1.9", "0x"].iter().all(|text| !is_quantity(text)));
        assert!(["1", "on", "Yes", "TRUE", "-1"].iter().all(|text| boolean(text)));
        assert!(["0", "", "off", "no", "x"].iter().all(|text| !boolean(text)));
        assert!(["0", "1e3", " 1", "1 ", "-.5"].iter().all(|text| is_numeric(text)));
        assert!(["", "abc", "0x1A", "1a", "inf", "nan", "."].iter().all(|text| !is_numeric(text)));
    }

    #[test]
    fn passes_over_what_is_for_single_directories_and_hosts() {
        let text = "[PATH=/blog]\nsession.name=A\n[host=x]\nsession.name=B\n[Session]\nsession.name=C\n";
        assert_eq!(lines(text, |_| None).map(|line| line.value).collect::<Vec<_>>(), ["C"]);
    }

    #[test]
    fn puts_in_what_the_environment_and_earlier_lines_say() {
        let text = "a = ${FOO}x\nb=\"/tmp/${FOO}/${NOPE}y\"\nc='${FOO}'\nd=${a}${NOPE:-z}\ne=${FOO\n";
        let environment = |name: &str| (name == "FOO").then(|| "bar".to_owned());
        let values: Vec<_> = lines(text, environment).map(|line| line.value).collect();
        assert_eq!(values, ["barx", "/tmp/bar/y", "${FOO}", "barxz", "${FOO"]);
    }

    #[test]
    fn reads_lines() {
        let text =
            "; c\n[Session]\nsession.name = \"A;B\" ; c\nsession.save_path=/tmp;x\n  session.use_cookies = On\nbare\n";
        let found: Vec<_> = lines(text, |_| None).map(|line| (line.number, line.name, line.value)).collect();
        let expect = [(3, "session.name", "A;B"), (4, "session.save_path", "/tmp"), (5, "session.use_cookies", "1")];
        assert_eq!(found, expect.map(|(number, name, value)| (number, name.to_owned(), value.to_owned())));
    }
}
