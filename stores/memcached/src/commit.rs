//! What is done under the lock, and giving it back: in one flight where one server has both.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Outcome, Payload, Put, Record};
use cloakroom_core::{Deadline, Error, ErrorKind, Result};

use crate::layout;
use crate::lock::{Found, Item, MemcachedLease, lost};
use crate::pool::{Failure, Reply};
use crate::store::{Inner, Place, refused, touched};
use crate::sweep;
use crate::wire::{Answer, Code, Facts, Flight};

/// How a commit under a lock ended.
pub(crate) enum Ended {
    As(Outcome),
    /// The record is not the one that was found under the lock: somebody wrote who does not honour it. Nothing was
    /// changed.
    Changed,
}

/// Carries `put` out under the lock and gives the lock back, whatever comes of it. `holder` says that a record whose
/// life has ended meanwhile may be written all the same.
pub(crate) async fn finish(
    store: Arc<Inner>,
    lease: MemcachedLease,
    put: Put,
    holder: bool,
    deadline: Deadline,
) -> Result<Ended> {
    match put {
        Put::Payload(payload) => write(&store, lease, payload, holder, &deadline).await,
        Put::Touch(life) => touch(&store, lease, life, &deadline).await,
        put => remove(&store, lease, matches!(put, Put::SetAside), holder, &deadline).await,
    }
}

async fn write(
    store: &Inner,
    mut lease: MemcachedLease,
    payload: Payload,
    holder: bool,
    deadline: &Deadline,
) -> Result<Ended> {
    let mut found = lease.found.clone();
    let held = lease.held()?;
    let key = &held.place().names.data;
    let set = |item: Option<Item>| {
        let (key, value, life) = (key, &payload.bytes, payload.ttl);
        move |flight: Flight, facts: &Facts| {
            let expiry = layout::expiry(life, facts.time());
            match item {
                Some(item) if item.life != facts.life => None,
                Some(Item { cas, .. }) => Some(flight.set(key, value, &format!("C{cas} T{expiry} c"))),
                None => Some(flight.set(key, value, &format!("ME T{expiry} c"))),
            }
        }
    };
    // Only where the lock may have outlived the record, it is kept for another try.
    let ended = holder && found.has_ended();
    let mut done = under_lock(store, &mut lease, !ended, set(found.item), deadline).await?;
    if ended && done.0.code == Code::Missing {
        found = Found::default();
        done = under_lock(store, &mut lease, true, set(None), deadline).await?;
    }
    let (answer, life) = done;
    match answer.code {
        Code::Done => Ok(Ended::As(Outcome::Done(Some(Item { cas: answer.cas, life }.version())))),
        Code::Missing => Ok(Ended::As(Outcome::Gone)),
        Code::Exists | Code::NotStored => Ok(Ended::Changed),
        Code::TooLarge | Code::NoRoom => Err(restore(store, held.place(), &found, answer.code, deadline).await),
        Code::Refused => Err(refused()),
    }
}

async fn touch(store: &Inner, mut lease: MemcachedLease, life: Duration, deadline: &Deadline) -> Result<Ended> {
    let held = lease.held()?;
    let touch = |flight: Flight, facts: &Facts| {
        let flags = format!("T{} c", layout::expiry(life, facts.time()));
        Some(flight.get(&held.place().names.data, &flags))
    };
    let (answer, life) = under_lock(store, &mut lease, true, touch, deadline).await?;
    touched(&answer, life).map(Ended::As)
}

/// PHP deletes the data first and then the lock, and so do we: who waits for the lock finds nothing.
async fn remove(
    store: &Inner,
    mut lease: MemcachedLease,
    set_aside: bool,
    holder: bool,
    deadline: &Deadline,
) -> Result<Ended> {
    let held = lease.held()?;
    let place = held.place();
    let mut found = lease.found.clone();
    let mut kept = !set_aside;
    loop {
        if found.item.is_none() {
            found = store.read(place, deadline).await?;
        }
        let Some(item) = found.item else { return Ok(Ended::As(Outcome::Gone)) };
        let empty = || Record::new(Bytes::new(), item.version(), Some(store.config.lifetime));
        let record = found.record.clone().unwrap_or_else(empty);
        if !kept {
            sweep::keep_aside(store, place, &record.payload, deadline).await?;
            kept = true;
        }
        let delete = |flight: Flight, facts: &Facts| {
            (facts.life == item.life).then(|| flight.delete(&place.names.data, &format!("C{}", item.cas)))
        };
        let (answer, _) = under_lock(store, &mut lease, false, delete, deadline).await?;
        match answer.code {
            Code::Done => return Ok(Ended::As(Outcome::Removed(record))),
            Code::Missing => return Ok(Ended::As(Outcome::Gone)),
            // Somebody wrote without the lock. Who holds it and logs out destroys that as well.
            Code::Exists if holder => found = Found::default(),
            Code::Exists => return Ok(Ended::Changed),
            _ => return Err(refused()),
        }
    }
}

