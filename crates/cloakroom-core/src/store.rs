//! Where sessions are kept: the contract between the session and a store.
//!
//! A store moves bytes. It knows versions, times to live and locks, and never looks into a payload. Its comments
//! settle the edges; `cloakroom-testkit` has a test for each of them that any store can run.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Deadline, Result, SessionId, Tag};

/// A future in a box, as the core holds it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where sessions are kept.
///
/// Every `Err` means that the system failed, never that the visitor did: a record that is absent or has expired is
/// `None` or [`Outcome::Gone`]. A record is *present* if it exists and has not expired by the store's own clock, even
/// with 0 bytes. Every call is atomic: dropped midway it has not begun or runs to its end.
///
/// Locks: while one [`Lease`] on a key is alive, no other `lock` is granted, and no `commit` but the holder's is
/// done, also not those of PHP or of another process where the layout has a lock that they see. `load` waits for
/// nobody. Waiting is first come, first served within a process and ends at [`Deadline::wait_until`] with
/// [`ErrorKind::Locked`](crate::ErrorKind::Locked).
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// What this store can do. The conformance suite runs the cases that follow from it.
    fn capabilities(&self) -> Capabilities;

    /// Reads a record without waiting for anybody's lock, in one round trip. `None` if it is not present.
    fn load(&self, key: &Key, deadline: &Deadline) -> impl Future<Output = Result<Option<Record>>> + Send;

    /// Takes the lock and reads what is there. What is there but has expired is destroyed first.
    ///
    /// `None` where `claim` cannot be met: [`Claim::Existing`] of a record that is not present (and which is not
    /// made by asking), [`Claim::New`] of one that is.
    fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline)
    -> impl Future<Output = Result<Option<Locked>>> + Send;

    /// Carries out `put` if `expect` holds, both in one atomic step.
    ///
    /// It waits while somebody else holds the lock; only a [`Put::Touch`], which changes no data, need not. A record whose
    /// life ends while its holder is at work is absent for others, is not swept, and can still be written by him. An error leaves the old record as it was, or says
    /// [`or_maybe_applied`](crate::Error::or_maybe_applied) where the reply was lost; the store itself never
    /// tries a second time then. A lease is released by the commit, also by one that fails.
    fn commit(
        &self,
        key: &Key,
        expect: Expect<'_>,
        put: Put,
        deadline: &Deadline,
    ) -> impl Future<Output = Result<Outcome>> + Send;

    /// Removes expired records, looking at no more than about `step` of them, and none that is locked or was
    /// touched meanwhile. The next call goes on where this one ended.
    fn sweep(&self, step: usize) -> impl Future<Output = Result<Swept>> + Send;

    /// Waits until the store has done what it does beside its callers, above all giving back the locks of leases that
    /// were dropped; [`Tasks`](crate::Tasks) counts that. It is called when a program ends, so that those who come
    /// next find no lock that only runs out.
    fn settle(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// The second part of the contract, for stores that can tell what they hold.
    fn as_list(&self) -> Option<&dyn List> {
        None
    }
}

/// For stores that can tell which records they hold.
pub trait List: Send + Sync {
    /// Up to `limit` records that are present and whose key sorts after `after`, in the order of their keys.
    fn list<'a>(&'a self, after: Option<&'a Key>, limit: usize) -> BoxFuture<'a, Result<Vec<Listed>>>;
}

/// One record as [`List::list`] tells of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed {
    /// The record's key.
    pub key: Key,
    /// The length of the payload in bytes.
    pub size: u64,
    /// Remaining life.
    pub ttl: Option<Duration>,
}

impl Listed {
    /// A record with its size and remaining life.
    pub fn new(key: Key, size: u64, ttl: Option<Duration>) -> Listed {
        Listed { key, size, ttl }
    }
}

/// By which name a store keeps a session. Made by the dialect: it need not be the id.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    record: Arc<[u8]>,
    lock: Option<Arc<[u8]>>,
    route: Option<Arc<[u8]>>,
}

impl Key {
    /// The key of PHP's own layouts: the id, for everything.
    pub fn from_id(id: &SessionId) -> Key {
        Key { record: id.shared(), lock: None, route: None }
    }

    /// A key of any bytes, for layouts in which the key is not the id.
    pub fn from_bytes(record: impl Into<Arc<[u8]>>) -> Key {
        Key { record: record.into(), lock: None, route: None }
    }

    /// The same key with another name for its lock.
    #[must_use]
    pub fn with_lock(mut self, lock: impl Into<Arc<[u8]>>) -> Key {
        self.lock = Some(lock.into());
        self
    }

