//! Rust text without its comments and literals, so that rules see code only.

/// The same text, line for line and byte for byte, with blanks for everything in comments, strings and characters.
pub(super) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while let Some(rest) = bytes.get(out.len()..).filter(|rest| !rest.is_empty()) {
        let after_word = out.last().is_some_and(|&b: &u8| b.is_ascii_alphanumeric() || b == b'_');
        let length = comment(rest).or_else(|| string(rest, after_word)).or_else(|| character(rest));
        match length {
            Some(length) => {
                let blanked = &rest[..length.min(rest.len())];
                out.extend(blanked.iter().map(|&b| if b == b'\n' { b'\n' } else { b' ' }));
            }
            None => out.push(rest[0]),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn comment(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"//") {
        return Some(rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with(b"/*") {
        return None;
    }
    let (mut at, mut depth) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return Some(at);
            }
        } else {
            at += 1;
        }
    }
    Some(rest.len())
}

/// `"..."` or, where no word runs into it, `r#"..."#`. The `b` or `c` before either stays as code.
fn string(rest: &[u8], after_word: bool) -> Option<usize> {
    if rest[0] == b'"' {
        return Some(quoted(rest, b'"'));
    }
    let prefix = usize::from(matches!(rest[0], b'b' | b'c'));
    if after_word || rest.get(prefix) != Some(&b'r') {
        return None;
    }
    let hashes = rest[prefix + 1..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[open + 1..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| open + 1 + end + close.len()))
}

/// `'x'`, `'\n'`, but not a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest[0] != b'\'' {
        return None;
    }
    if rest.get(1) == Some(&b'\\') {
        return Some(quoted(rest, b'\''));
    }
    let length = match *rest.get(1)? {
        0..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0.. => 4,
    };
    (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

/// The length of what begins with a quote and ends with the next one that is not escaped.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are left.
    fn left(text: &str) -> Vec<String> {
        let code = code(text);
        assert_eq!(code.len(), text.len(), "{text}");
        assert_eq!(code.lines().count(), text.lines().count(), "{text}");
        code.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn comments_are_blank() {
        assert_eq!(left("a // no\nb /* no /* no */\nno */ c"), ["a", "b", "c"]);
        assert_eq!(left("/* no end"), [""; 0]);
        assert_eq!(left("//! no\n/// no"), [""; 0]);
    }

    #[test]
    fn literals_are_blank() {
        assert_eq!(left(r#"a "no // \" no" b"#), ["a", "b"]);
        assert_eq!(left("a r#\"no \" no\"# b"), ["a", "b"]);
        assert_eq!(left("br##\"no\"# no\"## b"), ["b"]);
        assert_eq!(left("a \"no\nno\" b"), ["a", "b"]);
        assert_eq!(left("f('\"', b'\\'', '\u{20ac}') g"), ["f(", ",", "b", ",", ")", "g"]);
        assert_eq!(left("\"no end"), [""; 0]);
        assert_eq!(left("'\\"), [""; 0]);
    }

    #[test]
    fn lifetimes_and_names_stay() {
        assert_eq!(left("<'a> &'a str"), ["<'a>", "&'a", "str"]);
        assert_eq!(left("r#type bar \"no\""), ["r#type", "bar"]);
    }
}
