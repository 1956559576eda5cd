//! What php-redis calls things: keys of records and locks, lives, and which of several servers has a session
//! (`redis_session.c`). Pure functions.

use std::time::Duration;

use cloakroom_core::{Error, ErrorKind, Key, Result};

/// php-redis's prefix on a single server, `REDIS_SESSION_PREFIX`.
pub(crate) const PHP: &str = "PHPREDIS_SESSION:";
/// php-redis's prefix on a cluster, `CLUSTER_SESSION_PREFIX`.
pub(crate) const PHP_CLUSTER: &str = "PHPREDIS_CLUSTER_SESSION:";
/// The prefix of our own layout on a cluster.
pub(crate) const TAGGED: &str = "cloakroom:session:";
/// What everything that is not a session begins with, so that it cannot be taken for one.
const OWN: &str = "cloakroom:";
/// What php-redis appends to a session's key for its lock.
const LOCK: &[u8] = b"_LOCK";

/// How the keys of a store are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// What stands before each session's name; php-redis's `prefix=` replaces it whole.
    pub(crate) prefix: Vec<u8>,
    /// Whether the name is written as a hash tag, `{name}`, so that all keys of a session share a slot.
    pub(crate) tagged: bool,
    /// Whether the lock has to lie in the record's slot.
    pub(crate) cluster: bool,
}

impl Names {
    /// The key of a session.
    pub(crate) fn record(&self, key: &Key) -> Vec<u8> {
        self.named(key.record())
    }

    /// The key of its lock.
    ///
    /// php-redis's is the session's key and `_LOCK`. On a cluster php-redis takes no lock at all, so that its name
    /// is ours to choose: one whose slot is that of the record, since a script can only work on one slot.
    pub(crate) fn lock(&self, key: &Key) -> Result<Vec<u8>> {
        if !self.cluster {
            return Ok([&self.named(key.lock()), LOCK].concat());
        }
        let record = self.record(key);
        if tag(&record) != &record[..] {
            return Ok([&record, LOCK].concat());
        }
        if record.is_empty() || record.contains(&b'}') {
            return Err(Error::new(ErrorKind::Unsupported, "lock a key whose braces fit no hash tag of a cluster"));
        }
        Ok([OWN.as_bytes(), b"lock:{", &record, b"}"].concat())
    }

    /// The key of the counter of what was set aside. Copies are called the same with a number behind it.
    pub(crate) fn aside(&self) -> Vec<u8> {
        [OWN.as_bytes(), b"aside:", &self.prefix].concat()
    }

    fn named(&self, name: &[u8]) -> Vec<u8> {
        let (open, close): (&[u8], &[u8]) = if self.tagged { (b"{", b"}") } else { (b"", b"") };
        [&self.prefix, open, name, close].concat()
    }
}

/// The part of a key that decides on its slot: what stands between the first `{` and the next `}`, if anything
/// does, or else the whole key (the cluster specification).
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    match key[open + 1..].iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

/// A life in whole seconds, as `SETEX` wants it: php-redis's `session_gc_maxlifetime`, by which 0 is PHP's default of
/// 1440 s and the most is what a C `int` holds. A part of a second counts as a whole one.
pub(crate) fn seconds(ttl: Duration) -> i64 {
    const DEFAULT: u64 = 1440;
    let whole = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    let whole = if whole == 0 { DEFAULT } else { whole };
    i32::try_from(whole).unwrap_or(i32::MAX).into()
}

