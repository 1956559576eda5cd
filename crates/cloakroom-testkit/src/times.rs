//! Dates in headers: recognised by their exact form and turned into their distance from now.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 2000-01-01. The dates that are constants (1970, 1981) lie before it and stay as they are.
const CONSTANTS_BEFORE: i64 = 946_684_800;

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// `Mon, 23 Nov 2026 03:51:36 GMT`, as PHP writes it, with as many digits of the year as it needs.
pub fn format(unix: i64) -> String {
    let (days, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let weekday = usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0);
    let month = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT", DAYS[weekday])
}

/// The date's seconds since 1970, if the text has exactly the form that [`format()`] writes.
pub fn parse(text: &str) -> Option<i64> {
    let rest = text.get(5..)?;
    let mut parts = rest.split(' ');
    let day: i64 = parts.next()?.parse().ok()?;
    let month = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|&one| one == month)?).ok()? + 1;
    let year: i64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let unix = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    (format(unix) == text).then_some(unix)
}

/// Puts `<now+N>` in place of a date. `max_age` is what the same header or its neighbour says N should be: within two seconds of it,
/// it is it.
pub fn relative(text: &str, now: i64, max_age: Option<i64>) -> String {
    match parse(text) {
        Some(unix) if unix >= CONSTANTS_BEFORE => {
            let delta = unix - now;
            let delta = max_age.filter(|age| (delta - age).abs() <= 2).unwrap_or(delta);
            format!("<now{delta:+}>")
        }
        _ => text.to_owned(),
    }
}

/// Whether two texts are equal, when distances from now may differ by two seconds.
pub fn alike(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let split = |text: &str| -> Option<(String, i64)> {
        let (before, rest) = text.split_once("<now")?;
        let (delta, after) = rest.split_once('>')?;
        Some((format!("{before}<now>{after}"), delta.parse().ok()?))
    };
    matches!((split(a), split(b)), (Some((a, x)), Some((b, y))) if a == b && (x - y).abs() <= 2)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let mp = (5 * of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (year + era * 400 + i64::from(month <= 2), month, of_year - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::{alike, parse, relative};

    #[test]
    fn dates_are_known_by_their_form() {
        assert_eq!(parse("Mon, 23 Nov 2026 03:51:36 GMT"), Some(1_795_405_896));
        assert_eq!(parse("Sat, 08 Jul 11533 09:11:36 GMT"), Some(1_795_405_896 + 300_000_000_000));
        for bad in
            ["Tue, 23 Nov 2026 03:51:36 GMT", "Mon, 23-Nov-2026 03:51:36 GMT", "Mon, 23 Nov 2026 03:51:36", "", "x"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn distances_tolerate_two_seconds() {
        assert_eq!(relative("Mon, 23 Nov 2026 03:51:37 GMT", 1_795_405_896, Some(0)), "<now+0>");
        assert_eq!(relative("Thu, 19 Nov 1981 08:52:00 GMT", 1_795_405_896, None), "Thu, 19 Nov 1981 08:52:00 GMT");
        assert!(alike("a <now+10> b", "a <now+12> b"));
        assert!(!alike("a <now+10> b", "a <now+13> b") && !alike("a <now+10> b", "a <now+10> c"));
    }
}
