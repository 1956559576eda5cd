//! What a commit does: decided from the state of the row, under the database's lock for writing.

use cloakroom_core::store::{Outcome, Put, Version};
use cloakroom_core::{Error, ErrorKind};
use rusqlite::Connection;

use crate::error::Failure;
use crate::way::{Now, Way};

/// [`Expect`](cloakroom_core::store::Expect), in the terms of the layouts.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    Absent,
    Any,
    Is(Version),
    /// The holder of the lease in the row, and the version that it has found: the native layout.
    Leased {
        token: i64,
        version: i64,
    },
    /// The holder of the whole database: Symfony's transactional mode.
    Whole {
        token: i64,
    },
    /// The holder of nothing but a place in line, and what it has found: Symfony's mode without locks.
    Found(Option<Version>),
}

/// How one attempt ended.
#[derive(Debug)]
pub(crate) enum Step<T> {
    Done(T),
    /// Another process has a lease on the record.
    Wait,
}

/// What is known of a row without its payload.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) row: i64,
    pub(crate) alive: bool,
    /// There is a lease on it that has not run out.
    pub(crate) leased: bool,
    /// It is what the caller expects: the version, or the lease.
    pub(crate) matches: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Gone,
    /// The row is alive, and the lock that the caller had on it is not his any more.
    Lost,
    Taken,
    /// The row is alive and has another version.
    Conflict(i64),
    Change(i64),
    /// Nothing is there, or a row whose life has ended.
    Create(Option<i64>),
}

fn decide(want: &Want, put: &Put, seen: Option<&Seen>) -> Verdict {
    let writes = matches!(put, Put::Payload(_));
    let create = |bury| if writes { Verdict::Create(bury) } else { Verdict::Gone };
    let alive = seen.filter(|seen| seen.alive);
    match (want, seen) {
        // What the holder has found stays his, though its time runs out meanwhile.
        (Want::Leased { .. } | Want::Found(Some(_)), Some(seen)) if seen.matches => Verdict::Change(seen.row),
        // To call it gone would be to say that a logout was done.
        (Want::Leased { .. } | Want::Found(_), _) if alive.is_some() => Verdict::Lost,
        (Want::Leased { .. } | Want::Found(Some(_)), _) => Verdict::Gone,
        (Want::Whole { .. }, Some(seen)) => Verdict::Change(seen.row),
        (Want::Whole { .. }, None) => create(None),
        (Want::Found(None), seen) => create(seen.map(|seen| seen.row)),
        // A touch changes no data: it need not wait for the holder.
        (Want::Any, Some(seen)) if seen.leased && matches!(put, Put::Touch(_)) && seen.alive => {
            Verdict::Change(seen.row)
        }
        (Want::Absent | Want::Any | Want::Is(_), Some(seen)) if seen.leased => Verdict::Wait,
        (Want::Absent, _) if alive.is_some() => Verdict::Taken,
        (Want::Absent, seen) => create(seen.map(|seen| seen.row)),
        (Want::Any | Want::Is(_), _) => match alive {
            None => Verdict::Gone,
            Some(seen) if matches!(want, Want::Is(_)) && !seen.matches => Verdict::Conflict(seen.row),
            Some(seen) => Verdict::Change(seen.row),
        },
    }
}

/// Carries `put` out if `want` holds. The caller has the database's lock for writing.
pub(crate) fn commit(
    way: &Way,
    conn: &Connection,
    id: &[u8],
    want: &Want,
    put: &Put,
    now: Now,
) -> Result<Step<Outcome>, Failure> {
    if let (Way::Native(native), Put::Payload(payload)) = (way, put)
        && let Some(version) = native.replace(conn, id, want, payload, now)?
    {
        return Ok(Step::Done(Outcome::Done(Some(version))));
    }
    let seen = way.look(conn, id, want, now)?;
    let outcome = match decide(want, put, seen.as_ref()) {
        Verdict::Wait => return Ok(Step::Wait),
        Verdict::Gone => Outcome::Gone,
        Verdict::Lost => return Err(Error::lock_lost().into()),
        Verdict::Taken => Outcome::Taken,
        Verdict::Conflict(row) => Outcome::Conflict(way.record(conn, row, id, now)?),
        Verdict::Create(bury) => {
            let Put::Payload(payload) = put else { return Err(unknown_put().into()) };
            if let Some(row) = bury {
                way.delete(conn, row)?;
            }
            Outcome::Done(Some(way.create(conn, id, payload, now)?))
        }
        Verdict::Change(row) => match put {
            Put::Payload(payload) => Outcome::Done(Some(way.write(conn, row, payload, now)?)),
            Put::Touch(ttl) => Outcome::Done(way.touch(conn, row, want, *ttl, now)?),
            Put::Remove => {
                let record = way.record(conn, row, id, now)?;
                way.delete(conn, row)?;
                Outcome::Removed(record)
            }
            Put::SetAside => {
                let record = way.record(conn, row, id, now)?;
                // Both or none: a session that could not be kept is not to be lost.
                conn.execute_batch("SAVEPOINT aside")?;
                let moved = way.set_aside(conn, &record.payload, now).and_then(|()| way.delete(conn, row));
                match moved {
                    Ok(()) => conn.execute_batch("RELEASE aside")?,
                    Err(failure) => {
                        // Where the whole transaction was rolled back, there is no savepoint any more.
                        if !conn.is_autocommit() {
                            conn.execute_batch("ROLLBACK TO aside; RELEASE aside")?;
                        }
                        return Err(failure);
                    }
                }
                Outcome::Removed(record)
            }
            _ => return Err(unknown_put().into()),
        },
    };
    Ok(Step::Done(outcome))
}

