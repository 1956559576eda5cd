//! What was set aside. Memcached forgets what has expired by itself, so that there is nothing to sweep.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::{Deadline, Error, ErrorKind, Result};

use crate::MemcachedStore;
use crate::layout;
use crate::pool::Failure;
use crate::store::{Inner, Place, refused};
use crate::wire::{Code, Facts, Flight};

/// A payload that was found to be no session and was set aside for people to look at.
#[derive(Clone)]
#[non_exhaustive]
pub struct SetAside {
    /// What was there.
    pub payload: Bytes,
    /// How long ago it was set aside.
    pub age: Duration,
}

impl fmt::Debug for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetAside({} bytes, {:?} ago)", self.payload.len(), self.age)
    }
}

impl MemcachedStore {
    /// What was set aside on all servers, the newest first.
    pub async fn set_aside(&self, deadline: &Deadline) -> Result<Vec<SetAside>> {
        let config = &self.inner.config;
        let mut all = Vec::new();
        for server in &self.inner.servers {
            let flight = || {
                let get = |flight: Flight, slot| flight.get(&layout::aside(&config.prefix, slot), "v t");
                (0..u64::from(config.max_aside)).fold(Flight::default(), get)
            };
            for answer in server.read(flight, deadline).await?.answers {
                if answer.code == Code::Done {
                    let left = answer.ttl.map_or(Duration::ZERO, Duration::from_secs);
                    all.push(SetAside { payload: answer.value, age: config.aside_lifetime.saturating_sub(left) });
                }
            }
        }
        all.sort_by_key(|aside| aside.age);
        Ok(all)
    }
}

/// Keeps a copy on the server of the record, in the place of the oldest one that is kept there.
pub(crate) async fn keep_aside(store: &Inner, place: &Place, payload: &Bytes, deadline: &Deadline) -> Result<()> {
    let config = &store.config;
    if config.max_aside == 0 {
        return Ok(());
    }
    let server = &store.servers[place.data];
    let counter = layout::aside_counter(&config.prefix);
    let counted = server.write(|_| Some(Flight::default().count(&counter, "N0 J0 v")), deadline).await;
    let counted = counted.map_err(Failure::of_read)?;
    let number =
        counted.answers.first().and_then(|answer| std::str::from_utf8(&answer.value).ok()?.parse::<u64>().ok());
    let slot = layout::aside(&config.prefix, number.ok_or_else(refused)? % u64::from(config.max_aside));
    let keep = |facts: &Facts| {
        let expiry = layout::expiry(config.aside_lifetime, facts.time());
        Some(Flight::default().set(&slot, payload, &format!("T{expiry}")))
    };
    let kept = server.write(keep, deadline).await.map_err(Failure::of_read)?;
    match kept.answers.first().map(|answer| answer.code) {
        Some(Code::Done) => Ok(()),
        Some(Code::TooLarge | Code::NoRoom) => {
            Err(Error::new(ErrorKind::TooLarge, "set a session aside: the server has no room for a copy"))
        }
        _ => Err(refused()),
    }
}
