//! Bringing what was committed from the log into the database, beside the thread that writes.
//!
//! Left to itself, SQLite does that within a commit when the log has 1,000 pages, and flushes the disk twice; all who wait
//! for that commit, and those behind them, wait for the disk. Here another thread does most of it. Only while commits never
//! pause, so that it never catches up, the writing thread does the small rest, for a log begins anew only when nothing is
//! left in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;

use rusqlite::Connection;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;

use crate::error::Failure;
use crate::file::{Db, Role};
use crate::shared::Base;

/// A log of so many pages is worth it.
const WORTH_IT: i32 = 1000;
/// At so many the writing thread lends a hand.
const LONG: i32 = 4000;

/// The writing thread's side.
pub(crate) struct Checkpoints {
    /// How many pages the log has.
    pages: Arc<AtomicI32>,
    /// The other thread has just come to an end with its work.
    nearly_done: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Checkpoints {
    /// Starts the thread, which ends with this. Where it cannot be started, SQLite is left to itself.
    pub(crate) fn start(base: &Arc<Base>) -> Option<Checkpoints> {
        let (wake, woken) = mpsc::sync_channel(1);
        let nearly_done = Arc::new(AtomicBool::new(false));
        let (base, done) = (Arc::clone(base), Arc::clone(&nearly_done));
        let work = move || {
            let mut db = None;
            while woken.recv() == Ok(()) {
                match bring_over(&base, &mut db) {
                    Ok(()) => done.store(true, Ordering::Release),
                    Err(Failure::Busy) => {}
                    Err(failure) => {
                        db = None;
                        let error = failure.into_error();
                        tracing::warn!(%error, "the log of the SQLite database could not be brought over");
                    }
                }
            }
        };
        thread::Builder::new().name("cloakroom-sqlite-log".to_owned()).spawn(work).ok()?;
        Some(Checkpoints { pages: Arc::default(), nearly_done, wake })
    }

    /// Has a connection for writing tell how long the log is, instead of working it off within its commits.
    pub(crate) fn watch(&self, conn: &mut Connection) -> Result<(), Failure> {
        let pages = Arc::clone(&self.pages);
        let told = move |_: &mut Wal, now| {
            pages.store(now, Ordering::Relaxed);
            Ok(())
        };
        Ok(conn.wal_hook(Some(told))?)
    }

    /// After a commit, and after it was answered.
    pub(crate) fn keep_short(&self, conn: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < WORTH_IT {
            return;
        }
        if pages >= LONG && self.nearly_done.swap(false, Ordering::AcqRel) {
            // What fails here fails there as well, and is told of.
            let _ = conn.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE);
        }
        // If the last word was not heard yet, one is enough.
        if let Err(TrySendError::Disconnected(())) = self.wake.try_send(()) {
            let _ = conn.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE);
        }
    }
}

fn bring_over(base: &Base, db: &mut Option<Db>) -> Result<(), Failure> {
    let kept = db.take().filter(|db| base.site.is_current(db, std::time::Duration::ZERO));
    let db = db.insert(kept.map_or_else(|| base.site.connect(&base.way, Role::Write), Ok)?);
    db.conn.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE)?;
    Ok(())
}

/// On a full disk the log may be what fills it. True if there may be room now.
pub(crate) fn empty_log(conn: &Connection) -> bool {
    conn.wal_checkpoint_v2(Some("main"), CheckpointMode::TRUNCATE).is_ok()
}
