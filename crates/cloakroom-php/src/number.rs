//! Numbers as PHP writes and reads them: `smart_str_append_double` and `zend_gcvt` (`main/snprintf.c`) for floats,
//! `parse_iv2` of `var_unserializer.re` for integers.

use std::io::Write as _;

/// PHP's `serialize_precision`: how many digits of a float are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// `-1`, PHP's default: the fewest digits that read back as the same float.
    #[default]
    Shortest,
    /// That many significant digits; `17` was the default up to PHP 7.0.
    Digits(u8),
}

/// An integer's text as PHP takes it: out of range is clamped. The text is known to be `[+-]?[0-9]*`.
pub(crate) fn parse_int(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    };
    if digits.len() <= 18 {
        let n = digits.iter().fold(0_i64, |n, d| n * 10 + i64::from(d - b'0'));
        return if negative { -n } else { n };
    }
    let mut n: i64 = 0;
    for &digit in digits {
        let digit = i64::from(digit - b'0');
        n = n.saturating_mul(10);
        n = if negative { n.saturating_sub(digit) } else { n.saturating_add(digit) };
    }
    n
}

/// A float's text, known to fit PHP's grammar, as `zend_strtod` reads it.
pub(crate) fn parse_float(text: &[u8]) -> f64 {
    match text {
        b"NAN" => f64::NAN,
        b"INF" => f64::INFINITY,
        b"-INF" => f64::NEG_INFINITY,
        _ => short_float(text)
            .or_else(|| std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()))
            .unwrap_or(f64::NAN),
    }
}

const TENS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Up to fifteen digits with a point among them: both numbers are floats exactly, and so division rounds but once.
fn short_float(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if digits.len() > 16 {
        return None;
    }
    let (mut n, mut count, mut behind) = (0_u64, 0, None);
    for &byte in digits {
        match byte.wrapping_sub(b'0') {
            digit @ 0..=9 => {
                n = 10 * n + u64::from(digit);
                count += 1;
            }
            _ if byte == b'.' && behind.is_none() => behind = Some(count),
            _ => return None,
        }
    }
    if count == 0 || count > 15 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "below 10^15 nothing is lost")]
    let value = n as f64 / TENS[count - behind.unwrap_or(count)];
    Some(if negative { -value } else { value })
}

/// A positive float as an integer of at most fifteen digits, and how many of them stand behind the point. No two
/// texts of so few digits are the same float, so the one that gives it back is the shortest.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::float_cmp,
    reason = "below 10^15 nothing is lost, and only the same float will do"
)]
fn few_digits(value: f64) -> Option<(i64, usize)> {
    for (places, ten) in TENS.iter().enumerate().take(7) {
        let scaled = value * ten;
        if scaled >= 999_999_999_999_999.0 {
            return None;
        }
        let n = (scaled + 0.5) as i64;
        if n as f64 / ten == value {
            return Some((n, places));
        }
    }
    None
}