/// Which of several servers has the session of this id, by php-redis's `redis_pool_get_sock`: the first four bytes
/// of the id as a number of this machine's byte order, modulo the sum of the weights, counted off from the last URL
/// of the list to the first, since php-redis puts each new one at the head of its list.
///
/// `None` where there is no server or no weight.
pub(crate) fn server(weights: &[u32], id: &[u8]) -> Option<usize> {
    let total: u64 = weights.iter().copied().map(u64::from).sum();
    // A C string ends with a zero byte, which is what PHP reads behind a shorter id.
    let mut first = [0; 4];
    let given = id.len().min(first.len());
    first[..given].copy_from_slice(&id[..given]);
    let mut place = u64::from(u32::from_ne_bytes(first)).checked_rem(total)?;
    for (index, weight) in weights.iter().enumerate().rev() {
        match place.checked_sub(u64::from(*weight)) {
            None => return Some(index),
            Some(rest) => place = rest,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(prefix: &str, tagged: bool, cluster: bool) -> Names {
        Names { prefix: prefix.into(), tagged, cluster }
    }

    fn key() -> Key {
        Key::from_bytes(*b"abc")
    }

    #[test]
    fn php_redis_calls_it_so() {
        let php = names(PHP, false, false);
        assert_eq!(php.record(&key()), b"PHPREDIS_SESSION:abc");
        assert_eq!(php.lock(&key()).unwrap(), b"PHPREDIS_SESSION:abc_LOCK");
        assert_eq!(names("MY:", false, false).record(&key()), b"MY:abc");
        assert_eq!(names("", false, false).record(&key()), b"abc");
        assert_eq!(names("", false, false).lock(&key()).unwrap(), b"abc_LOCK");
        assert_eq!(php.lock(&key().with_lock(*b"other")).unwrap(), b"PHPREDIS_SESSION:other_LOCK");
    }

    #[test]
    fn a_lock_on_a_cluster_shares_the_slot_of_its_record() {
        for (names, record, lock) in [
            (
                names(PHP_CLUSTER, false, true),
                "PHPREDIS_CLUSTER_SESSION:abc",
                "cloakroom:lock:{PHPREDIS_CLUSTER_SESSION:abc}",
            ),
            (names(TAGGED, true, true), "cloakroom:session:{abc}", "cloakroom:session:{abc}_LOCK"),
            (names("{app}:", false, true), "{app}:abc", "{app}:abc_LOCK"),
            (names("odd{}", false, true), "odd{}abc", ""),
            (names("odd}", false, true), "odd}abc", ""),
            (names("odd{", false, true), "odd{abc", "cloakroom:lock:{odd{abc}"),
        ] {
            assert_eq!(names.record(&key()), record.as_bytes());
            match names.lock(&key()) {
                Ok(made) => {
                    assert_eq!(made, lock.as_bytes());
                    assert_eq!(tag(&made), tag(record.as_bytes()), "{lock}");
                }
                Err(error) => assert_eq!((error.kind(), lock), (ErrorKind::Unsupported, "")),
            }
        }
    }

    #[test]
    fn a_tag_is_what_the_cluster_specification_calls_so() {
        let cases = [("{user1000}.following", "user1000"), ("foo{}{bar}", "foo{}{bar}"), ("foo{{bar}}zap", "{bar")];
        for (key, expected) in cases.into_iter().chain([("foo{bar}{zap}", "bar"), ("plain", "plain"), ("{x", "{x")]) {
            assert_eq!(tag(key.as_bytes()), expected.as_bytes());
        }
    }

    #[test]
    fn nothing_of_our_own_looks_like_a_session() {
        assert_eq!(names(PHP, false, false).aside(), b"cloakroom:aside:PHPREDIS_SESSION:");
    }

    #[test]
    fn lives_are_whole_seconds_by_phps_rule() {
        let of = |seconds| Duration::from_secs(seconds);
        assert_eq!(seconds(of(1440)), 1440);
        assert_eq!(seconds(of(0)), 1440);
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_millis(1001)), 2);
        assert_eq!(seconds(of(2_147_483_647)), 2_147_483_647);
        assert_eq!(seconds(of(2_147_483_648)), 2_147_483_647);
        assert_eq!(seconds(Duration::MAX), 2_147_483_647);
    }

    /// The integration tests compare this with what a real php-redis does.
    #[test]
    fn servers_are_counted_off_from_the_last() {
        let id = |number: u32| number.to_ne_bytes();
        for (number, expected) in [(0, 2), (1, 1), (2, 0), (3, 2)] {
            assert_eq!(server(&[1, 1, 1], &id(number)), Some(expected));
        }
        for (number, expected) in [(0, 1), (2, 1), (3, 0), (4, 0), (5, 1)] {
            assert_eq!(server(&[2, 3], &id(number)), Some(expected));
        }
        assert_eq!(server(&[1], b""), Some(0));
        assert_eq!(server(&[5, 7], b"ab"), server(&[5, 7], b"ab\0\0"));
        assert_eq!((server(&[], b"abcd"), server(&[0], b"abcd")), (None, None));
        assert!(server(&[u32::MAX, u32::MAX], &id(u32::MAX)).is_some());
    }
}
