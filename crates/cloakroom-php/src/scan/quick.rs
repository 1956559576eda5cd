//! The tokens that sessions are made of, read eight bytes at a time. `None` says nothing about the bytes: whatever is
//! longer, rarer or wrong is left to [`super::thorough`], and what is read here reads the same there.

#![expect(clippy::inline_always, reason = "the walk over a session is made of these")]

use super::thorough::is_class_name;
use super::{Head, RawKey};

/// Eight bytes of which these are compared; a `0` is any byte.
#[derive(Clone, Copy)]
struct Pattern {
    mask: u64,
    bytes: u64,
}

const fn pattern(text: [u8; 8]) -> Pattern {
    let (mut mask, mut at) = ([0xff; 8], 0);
    while at < 8 {
        if text[at] == 0 {
            mask[at] = 0;
        }
        at += 1;
    }
    Pattern { mask: u64::from_le_bytes(mask), bytes: u64::from_le_bytes(text) }
}

impl Pattern {
    #[inline(always)]
    fn fits(self, word: u64) -> bool {
        word & self.mask == self.bytes
    }
}

const STR: Pattern = pattern(*b"s:\0\0\0\0\0\0");
const STR_1: Pattern = pattern(*b"s:\0:\"\0\0\0");
const STR_2: Pattern = pattern(*b"s:\0\0:\"\0\0");
const STR_3: Pattern = pattern(*b"s:\0\0\0:\"\0");
const INT: Pattern = pattern(*b"i:\0\0\0\0\0\0");
const INT_1: Pattern = pattern(*b"i:\0;\0\0\0\0");
const NULL: Pattern = pattern(*b"N;\0\0\0\0\0\0");
const FALSE: Pattern = pattern(*b"b:0;\0\0\0\0");
const TRUE: Pattern = pattern(*b"b:1;\0\0\0\0");
const FLOAT: Pattern = pattern(*b"d:\0\0\0\0\0\0");
const OBJECT_1: Pattern = pattern(*b"O:\0:\"\0\0\0");
const OBJECT_2: Pattern = pattern(*b"O:\0\0:\"\0\0");
const ARRAY: Pattern = pattern(*b"a:\0\0\0\0\0\0");
const ARRAY_1: Pattern = pattern(*b"a:\0:{\0\0\0");
const ARRAY_2: Pattern = pattern(*b"a:\0\0:{\0\0");
const ARRAY_3: Pattern = pattern(*b"a:\0\0\0:{\0");

/// All that begins here, and its first eight bytes.
#[inline(always)]
fn word(buf: &[u8], at: usize) -> Option<(&[u8], u64)> {
    let rest = buf.get(at..)?;
    let word = match rest.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => last_word(buf, rest.len())?,
    };
    Some((rest, word))
}

/// The last few bytes. Behind them there are zeros, which are part of no token.
#[cold]
fn last_word(buf: &[u8], left: usize) -> Option<u64> {
    let word = u64::from_le_bytes(*buf.last_chunk()?);
    u32::try_from(8 * (8 - left)).ok().and_then(|gone| word.checked_shr(gone))
}

/// The digit at this byte; more than 9 if there is none.
#[inline(always)]
fn digit(word: u64, byte: usize) -> usize {
    usize::from((word >> (8 * byte)).to_le_bytes()[0].wrapping_sub(b'0'))
}

/// With how many digits these eight bytes begin.
#[inline(always)]
fn run(word: u64) -> usize {
    let digits = word ^ 0x3030_3030_3030_3030;
    // A byte above 9 gets its highest bit; what is carried from it spoils only bytes behind the first.
    let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
    others.trailing_zeros() as usize / 8
}

/// Where the digits that begin at `at` end.
#[inline(always)]
fn digits(buf: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let n = run(word(buf, at)?.1);
        at += n;
        if n < 8 {
            return Some(at);
        }
    }
}

/// The number of one digit, or of two, behind the tag.
#[inline(always)]
fn one(word: u64) -> Option<usize> {
    Some(digit(word, 2)).filter(|n| *n < 10)
}

#[inline(always)]
fn two(word: u64) -> Option<usize> {
    let (tens, ones) = (digit(word, 2), digit(word, 3));
    if tens < 10 && ones < 10 { Some(10 * tens + ones) } else { None }
}

#[inline(always)]
fn three(word: u64) -> Option<usize> {
    let ones = digit(word, 4);
    if ones < 10 { Some(10 * two(word)? + ones) } else { None }
}