/// Sends one command about the record and finds out whether the lock was ours meanwhile. Gives the answer and the
/// server's life.
///
/// Memcached has no condition that spans two items. What makes the command safe is its own condition, the number of
/// the record's item: a lock that was lost without anybody's having changed the record is noticed only beside it. The
/// error then says that the change may have been applied. It is a second at most since the lock was last
/// confirmed, see [`Held::confirmed`](crate::lock::Held::confirmed).
///
/// `give_back`: on one server, the lock is given back in the same flight. On two, or else, dropping the lease does it,
/// after the answer: the lock must not be free before the record is written.
async fn under_lock(
    store: &Inner,
    lease: &mut MemcachedLease,
    give_back: bool,
    command: impl FnOnce(Flight, &Facts) -> Option<Flight>,
    deadline: &Deadline,
) -> Result<(Answer, u64)> {
    let held = lease.held()?;
    let place = held.place();
    let (mut state, lock) = held.confirmed(deadline).await?;
    let give_back = give_back && place.is_one();
    let (reply, at, ours) = if place.is_one() {
        let flight = |facts: &Facts| match facts.life == lock.life {
            true if give_back => {
                Some(command(Flight::default(), facts)?.delete(&place.names.lock, &format!("C{}", lock.cas)))
            }
            true => command(Flight::default().get(&place.names.lock, "c"), facts),
            false => None,
        };
        let reply = store.servers[place.data].write(flight, deadline).await.map_err(not_done)?;
        let ours = if give_back { is(&reply, 1, None) } else { is(&reply, 0, Some(lock)) };
        (reply, usize::from(!give_back), ours)
    } else {
        let check = || Flight::default().get(&place.names.lock, "c");
        let checked = store.servers[place.lock].read(check, deadline);
        let flight = |facts: &Facts| command(Flight::default(), facts);
        let (checked, reply) = tokio::join!(checked, store.servers[place.data].write(flight, deadline));
        (reply.map_err(not_done)?, 0, checked.is_ok_and(|checked| is(&checked, 0, Some(lock))))
    };
    if give_back {
        lease.end(&mut state);
    }
    let answer = reply.answers.into_iter().nth(at).ok_or_else(refused)?;
    match (ours, answer.code) {
        (true, _) => Ok((answer, reply.life)),
        (false, Code::Done) => {
            Err(Error::unavailable("change a session whose lock was just being lost").or_maybe_applied())
        }
        (false, _) => Err(lost()),
    }
}

/// Whether the command was done, and on this very item.
fn is(reply: &Reply, at: usize, item: Option<Item>) -> bool {
    reply.answers.get(at).is_some_and(|answer| {
        let found = Item { cas: answer.cas, life: reply.life };
        answer.code == Code::Done && item.is_none_or(|item| item == found)
    })
}

fn not_done(failure: Failure) -> Error {
    if failure.restarted { lost() } else { failure.of_write() }
}

/// Memcached drops an item whose successor it cannot store. It is put back, and the error is the one of what was tried.
#[cold]
async fn restore(store: &Inner, place: &Place, found: &Found, code: Code, deadline: &Deadline) -> Error {
    // Its limit is another one than it was when the connections were made.
    let server = &store.servers[place.data];
    server.disconnect();
    let refused = match code {
        Code::TooLarge => "write a session that is larger than the server's items may be",
        _ => "write a session: the server has no memory left, and may not make room (-M)",
    };
    let refused = Error::new(ErrorKind::TooLarge, refused);
    if found.item.is_none() {
        return refused;
    }
    let (payload, life) = match &found.record {
        Some(record) => (record.payload.clone(), record.ttl.unwrap_or(Duration::ZERO)),
        None => (Bytes::new(), store.config.lifetime),
    };
    let put_back = |facts: &Facts| {
        let flags = format!("ME T{}", layout::expiry(life, facts.time()));
        Some(Flight::default().set(&place.names.data, &payload, &flags))
    };
    match server.write(put_back, deadline).await.map(|reply| reply.answers.first().map(|answer| answer.code)) {
        Ok(Some(Code::Done | Code::NotStored)) => refused,
        _ => Error::unavailable("write a session: the server could not store it, and has dropped what it had"),
    }
}