    /// The same key with another text to choose the server by.
    #[must_use]
    pub fn with_route(mut self, route: impl Into<Arc<[u8]>>) -> Key {
        self.route = Some(route.into());
        self
    }

    /// What the record is called, before the store adds what its layout adds (`sess_`, `PHPREDIS_SESSION:`).
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// What the lock is called, before the store adds what its layout adds.
    pub fn lock(&self) -> &[u8] {
        self.lock.as_ref().unwrap_or(&self.record)
    }

    /// By what the server is chosen, where there are several.
    pub fn route(&self) -> &[u8] {
        self.route.as_ref().unwrap_or(&self.record)
    }

    /// What stands for the key in logs.
    pub fn tag(&self) -> Tag {
        Tag::of(&self.record)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.tag())
    }
}

/// Which state of a record a commit must find: opaque bytes that only the store understands.
#[derive(Clone, PartialEq, Eq)]
pub struct Version(Bytes);

impl Version {
    /// A version of these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Version {
        Version(bytes.into())
    }

    /// The bytes, for the store that made them.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Version {
    /// Some stores use the payload as its version, so that nothing of it is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({} bytes)", self.0.len())
    }
}

/// A record as it was found.
#[derive(Clone)]
#[non_exhaustive]
pub struct Record {
    /// What lies in the store.
    pub payload: Bytes,
    /// To be given back in [`Expect::Is`].
    pub version: Version,
    /// Remaining life; `None` for a record that lives for ever.
    pub ttl: Option<Duration>,
    /// True where the store could not be sure that no other writer was in the midst of its work. The core then takes
    /// the record for true only if it is whole, and asks again under the lock if it is not.
    pub tentative: bool,
    /// What layouts with columns keep beside the payload.
    pub columns: Columns,
}

impl Record {
    /// A record that is certain.
    pub fn new(payload: Bytes, version: Version, ttl: Option<Duration>) -> Record {
        Record { payload, version, ttl, tentative: false, columns: Columns::default() }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { payload, ttl, tentative, .. } = self;
        write!(f, "Record({} bytes, ttl {ttl:?}, tentative {tentative})", payload.len())
    }
}

/// What layouts with columns keep beside the payload; `None` leaves a column as it is.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Columns {
    /// Who is logged in.
    pub user: Option<String>,
    /// The visitor's address.
    pub address: Option<String>,
    /// The visitor's `User-Agent`.
    pub agent: Option<String>,
}

/// Which record a [`Store::lock`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// Only one that is present (PHP's strict mode).
    Existing,
    /// Only one that is not; it is made, exclusively and with 0 bytes where the layout's lock needs a record.
    New,
    /// Whichever is there, or a new one (PHP without strict mode).
    Either,
}

/// What [`Store::lock`] gives.
#[derive(Debug)]
#[non_exhaustive]
pub struct Locked {
    /// The lock; it is held until it is given back.
    pub lease: Box<dyn Lease>,
    /// What is there; `None` if this call made it or would have to make it.
    pub record: Option<Record>,
}

impl Locked {
    /// A lock, and what lies behind it.
    pub fn new(lease: Box<dyn Lease>, record: Option<Record>) -> Locked {
        Locked { lease, record }
    }
}

/// A held lock. Dropping it releases the lock as well, without telling whether that worked.
pub trait Lease: fmt::Debug + Send + 'static {
    /// Gives the lock back and leaves the record as it is.
    fn release(self: Box<Self>) -> BoxFuture<'static, ()>;

    /// The store's own type, for [`Expect::Held`].
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

/// What must be so for a commit to be done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Expect<'a> {
    /// No such record is present.
    Absent,
    /// A record is present, whichever.
    Any,
    /// The record is as it was when it had this version.
    Is(&'a Version),
    /// The caller holds the lock. If it was lost meanwhile, nothing is done: an error ([`Error::lock_lost`](crate::Error::lock_lost)) if the record
    /// is there, `Gone` only if it is not.
    Held(Box<dyn Lease>),
}

/// What a commit does.
#[derive(Debug)]
#[non_exhaustive]
pub enum Put {
    /// Writes a whole record.
    Payload(Payload),
    /// Leaves the payload and lets the record live for so long from now on.
    Touch(Duration),
    /// Destroys the record, so that also who waits for its lock does not get it any more. On `files` this is done
    /// at the end of the waiting limit even without the lock.
    Remove,
    /// Destroys the record and keeps a copy of its payload, under a name that no session has, for people to look at.
    SetAside,
}

