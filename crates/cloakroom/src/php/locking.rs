//! For how long PHP's handlers wait for a lock: `redis.session.lock_*` and `memcached.sess_lock_*`.

use std::borrow::Cow;
use std::time::Duration;

use cloakroom_core::Settings;

/// These settings, waiting for as long as the handler is told to. `files` waits as the settings say.
pub(super) fn settings(settings: &Settings) -> Cow<'_, Settings> {
    let wait = match settings.save_handler.as_str() {
        "redis" => redis(settings),
        "memcached" => memcached(settings),
        _ => None,
    };
    match wait {
        Some(wait) => Cow::Owned({
            let mut settings = settings.clone();
            settings.start_wait = wait;
            settings
        }),
        None => Cow::Borrowed(settings),
    }
}

/// php-redis: so many tries more, with the same pause between them; by default those of php-redis 6.
fn redis(settings: &Settings) -> Option<Duration> {
    if !is_on(settings, "redis.session.locking_enabled", false) {
        return None;
    }
    let retries = match number(settings, "redis.session.lock_retries") {
        Some(retries) if retries < 0 => return Some(Duration::MAX),
        None | Some(0) => 100,
        Some(retries) => retries,
    };
    let pause = number(settings, "redis.session.lock_wait_time").filter(|micros| *micros > 0).unwrap_or(20_000);
    Some(Duration::from_micros(retries.unsigned_abs().saturating_mul(pause.unsigned_abs())))
}

/// php-memcached: so many tries more, with pauses that double from the shortest to the longest.
fn memcached(settings: &Settings) -> Option<Duration> {
    if !is_on(settings, "memcached.sess_locking", true) {
        return None;
    }
    let pause = |name| number(settings, name).filter(|millis| *millis >= 0).unwrap_or(150).unsigned_abs();
    let (shortest, longest) = (pause("memcached.sess_lock_wait_min"), pause("memcached.sess_lock_wait_max"));
    let retries = number(settings, "memcached.sess_lock_retries").filter(|retries| *retries >= 0).unwrap_or(5);
    let (mut next, mut all) = (shortest.min(longest), 0_u64);
    for _ in 0..retries.min(10_000) {
        all = all.saturating_add(next);
        next = next.saturating_mul(2).min(longest);
    }
    Some(Duration::from_millis(all))
}

fn number(settings: &Settings, name: &str) -> Option<i64> {
    settings.other.get(name)?.trim().parse().ok()
}

fn is_on(settings: &Settings, name: &str, default: bool) -> bool {
    let Some(text) = settings.other.get(name) else { return default };
    let text = text.trim().to_ascii_lowercase();
    matches!(text.as_str(), "on" | "yes" | "true") || text.parse().is_ok_and(|number: i64| number != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(handler: &str, pairs: &[(&str, &str)]) -> Option<Duration> {
        let mut settings = Settings::php_defaults();
        settings.set("session.save_handler", handler).unwrap();
        for (name, value) in pairs {
            settings.set(name, value).unwrap();
        }
        match super::settings(&settings) {
            Cow::Owned(settings) => Some(settings.start_wait),
            Cow::Borrowed(_) => None,
        }
    }

    #[test]
    fn handlers_wait_as_they_are_told() {
        assert_eq!(wait("files", &[]), None);
        assert_eq!(wait("redis", &[]), None);
        let on = ("redis.session.locking_enabled", "1");
        assert_eq!(wait("redis", &[on]), Some(Duration::from_secs(2)));
        let quick = ("redis.session.lock_wait_time", "2000");
        assert_eq!(wait("redis", &[on, quick, ("redis.session.lock_retries", "20")]), Some(Duration::from_millis(40)));
        assert_eq!(wait("redis", &[on, ("redis.session.lock_retries", "-1")]), Some(Duration::MAX));
        assert_eq!(wait("memcached", &[]), Some(Duration::from_millis(750)));
        assert_eq!(wait("memcached", &[("memcached.sess_locking", "0")]), None);
        let doubling = [("memcached.sess_lock_wait_max", "500"), ("memcached.sess_lock_retries", "3")];
        assert_eq!(wait("memcached", &doubling), Some(Duration::from_millis(150 + 300 + 500)));
    }
}
