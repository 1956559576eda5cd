//! What php-memcached calls things (`php_memcached_session.c`): keys, lock keys and lives.

use std::time::Duration;

use cloakroom_core::Key;

/// `memcached.sess_prefix`.
pub(crate) const PREFIX: &str = "memc.sess.key.";
/// What stands between the prefix and the id in the name of a lock.
pub(crate) const LOCK: &str = "lock.";
/// The longest key that Memcached takes.
const LONGEST_KEY: usize = 250;
const LONGEST_PREFIX: usize = 200;
/// Expiry times above this are points in time, not spans (`REALTIME_MAXDELTA`).
const LONGEST_SPAN: u64 = 30 * 24 * 60 * 60;
/// Memcached reads expiry times as signed 32 bits.
const LAST_TIME: u64 = i32::MAX as u64;
/// What an item takes beside its key and its value in `item_size_max`: its header with a compare-and-swap number, and
/// what ends key and value; 59 bytes in Memcached 1.6, and some to spare.
const ITEM_OVERHEAD: u64 = 128;

/// Where a record and its lock lie: the keys as the servers know them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) data: Vec<u8>,
    pub(crate) lock: Vec<u8>,
}

impl Names {
    /// `None` for names that no record can have. PHP's session module refuses ids whose lock would have too long a
    /// name, also where it does not lock.
    pub(crate) fn of(prefix: &str, key: &Key) -> Option<Names> {
        let data = [prefix.as_bytes(), key.record()].concat();
        let lock = [prefix.as_bytes(), LOCK.as_bytes(), key.lock()].concat();
        (fits(&data) && fits(&lock)).then_some(Names { data, lock })
    }
}

/// What libmemcached hashes to choose the server of the data.
pub(crate) fn data_route(key: &Key) -> &[u8] {
    key.route()
}

/// What libmemcached hashes to choose the server of the lock.
pub(crate) fn lock_route(key: &Key) -> Vec<u8> {
    [LOCK.as_bytes(), key.lock()].concat()
}

/// Under which key a copy is kept of what could not be read: number `slot` of a fixed set.
pub(crate) fn aside(prefix: &str, slot: u64) -> Vec<u8> {
    format!("cloakroom:{prefix}aside.{slot}").into_bytes()
}

/// The key of the number that says which slot is next.
pub(crate) fn aside_counter(prefix: &str) -> Vec<u8> {
    format!("cloakroom:{prefix}aside").into_bytes()
}

/// Whether this can be a prefix, and leaves room for what comes behind it.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    prefix.is_empty() || prefix.len() <= LONGEST_PREFIX && fits(prefix.as_bytes())
}

/// Whether Memcached takes this key as text.
fn fits(key: &[u8]) -> bool {
    (1..=LONGEST_KEY).contains(&key.len()) && key.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// The expiry time for a life, as PHP sends it: whole seconds up to 30 days, above that the time of its end by the
/// server's clock, and 0 for a life without end, which is what `session.gc_maxlifetime=0` means here.
pub(crate) fn expiry(life: Duration, server_time: u64) -> u64 {
    let seconds = life.as_secs().saturating_add(u64::from(life.subsec_nanos() > 0));
    if seconds <= LONGEST_SPAN { seconds } else { server_time.saturating_add(seconds).min(LAST_TIME) }
}

/// The largest payload that surely fits, whatever its key.
pub(crate) fn max_payload(item_size_max: u64) -> u64 {
    item_size_max.saturating_sub(ITEM_OVERHEAD + LONGEST_KEY as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;
    const NOW: u64 = 1_800_000_000;

    fn names(prefix: &str, record: &str) -> Option<(String, String)> {
        let Names { data, lock } = Names::of(prefix, &Key::from_bytes(record.as_bytes()))?;
        Some((String::from_utf8(data).unwrap(), String::from_utf8(lock).unwrap()))
    }

    #[test]
    fn keys_are_phps() {
        let (data, lock) = names(PREFIX, "0123456789abcdef").unwrap();
        assert_eq!(data, "memc.sess.key.0123456789abcdef");
        assert_eq!(lock, "memc.sess.key.lock.0123456789abcdef");
        assert_eq!(names("", "a").unwrap(), ("a".to_owned(), "lock.a".to_owned()));
    }

    #[test]
    fn routes_are_the_names_without_the_prefix() {
        let key = Key::from_bytes(*b"id");
        assert_eq!((data_route(&key), lock_route(&key).as_slice()), (&b"id"[..], &b"lock.id"[..]));
    }

    #[test]
    fn a_name_that_memcached_refuses_is_no_name() {
        assert!(names(PREFIX, &"x".repeat(231)).is_some());
        assert!(names(PREFIX, &"x".repeat(232)).is_none());
        for record in ["a b", "a\r\nflush_all", "a\0", "\u{7f}"] {
            assert!(names(PREFIX, record).is_none(), "{record:?}");
        }
        assert!(fits("caf\u{e9}".as_bytes()));
        assert!(is_prefix("") && is_prefix(&"x".repeat(200)));
        assert!(!is_prefix(&"x".repeat(201)) && !is_prefix("a b"));
    }

    #[test]
    fn a_life_is_counted_in_whole_seconds_up_to_thirty_days() {
        for (life, expiry_time) in [(1, 1), (1440, 1440), (30 * DAY, 30 * DAY), (30 * DAY + 1, NOW + 30 * DAY + 1)] {
            assert_eq!(expiry(Duration::from_secs(life), NOW), expiry_time);
        }
        assert_eq!(expiry(Duration::from_millis(1), NOW), 1);
        assert_eq!(expiry(Duration::from_millis(1500), NOW), 2);
    }

    #[test]
    fn no_life_is_never_the_end_and_an_endless_one_ends_when_memcacheds_numbers_do() {
        assert_eq!(expiry(Duration::ZERO, NOW), 0);
        assert_eq!(expiry(Duration::MAX, NOW), LAST_TIME);
    }
}