/// What [`Put::Payload`] writes.
#[derive(Clone)]
#[non_exhaustive]
pub struct Payload {
    /// The payload.
    pub bytes: Bytes,
    /// How long the record lives from now on.
    pub ttl: Duration,
    /// For layouts that have columns.
    pub columns: Columns,
}

impl Payload {
    /// A payload and its life, without columns.
    pub fn new(bytes: Bytes, ttl: Duration) -> Payload {
        Payload { bytes, ttl, columns: Columns::default() }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes, ttl {:?})", self.bytes.len(), self.ttl)
    }
}

/// How a commit ended. Nothing was changed unless it says `Done` or `Removed`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Written or touched. The version the record has now, where the store can tell.
    Done(Option<Version>),
    /// Removed, and what was there.
    Removed(Record),
    /// The record has another version: this one. Only after [`Expect::Is`].
    Conflict(Record),
    /// There is a record already. Only after [`Expect::Absent`].
    Taken,
    /// There is no such record (any more).
    Gone,
}

/// What a [`Store::sweep`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// How many records it removed.
    pub removed: usize,
    /// True if it came to the end of what there is; the next call begins anew.
    pub done: bool,
}

impl Swept {
    /// So many removed, and whether that was the last step of a round.
    pub fn new(removed: usize, done: bool) -> Swept {
        Swept { removed, done }
    }
}

/// What a store can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// PHP's own handler for this layout takes part in the locks.
    pub php_locks: bool,
    /// The store removes expired records by itself; sweeping has nothing to do.
    pub expires_by_itself: bool,
    /// Records survive the end of the process.
    pub persistent: bool,
    /// Several processes see the same records and honour each other's locks.
    pub shared: bool,
    /// The layout has one lock for all records: who holds one of them holds up all other locks and commits. `load` still
    /// waits for nobody.
    pub one_lock: bool,
    /// The largest payload in bytes, where there is a fixed limit.
    pub max_payload: Option<u64>,
    /// The store cannot check its lock and a version in one step, so that a commit on a version takes the lock in a
    /// round trip of its own. A change that has read nothing yet then reads under the lock, if that is free.
    pub lock_first: bool,
}

/// [`Store`] in the boxed form that the core holds. Every store has it by itself.
pub trait DynStore: fmt::Debug + Send + Sync + 'static {
    /// [`Store::capabilities`].
    fn capabilities(&self) -> Capabilities;
    /// [`Store::load`].
    fn load<'a>(&'a self, key: &'a Key, deadline: &'a Deadline) -> BoxFuture<'a, Result<Option<Record>>>;
    /// [`Store::lock`].
    fn lock<'a>(&'a self, key: &'a Key, claim: Claim, deadline: &'a Deadline) -> BoxFuture<'a, Result<Option<Locked>>>;
    /// [`Store::commit`].
    fn commit<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect<'a>,
        put: Put,
        deadline: &'a Deadline,
    ) -> BoxFuture<'a, Result<Outcome>>;
    /// [`Store::sweep`].
    fn sweep(&self, step: usize) -> BoxFuture<'_, Result<Swept>>;
    /// [`Store::settle`].
    fn settle(&self) -> BoxFuture<'_, ()>;
    /// [`Store::as_list`].
    fn as_list(&self) -> Option<&dyn List>;
}

impl<S: Store> DynStore for S {
    fn capabilities(&self) -> Capabilities {
        Store::capabilities(self)
    }

    fn load<'a>(&'a self, key: &'a Key, deadline: &'a Deadline) -> BoxFuture<'a, Result<Option<Record>>> {
        Box::pin(Store::load(self, key, deadline))
    }

    fn lock<'a>(&'a self, key: &'a Key, claim: Claim, deadline: &'a Deadline) -> BoxFuture<'a, Result<Option<Locked>>> {
        Box::pin(Store::lock(self, key, claim, deadline))
    }

    fn commit<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect<'a>,
        put: Put,
        deadline: &'a Deadline,
    ) -> BoxFuture<'a, Result<Outcome>> {
        Box::pin(Store::commit(self, key, expect, put, deadline))
    }

    fn sweep(&self, step: usize) -> BoxFuture<'_, Result<Swept>> {
        Box::pin(Store::sweep(self, step))
    }

    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(Store::settle(self))
    }

    fn as_list(&self) -> Option<&dyn List> {
        Store::as_list(self)
    }
}
