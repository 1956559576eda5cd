//! What [`Options::loose`](crate::Options::loose) lets pass: forms send strings, and PHP code leaves them so.

use crate::number::{parse_float, parse_int};
use crate::scan::Head;

fn digits(text: &[u8]) -> bool {
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)
}

pub(crate) fn int(head: &Head<'_>) -> Option<i64> {
    match head {
        Head::Str(text) if digits(text.trim_ascii()) => std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok(),
        Head::Bool(value) => Some(i64::from(*value)),
        Head::Float(text) => {
            let value = parse_float(text);
            #[expect(clippy::cast_possible_truncation, reason = "within 2^53 and whole")]
            let whole = (value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0).then_some(value as i64);
            whole
        }
        _ => None,
    }
}

pub(crate) fn float(head: &Head<'_>) -> Option<f64> {
    match head {
        Head::Str(text) => {
            let text = text.trim_ascii();
            let plain = text.iter().all(|b| b.is_ascii_digit() || b"+-.eE".contains(b));
            std::str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()
        }
        Head::Bool(value) => Some(f64::from(u8::from(*value))),
        _ => None,
    }
}

pub(crate) fn bool(head: &Head<'_>) -> Option<bool> {
    match head {
        Head::Int(text) => match parse_int(text) {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        Head::Str(text) => {
            let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()));
            if is(&["1", "true", "on", "yes"]) {
                Some(true)
            } else if is(&["0", "false", "off", "no", ""]) {
                Some(false)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// The float that equals this integer.
pub(crate) fn exact(n: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "within 2^53 nothing is lost")]
    let value = n as f64;
    (n.unsigned_abs() <= 1 << 53).then_some(value)
}