/// Appends a float as `serialize()` writes it, without `d:` and `;`.
pub(crate) fn write_float(out: &mut Vec<u8>, value: f64, precision: Precision) {
    if value.is_nan() {
        return out.extend_from_slice(b"NAN");
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let value = value.abs();
    if value.is_infinite() {
        return out.extend_from_slice(b"INF");
    }
    if precision == Precision::Shortest
        && let Some((n, places)) = few_digits(value)
    {
        let mut buffer = itoa::Buffer::new();
        let all = buffer.format(n).as_bytes();
        let zeros = all.iter().skip(1).rev().take_while(|digit| **digit == b'0').count();
        #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "both have two digits")]
        let exponent = all.len() as i32 - 1 - places as i32;
        return shape(out, &all[..all.len() - zeros], exponent, 17);
    }
    // `D.DDDe-X`: Rust's shortest and exact digits are the ones that zend_dtoa finds in modes 0 and 2.
    let mut buffer = [0_u8; 300];
    let mut rest = &mut buffer[..];
    let (written, limit) = match precision {
        Precision::Shortest => (write!(rest, "{value:e}"), 17),
        Precision::Digits(n) => (write!(rest, "{value:.*e}", usize::from(n.max(1)) - 1), usize::from(n)),
    };
    debug_assert!(written.is_ok(), "256 digits and an exponent fit");
    let unused = rest.len();
    let text = &buffer[..buffer.len() - unused];
    let e = memchr::memrchr(b'e', text).unwrap_or(text.len());
    // Halfway between two shortest texts Rust takes the upper, PHP the even one. Only longer texts can be so close.
    let mut even = [0_u8; 40];
    let (text, e) = if precision == Precision::Shortest && e > 15 && text[e - 1] % 2 == 1 {
        let mut rest = &mut even[..];
        let exact = write!(rest, "{value:.*e}", e - 2);
        let unused = rest.len();
        let other = &even[..even.len() - unused];
        let same = exact.is_ok() && std::str::from_utf8(other).is_ok_and(|other| other.parse() == Ok(value));
        let other_e = memchr::memrchr(b'e', other).unwrap_or(other.len());
        if same { (other, other_e) } else { (text, e) }
    } else {
        (text, e)
    };
    #[expect(clippy::cast_possible_truncation, reason = "a float's exponent has three digits")]
    let exponent = parse_int(text.get(e + 1..).unwrap_or(b"")) as i32;
    let mut digits = [0_u8; 300];
    let mut count = 0;
    for &byte in &text[..e] {
        if byte != b'.' {
            digits[count] = byte;
            count += 1;
        }
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    shape(out, &digits[..count], exponent, limit);
}

/// `zend_gcvt`: where the point goes, and when the exponent is written.
fn shape(out: &mut Vec<u8>, digits: &[u8], exponent: i32, limit: usize) {
    let point = exponent + 1;
    let limit = i32::try_from(limit).unwrap_or(i32::MAX);
    if point < -3 || point > limit {
        out.push(digits[0]);
        out.push(b'.');
        out.extend_from_slice(if digits.len() > 1 { &digits[1..] } else { b"0" });
        out.push(b'E');
        out.push(if exponent < 0 { b'-' } else { b'+' });
        out.extend_from_slice(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
        return;
    }
    let Ok(whole) = usize::try_from(point) else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        return out.extend_from_slice(digits);
    };
    if digits.len() <= whole {
        out.extend_from_slice(digits);
        out.resize(out.len() + whole - digits.len(), b'0');
        return;
    }
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits[..whole] });
    out.push(b'.');
    out.extend_from_slice(&digits[whole..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn short_floats_are_read_as_long_ones_are() {
        let mut random = Random::new(5);
        let mut random = |below: u64| (random.next() >> 20) % below;
        let mut short = 0;
        for _ in 0..300_000 {
            let power = 10_u64.pow(u32::try_from(random(17)).unwrap());
            let digits = format!("{:0width$}", random(power), width = usize::try_from(random(18)).unwrap());
            let at = usize::try_from(random(digits.len() as u64 + 1)).unwrap();
            let point = ["", ".", "."][usize::try_from(random(3)).unwrap()];
            let text = format!("{}{}{point}{}", ["", "-"][usize::from(random(4) == 0)], &digits[..at], &digits[at..]);
            let known = text.parse::<f64>().ok();
            if let Some(found) = short_float(text.as_bytes()) {
                assert_eq!(Some(found.to_bits()), known.map(f64::to_bits), "{text}");
                short += 1;
            }
        }
        assert!(short > 200_000, "{short}");
        assert_eq!(short_float(b"."), None);
        assert_eq!(short_float(b"-"), None);
        assert_eq!(short_float(b"1.2.3"), None);
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "small numbers")]
    fn few_digits_are_the_shortest() {
        let mut random = Random::new(9);
        let mut few = 0;
        for _ in 0..300_000 {
            let state = random.next();
            let below = 10_i64.pow(u32::try_from(state % 17).unwrap());
            let n = i64::try_from(state >> 8).unwrap() % below;
            let places = usize::try_from((state >> 5) % 9).unwrap();
            #[expect(clippy::cast_precision_loss, reason = "any float will do")]
            let value = f64::from_bits((n as f64 / 10_f64.powi(places as i32)).to_bits() + state % 16 / 15);
            let Some((n, places)) = few_digits(value) else { continue };
            few += 1;
            let known = format!("{value:e}");
            let (digits, exponent) = known.split_once('e').unwrap();
            let found = n.to_string();
            let trimmed = if n == 0 { "0" } else { found.trim_end_matches('0') };
            assert_eq!(trimmed, digits.replace('.', ""), "{value:e}");
            assert_eq!(found.len() as i32 - 1 - places as i32, exponent.parse::<i32>().unwrap(), "{value:e}");
        }
        assert!(few > 150_000, "{few}");
    }
}