pub(crate) fn unknown_put() -> Error {
    Error::new(ErrorKind::Unsupported, "commit what this store does not know")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloakroom_core::store::Payload;
    use std::time::Duration;

    const LIFE: Duration = Duration::from_secs(60);

    fn puts() -> [Put; 4] {
        [Put::Payload(Payload::new("x".into(), LIFE)), Put::Touch(LIFE), Put::Remove, Put::SetAside]
    }

    fn seen(alive: bool, leased: bool, matches: bool) -> Seen {
        Seen { row: 7, alive, leased, matches }
    }

    fn version() -> Version {
        Version::new("v")
    }

    #[test]
    fn nobody_but_the_holder_changes_what_is_leased() {
        for put in puts() {
            for alive in [true, false] {
                for want in [Want::Absent, Want::Any, Want::Is(version())] {
                    let verdict = decide(&want, &put, Some(&seen(alive, true, true)));
                    let may = alive && matches!((&want, &put), (Want::Any, Put::Touch(_)));
                    assert_eq!(verdict == Verdict::Change(7), may, "{want:?} {put:?} {alive}");
                    assert_eq!(verdict == Verdict::Wait, !may, "{want:?} {put:?} {alive}");
                }
                let leased = Want::Leased { token: 1, version: 1 };
                assert_eq!(decide(&leased, &put, Some(&seen(alive, true, true))), Verdict::Change(7));
                let lost = if alive { Verdict::Lost } else { Verdict::Gone };
                assert_eq!(decide(&leased, &put, Some(&seen(alive, true, false))), lost);
                assert_eq!(decide(&leased, &put, None), Verdict::Gone);
            }
        }
    }

    #[test]
    fn what_has_expired_is_as_good_as_absent() {
        for put in puts() {
            let writes = matches!(put, Put::Payload(_));
            let expired = seen(false, false, true);
            for want in [Want::Any, Want::Is(version())] {
                assert_eq!(decide(&want, &put, Some(&expired)), Verdict::Gone);
                assert_eq!(decide(&want, &put, None), Verdict::Gone);
            }
            for want in [Want::Absent, Want::Found(None)] {
                let expect = |bury| if writes { Verdict::Create(bury) } else { Verdict::Gone };
                assert_eq!(decide(&want, &put, Some(&expired)), expect(Some(7)));
                assert_eq!(decide(&want, &put, None), expect(None));
            }
            // But not for who holds it.
            assert_eq!(decide(&Want::Whole { token: 1 }, &put, Some(&expired)), Verdict::Change(7));
            assert_eq!(decide(&Want::Found(Some(version())), &put, Some(&expired)), Verdict::Change(7));
        }
    }

    #[test]
    fn what_is_alive_is_changed_as_expected_or_not_at_all() {
        for put in puts() {
            let (same, other) = (seen(true, false, true), seen(true, false, false));
            assert_eq!(decide(&Want::Is(version()), &put, Some(&same)), Verdict::Change(7));
            assert_eq!(decide(&Want::Is(version()), &put, Some(&other)), Verdict::Conflict(7));
            assert_eq!(decide(&Want::Any, &put, Some(&other)), Verdict::Change(7));
            assert_eq!(decide(&Want::Absent, &put, Some(&other)), Verdict::Taken);
            assert_eq!(decide(&Want::Found(Some(version())), &put, Some(&other)), Verdict::Lost);
            assert_eq!(decide(&Want::Found(None), &put, Some(&same)), Verdict::Lost);
        }
    }
}
