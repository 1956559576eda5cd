//! Bytes as text. Strings are short, and to check each by itself takes longer than to check all that lies between them
//! with them.

use crate::error::{Error, ErrorKind, Result};

pub(super) fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::new(ErrorKind::Utf8, "a string that is not UTF-8, asked for as text"))
}

/// How far behind a string is looked at the most, and how far from one to the next: whoever asks for few strings among
/// many does not pay for all.
const AHEAD: usize = 1024;
const NEAR: usize = 256;

/// A stretch of the bytes that is known to be UTF-8.
#[derive(Default)]
pub(super) struct Checked<'a> {
    start: usize,
    text: &'a str,
    ahead: usize,
}

impl<'a> Checked<'a> {
    /// The bytes from here to there as text.
    #[inline]
    pub(super) fn text(&mut self, buf: &'a [u8], start: usize, end: usize) -> Result<&'a str> {
        let known = start.checked_sub(self.start).and_then(|from| self.text.get(from..end - self.start));
        match known {
            Some(text) => Ok(text),
            None => self.check(buf, start, end),
        }
    }

    #[inline(never)]
    fn check(&mut self, buf: &'a [u8], start: usize, end: usize) -> Result<&'a str> {
        let near = start.checked_sub(self.start + self.text.len()).is_some_and(|gap| gap <= NEAR);
        self.ahead = if near { (2 * self.ahead + NEAR).min(AHEAD) } else { 0 };
        let mut until = (end + self.ahead).min(buf.len());
        // Not into the middle of a character.
        while until > end && buf.get(until).is_some_and(|byte| byte & 0xc0 == 0x80) {
            until -= 1;
        }
        let found = match std::str::from_utf8(&buf[start..until]) {
            Ok(text) => text,
            Err(_) => text(&buf[start..end])?,
        };
        (self.start, self.text) = (start, found);
        Ok(&found[..end - start])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_is_checked_together_is_text_where_each_is() {
        let mut random = Random::new(3);
        let mut random = |below| random.below(below);
        let (mut good, mut bad) = (0, 0);
        for _ in 0..3000 {
            let mut buf = Vec::new();
            let mut strings = Vec::new();
            for _ in 0..random(60) {
                let text = ["abc", "\u{e4}\u{1f600}", "", "x", "a long text, but not too long: \u{20ac}"][random(5)];
                let start = buf.len();
                buf.extend_from_slice(text.as_bytes());
                if random(40) == 0 {
                    buf.push([0xff, 0xc3, 0xf0, 0x80][random(4)]);
                }
                strings.push((start, buf.len()));
                buf.extend(std::iter::repeat_n(b';', 1 + random(100)));
            }
            let mut checked = Checked::default();
            for (start, end) in strings {
                if random(3) == 0 {
                    continue;
                }
                let known = std::str::from_utf8(&buf[start..end]).ok();
                assert_eq!(checked.text(&buf, start, end).ok(), known);
                *if known.is_some() { &mut good } else { &mut bad } += 1;
            }
        }
        assert!(good > 10_000 && bad > 500, "{good} {bad}");
    }
}