/// The string of so many bytes that begins at this one, and where what follows it begins.
#[inline(always)]
fn text(rest: &[u8], start: usize, len: usize) -> Option<(&[u8], usize)> {
    let end = start + len;
    if rest.get(end..end + 2) == Some(b"\";") { Some((rest.get(start..end)?, end + 2)) } else { None }
}

#[inline(always)]
fn string(rest: &[u8], word: u64) -> Option<(&[u8], usize)> {
    if STR_1.fits(word) {
        text(rest, 5, one(word)?)
    } else if STR_2.fits(word) {
        text(rest, 6, two(word)?)
    } else if STR_3.fits(word) {
        text(rest, 7, three(word)?)
    } else {
        None
    }
}

#[inline(always)]
fn integer(rest: &[u8], word: u64) -> Option<(&[u8], usize)> {
    if INT_1.fits(word) {
        one(word)?;
        return Some((rest.get(2..3)?, 4));
    }
    let mut end = 2 + run(word >> 16);
    if end == 8 {
        end = digits(rest, end)?;
    }
    if end > 2 && rest.get(end) == Some(&b';') { Some((rest.get(2..end)?, end + 1)) } else { None }
}

#[inline(always)]
fn float(rest: &[u8]) -> Option<(&[u8], usize)> {
    let mut end = digits(rest, 2)?;
    if end == 2 {
        return None;
    }
    if rest.get(end) == Some(&b'.') {
        end = digits(rest, end + 1)?;
    }
    if rest.get(end) == Some(&b';') { Some((rest.get(2..end)?, end + 1)) } else { None }
}

#[inline(always)]
fn array(rest: &[u8], word: u64) -> Option<(u32, usize)> {
    let (n, len) = if ARRAY_1.fits(word) {
        (one(word)?, 5)
    } else if ARRAY_2.fits(word) {
        (two(word)?, 6)
    } else if ARRAY_3.fits(word) {
        (three(word)?, 7)
    } else {
        return None;
    };
    if n <= (rest.len() - len) / 2 { Some((u32::try_from(n).ok()?, len)) } else { None }
}

/// An object of fewer than ten properties: its class, their count, and where they begin.
#[inline(always)]
fn object(rest: &[u8], word: u64) -> Option<(&[u8], u32, usize)> {
    let (len, start) = if OBJECT_1.fits(word) {
        (one(word)?, 5)
    } else if OBJECT_2.fits(word) {
        (two(word)?, 6)
    } else {
        return None;
    };
    let (class, behind) = rest.get(start..)?.split_at_checked(len)?;
    let [b'"', b':', digit, b':', b'{', elements @ ..] = behind else { return None };
    let n = digit.wrapping_sub(b'0');
    let fits = n < 10 && usize::from(n) <= elements.len() / 2 && is_class_name(class);
    if fits { Some((class, u32::from(n), start + len + 5)) } else { None }
}

#[inline(always)]
pub(super) fn head(buf: &[u8], at: usize) -> Option<(Head<'_>, usize)> {
    let (rest, word) = word(buf, at)?;
    let (head, len) = if STR.fits(word) {
        let (text, len) = string(rest, word)?;
        (Head::Str(text), len)
    } else if INT.fits(word) {
        let (text, len) = integer(rest, word)?;
        (Head::Int(text), len)
    } else if NULL.fits(word) {
        (Head::Null, 2)
    } else if FALSE.fits(word) || TRUE.fits(word) {
        (Head::Bool(TRUE.fits(word)), 4)
    } else if FLOAT.fits(word) {
        let (text, len) = float(rest)?;
        (Head::Float(text), len)
    } else if ARRAY.fits(word) {
        let (n, len) = array(rest, word)?;
        (Head::Array(n), len)
    } else {
        let (class, n, len) = object(rest, word)?;
        (Head::Object(class, n), len)
    };
    Some((head, at + len))
}

#[inline(always)]
pub(super) fn key(buf: &[u8], at: usize) -> Option<(RawKey<'_>, usize)> {
    let (rest, word) = word(buf, at)?;
    let (key, len) = if STR.fits(word) {
        let (text, len) = string(rest, word)?;
        (RawKey::Str(text), len)
    } else if INT.fits(word) {
        let (text, len) = integer(rest, word)?;
        (RawKey::Int(text), len)
    } else {
        return None;
    };
    Some((key, at + len))
}

