//! What every store behind a network has to keep when that network, or the server, breaks: one named case for each rule.
//!
//! The cases break the network with a [`Proxy`] at every byte of every call, and look at the
//! truth with a second store that goes past it. A store runs them all with one macro and a [`Networked`] of a few lines:
//!
//! ```text
//! struct Through { proxy: Proxy, store: MyStore, trusted: MyStore }
//!
//! impl Networked for Through { … }
//!
//! cloakroom_testkit::store_faults!(Through::new().await);
//! ```
//!
//! The expression is evaluated anew for every case, within an async block, and has to give a store without records.
//!
//! Cases that stop and pause the server itself have a macro of their own,
//! [`store_server_faults`](crate::store_server_faults), for a store whose server nobody else uses.
//!
//! # What has to be so
//!
//! - A call that could not be carried out is [`Unavailable`](cloakroom_core::ErrorKind::Unavailable) within the time for
//!   talking: never absent, never another value, and never without end.
//! - A commit whose error does not say that it may have been applied was not applied, and never will be. One that was
//!   applied was applied once; nobody sends it again.
//! - What was locked comes free, what was empty stays empty, and nothing becomes empty.
//! - Within a second after the network works again, so does the store, by itself.
//!
//! # Time
//!
//! All limits are generous, so that a slow machine makes no case fail: what takes [`IO`] may take [`SLACK`] longer. How
//! soon a store recovers is the best of three times.

pub mod crowd;
pub mod cuts;
pub mod engine;
mod judge;
pub mod late;
pub mod leases;
mod macros;
pub mod outages;
pub mod server;
#[cfg(test)]
mod tests;
mod tools;
pub mod trips;
mod visitor;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{DynStore, Key};

use crate::proxy::Proxy;

/// The time for talking to the store that the cases give.
pub const IO: Duration = Duration::from_millis(250);
/// What a slow machine may add to it.
pub const SLACK: Duration = Duration::from_secs(3);
/// How soon a store has to work again after an outage.
pub const RECOVERY: Duration = Duration::from_secs(1);

/// A store behind a [`Proxy`].
pub trait Networked: Send + Sync + 'static {
    /// The proxy. All that [`store`](Networked::store) and [`another`](Networked::another) say goes through it.
    fn proxy(&self) -> &Proxy;

    /// The store, connected through the proxy; the same one at every call.
    fn store(&self) -> Arc<dyn DynStore>;

    /// Another store through the proxy, which has not asked for anything yet.
    fn another(&self) -> impl Future<Output = Arc<dyn DynStore>> + Send;

    /// A store on the same records that goes past the proxy: what it sees is the truth.
    fn trusted(&self) -> Arc<dyn DynStore>;

    /// For how long a lock can be taken whose holder nobody heard of again.
    fn lock_life(&self) -> Duration;

    /// Makes a record as old as if `by` had passed since it was last written or touched.
    fn age(&self, key: &Key, by: Duration) -> impl Future<Output = ()> + Send;

    /// The server, where it is there for this case alone.
    fn server(&self) -> Option<&dyn Server> {
        None
    }

    /// How often each verb asks the server.
    fn trips(&self) -> Trips {
        Trips::default()
    }

    /// The key for a name of up to 64 letters, digits and `-`.
    #[expect(clippy::expect_used, reason = "this crate is made of tests")]
    fn key(&self, name: &str) -> Key {
        Key::from_id(&cloakroom_core::SessionId::parse(name).expect("the suite uses names that PHP takes"))
    }
}

/// A server that can be harmed. Its functions block, and panic where they fail.
pub trait Server: Sync {
    /// Ends it at once.
    fn stop(&self);

    /// Starts it again at the same address after [`stop`](Server::stop).
    fn restart(&self);

    /// Lets it hold its connections and answer nothing.
    fn pause(&self);

    /// Lets it go on.
    fn resume(&self);

    /// Whether records are still there after a restart.
    fn keeps_records(&self) -> bool;
}

/// How many round trips each verb of a session makes, where nobody is in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trips {
    /// A request that does not touch its session.
    pub untouched: usize,
    /// One that reads.
    pub read: usize,
    /// One that changes something with `update`.
    pub update: usize,
    /// One that changes something with `start`.
    pub start: usize,
    /// One that begins a session with `update`.
    pub create: usize,
    /// Letting a session live on that was only read, where that is due.
    pub touch: usize,
}

impl Default for Trips {
    /// Rule 5 of the protocol: 0, 1, 2 and 2; one more for a touch.
    fn default() -> Trips {
        Trips { untouched: 0, read: 1, update: 2, start: 2, create: 1, touch: 1 }
    }
}

/// The most that a layout with a protocol of somebody else's may need for a verb.
pub const MOST_TRIPS: usize = 5;
