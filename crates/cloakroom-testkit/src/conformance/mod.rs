//! What every store has to keep, one named case for each rule of the [contract](cloakroom_core::store).
//!
//! A store runs them all with one macro and a [`Harness`] of a few lines:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use cloakroom_core::{DynStore, Key};
//! use cloakroom_testkit::conformance::Harness;
//! # use cloakroom_store_memory::MemoryStore as MyStore;
//!
//! struct Fresh(MyStore);
//!
//! impl Harness for Fresh {
//!     fn store(&self) -> Arc<dyn DynStore> {
//!         Arc::new(self.0.clone())
//!     }
//!     async fn age(&self, key: &Key, by: Duration) {
//!         self.0.age(key, by);
//!     }
//!     // And, where the store can: `second`, `aside`.
//! }
//!
//! // One #[test] for each case. After the semicolon stands what this store can beyond the rest; a test sees to it
//! // that this is neither more nor less than it really can.
//! cloakroom_testkit::store_conformance!(Fresh(MyStore::default()); limit, list, sweep);
//! ```
//!
//! The expression is evaluated anew for every case, within an async block, and has to give a store without records.
//!
//! # What can stand after the semicolon
//!
//! | | the store | is known by |
//! |---|---|---|
//! | `aside` | keeps what is set aside where the harness finds it | [`Harness::aside`] |
//! | `columns` | keeps user, address and agent | trying it |
//! | `limit` | has a largest payload | `Capabilities::max_payload` |
//! | `list` | tells which records it holds | `Store::as_list` |
//! | `lost` | has locks that can be lost while they are held | [`Harness::lose_lock`] |
//! | `second` | has another handle on the same records | [`Harness::second`] |
//! | `sweep` | leaves expired records to be swept | `Capabilities::expires_by_itself` |
//! | `talks` | keeps within the time for talking, which is none where nothing is asked over a wire | trying it |
//! | `versions` | gives another version to every write, also to one of the same bytes | trying it |
//!
//! # Time
//!
//! No case waits for luck. Where one shows that a call *waits*, it watches it for a moment: a slow machine makes
//! that case weaker and never makes it fail. All limits within which something has to happen are generous.

pub mod aside;
pub mod claims;
pub mod columns;
pub mod deaths;
pub mod dropped;
pub mod life;
pub mod limit;
pub mod list;
pub mod locks;
pub mod lost;
mod macros;
pub mod privacy;
pub mod queues;
pub mod races;
pub mod records;
pub mod second;
pub mod stated;
pub mod sweep;
pub mod talks;
#[cfg(test)]
mod tests;
mod tools;
pub mod versions;

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::{DynStore, Key};

/// What the suite has to know about a store beside the contract.
pub trait Harness: Send + Sync + 'static {
    /// The store; the same one at every call, empty at the first.
    fn store(&self) -> Arc<dyn DynStore>;

    /// Makes a record as old as if `by` had passed since it was last written or touched, also while it is locked.
    fn age(&self, key: &Key, by: Duration) -> impl Future<Output = ()> + Send;

    /// Another handle on the same records, as another process has one.
    fn second(&self) -> impl Future<Output = Option<Arc<dyn DynStore>>> + Send {
        ready(None)
    }

    /// Takes the lock away from whoever holds it, as happens to locks that have a time to live; false where a lock
    /// cannot be lost.
    fn lose_lock(&self, key: &Key) -> impl Future<Output = bool> + Send {
        let _ = key;
        ready(false)
    }

    /// All payloads that were set aside.
    fn aside(&self) -> impl Future<Output = Option<Vec<Bytes>>> + Send {
        ready(None)
    }

    /// The key for a name of up to 128 letters, digits, `-` and `,`.
    #[expect(clippy::expect_used, reason = "this crate is made of tests")]
    fn key(&self, name: &str) -> Key {
        Key::from_id(&cloakroom_core::SessionId::parse(name).expect("the suite uses names that PHP takes"))
    }

    /// How precisely the store keeps time.
    fn tick(&self) -> Duration {
        Duration::from_millis(1)
    }

    /// How many increments the races make; fewer for a store whose commits take long.
    fn increments(&self) -> usize {
        2000
    }
}

/// Runs one case on a runtime of its own. Called by the tests that the macro makes.
#[doc(hidden)]
#[expect(clippy::expect_used, reason = "this crate is made of tests")]
pub fn run(name: &str, case: impl Future<Output = ()>) {
    const LIMIT: Duration = Duration::from_secs(300);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("make a runtime");
    let ended = runtime.block_on(async { tokio::time::timeout(LIMIT, case).await.is_ok() });
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert!(ended, "`{name}` did not come to its end in {LIMIT:?}: somebody waits for a lock that nobody holds");
}