/// What comes behind a key; `None` as everywhere here.
#[inline(always)]
fn past_key(rest: &[u8]) -> Option<&[u8]> {
    let word = u64::from_le_bytes(*rest.first_chunk()?);
    if STR.fits(word) {
        past_string(rest, word)
    } else if INT.fits(word) {
        past_integer(rest, word)
    } else {
        None
    }
}

/// What comes behind a value that is no array or object.
#[inline(always)]
fn past_scalar(rest: &[u8], word: u64) -> Option<&[u8]> {
    if STR.fits(word) {
        past_string(rest, word)
    } else if INT.fits(word) {
        past_integer(rest, word)
    } else if NULL.fits(word) {
        rest.get(2..)
    } else if FALSE.fits(word) || TRUE.fits(word) {
        rest.get(4..)
    } else if FLOAT.fits(word) {
        let (_, len) = float(rest)?;
        rest.get(len..)
    } else {
        None
    }
}

#[inline(always)]
fn past_string(rest: &[u8], word: u64) -> Option<&[u8]> {
    let start = if STR_1.fits(word) {
        5 + one(word)?
    } else if STR_2.fits(word) {
        6 + two(word)?
    } else if STR_3.fits(word) {
        7 + three(word)?
    } else {
        return None;
    };
    rest.get(start..)?.strip_prefix(b"\";")
}

#[inline(always)]
fn past_integer(rest: &[u8], word: u64) -> Option<&[u8]> {
    if INT_1.fits(word) {
        one(word)?;
        return rest.get(4..);
    }
    let (_, len) = integer(rest, word)?;
    rest.get(len..)
}

/// Where a walk stands that has passed over plain elements.
pub(super) struct Skimmed {
    pub(super) at: usize,
    /// Elements still to come in this array.
    pub(super) left: u32,
    /// Before a value whose key has been read.
    pub(super) before_value: bool,
}

/// Passes over elements of an array, as long as neither key nor value needs a second look.
#[inline(always)]
pub(super) fn skim(buf: &[u8], at: usize, mut left: u32) -> Skimmed {
    let mut rest = buf.get(at..).unwrap_or_default();
    let mut before_value = false;
    while left > 0 {
        let Some(value) = past_key(rest) else { break };
        left -= 1;
        let word = value.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let Some(next) = word.and_then(|word| past_scalar(value, word)) else {
            rest = value;
            before_value = true;
            break;
        };
        rest = next;
    }
    Skimmed { at: buf.len() - rest.len(), left, before_value }
}

/// Where what follows this key begins.
#[inline(always)]
pub(crate) fn behind_key(buf: &[u8], at: usize) -> Option<usize> {
    Some(buf.len() - past_key(buf.get(at..)?)?.len())
}

/// Where what follows this value begins, if it is no array or object.
#[inline(always)]
pub(crate) fn behind_scalar(buf: &[u8], at: usize) -> Option<usize> {
    let (rest, word) = word(buf, at)?;
    Some(buf.len() - past_scalar(rest, word)?.len())
}

/// A string, and where what follows it begins.
#[inline(always)]
pub(crate) fn plain_string(buf: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (rest, word) = word(buf, at)?;
    let (text, len) = if STR.fits(word) { string(rest, word)? } else { return None };
    Some((text, at + len))
}

/// An integer, and where what follows it begins.
#[inline(always)]
pub(crate) fn plain_integer(buf: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (rest, word) = word(buf, at)?;
    let (text, len) = if INT.fits(word) { integer(rest, word)? } else { return None };
    Some((text, at + len))
}

/// A float, and where what follows it begins.
#[inline(always)]
pub(crate) fn plain_float(buf: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (rest, word) = word(buf, at)?;
    let (text, len) = if FLOAT.fits(word) { float(rest)? } else { return None };
    Some((text, at + len))
}

/// An array's count, and where its elements begin.
#[inline(always)]
pub(crate) fn opening(buf: &[u8], at: usize) -> Option<(u32, usize)> {
    let (rest, word) = word(buf, at)?;
    array(rest, word).map(|(n, len)| (n, at + len))
}

/// How many bytes come before the first `|`.
#[inline]
pub(crate) fn until_bar(rest: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Keys of sessions are short; for longer ones others have better means.
    for (at, bytes) in rest.as_chunks::<8>().0.iter().take(4).enumerate() {
        let word = u64::from_le_bytes(*bytes) ^ (ONES * 0x7c);
        let bars = word.wrapping_sub(ONES) & !word & (ONES << 7);
        if bars != 0 {
            return Some(8 * at + bars.trailing_zeros() as usize / 8);
        }
    }
    memchr::memchr(b'|', rest)
}

#[cfg(test)]
mod tests {
    use crate::random::Random;

    use super::super::{Sink, Walker, thorough};
    use super::*;

    /// A sink that wants to be told everything.
    struct Seeing;
    impl Sink<'_> for Seeing {}

    /// Arrays of all that is common, most of them with one byte wrong, some cut off.
    fn damaged(random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = random(14) * (1 + 9 * usize::from(random(8) == 0));
        bytes.extend_from_slice(format!("a:{count}:{{").as_bytes());
        for n in 0..count {
            let text = "x".repeat([random(12), random(120), random(1200)][random(3)]);
            let number = "31415926535897932384"[..=random(20)].to_owned();
            let key = match random(4) {
                0 => format!("s:{}:\"{text}\";", text.len()),
                1 => format!("i:{number};"),
                2 => format!("i:-{n};"),
                _ => format!("i:{n};"),
            };
            let value = match random(9) {
                0 => "N;".to_owned(),
                1 => format!("b:{};", random(3)),
                2 => format!("i:{number};"),
                3 => format!("d:{number}.{number};"),
                4 => format!("d:{};", ["-1", "1e5", ".5", "5.", "NAN", "", "1.5E+7"][random(7)]),
                5 => "a:1:{i:0;N;}".to_owned(),
                6 => format!(
                    "O:{}:\"{}\":{}:{{}}",
                    ["1", "4", "14"][random(3)],
                    ["c", "A\\\\b", "n\\\\\u{e4}\u{f6}\u{fc}xyz_1"][random(3)],
                    random(2)
                ),
                _ => format!("s:{}:\"{text}\";", text.len()),
            };
            bytes.extend_from_slice((key + &value).as_bytes());
        }
        bytes.push(b'}');
        if random(3) > 0 {
            let at = random(bytes.len());
            bytes[at] = b"0123456789:;\"{}aisdbN/\0"[random(23)];
        }
        if random(4) == 0 {
            bytes.truncate(random(bytes.len()));
        }
        bytes
    }

    #[test]
    fn what_is_read_quickly_reads_the_same_thoroughly() {
        let mut random = Random::new(99);
        let mut random = |below| random.below(below);
        let (mut heads, mut keys, mut whole, mut wrong) = (0, 0, 0, 0);
        for _ in 0..40_000 {
            let bytes = damaged(&mut random);
            for at in (0..bytes.len().min(400)).chain([bytes.len(), bytes.len() + 3]) {
                if let Some(found) = head(&bytes, at) {
                    assert_eq!(thorough::head(&bytes, at).ok(), Some(found));
                    heads += 1;
                }
                if let Some(found) = key(&bytes, at) {
                    assert_eq!(thorough::key(&bytes, at).ok(), Some(found));
                    keys += 1;
                }
            }
            let (blind, seeing) =
                (Walker::default().value(&bytes, 0, 0, &mut ()), Walker::default().value(&bytes, 0, 0, &mut Seeing));
            match (blind, seeing) {
                (Ok(blind), Ok(seeing)) => {
                    assert_eq!(blind, seeing);
                    whole += 1;
                }
                (Err(blind), Err(seeing)) => {
                    assert_eq!((blind.kind, blind.at, blind.what), (seeing.kind, seeing.at, seeing.what));
                    wrong += 1;
                }
                (blind, seeing) => panic!("{blind:?} {seeing:?} {}", bytes.escape_ascii()),
            }
        }
        assert!(heads > 100_000 && keys > 100_000 && whole > 5000 && wrong > 5000, "{heads} {keys} {whole} {wrong}");
    }

    #[test]
    fn a_bar_is_found_wherever_it_stands() {
        for len in 0..100 {
            let mut bytes = vec![b'}'; len];
            assert_eq!(until_bar(&bytes), None);
            bytes.extend_from_slice(b"|x|");
            assert_eq!(until_bar(&bytes), Some(len));
            bytes.iter_mut().take(len).for_each(|byte| *byte = 0xfc);
            assert_eq!(until_bar(&bytes), Some(len));
        }
    }
}
