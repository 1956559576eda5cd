//! A full disk, and a read-only one: an error, the old data, and no more than that.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{ErrorKind, Store};
use cloakroom_store_sqlite::SqliteStore;
use cloakroom_testkit::php::skip;

use crate::util::{config, key, payload, wait};

/// A small file system of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", options, "cloakroom-test"]).arg(dir.path()).output();
        if done.as_ref().is_ok_and(|done| done.status.success()) {
            return Some(Disk(dir));
        }
        assert!(skip("root"), "mounting a tmpfs needs root; CLOAKROOM_SKIP=root leaves this test out: {done:?}");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills the disk but for so many pages.
    fn fill(&self, free: u64) {
        let filler = self.path().join("filler");
        let _ = fs::remove_file(&filler);
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let pages = stat.f_bavail.saturating_sub(free);
        fs::write(&filler, vec![0; usize::try_from(pages * 4096).unwrap()]).unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|done| done.success()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_nothing_but_the_change() {
    let Some(disk) = Disk::new("size=16m") else { return };
    let store = SqliteStore::open(config(&disk.path().join("sessions.db"), "")).await.unwrap();
    let commit = async |id: &str, put: Put| store.commit(&key(id), Expect::Any, put, &wait(2000)).await;
    for id in ["a", "b", "c"] {
        store.commit(&key(id), Expect::Absent, payload("old"), &wait(2000)).await.unwrap();
    }
    let (mut failed, mut done) = (0, 0);
    for free in (0..200).step_by(5) {
        disk.fill(free);
        for size in [100, 20_000, 400_000] {
            let before = store.load(&key("a"), &wait(100)).await.unwrap().unwrap();
            let put = payload(vec![b'n'; size + usize::try_from(free).unwrap()]);
            // Others of the same group, small enough to find room where it does not.
            let (large, small) = tokio::join!(commit("a", put), commit("b", payload(format!("small {free} {size}"))));
            let after = store.load(&key("a"), &wait(100)).await.unwrap().unwrap();
            match large {
                Ok(outcome) => {
                    done += 1;
                    assert!(matches!(outcome, Outcome::Done(_)));
                    assert_eq!(after.payload.len(), size + usize::try_from(free).unwrap());
                }
                Err(error) => {
                    failed += 1;
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    assert!(!error.may_have_been_applied(), "{error:?}");
                    assert!(format!("{error:?}").contains("full"), "{error:?}");
                    assert!(after.payload == before.payload && after.version == before.version);
                }
            }
            let found = store.load(&key("b"), &wait(100)).await.unwrap().unwrap().payload;
            assert_eq!(small.is_ok(), found == format!("small {free} {size}"), "{small:?}");
        }
        disk.free();
        // The kernel may take a moment to give back what was removed.
        let begun = std::time::Instant::now();
        while let Err(error) = commit("a", payload("old")).await {
            assert!(begun.elapsed() < Duration::from_secs(1), "{error:?}");
        }
    }
    println!("{failed} of {} changes failed for want of space", failed + done);
    assert!(failed > 10 && done > 20);
    // A lock that could not be given back for want of space is given back later, or runs out.
    let lease = store.lock(&key("c"), Claim::Existing, &wait(2000)).await.unwrap().unwrap().lease;
    disk.fill(0);
    let error = store.commit(&key("c"), Expect::Held(lease), payload(vec![b'x'; 7 << 20]), &wait(2000)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Unavailable);
    disk.free();
    let locked = store.lock(&key("c"), Claim::Existing, &wait(10_000)).await.unwrap().unwrap();
    assert_eq!(locked.record.unwrap().payload, "old");
}

/// What fills the disk may be our own log, which is as long as it has once been.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fills_the_disk_is_emptied_before_anybody_is_refused() {
    let Some(disk) = Disk::new("size=8m") else { return };
    let path = disk.path().join("sessions.db");
    let store = SqliteStore::open(config(&path, "")).await.unwrap();
    store.commit(&key("a"), Expect::Absent, payload(vec![b'x'; 20_000]), &wait(2000)).await.unwrap();
    let beside = rusqlite::Connection::open(&path).unwrap();
    beside.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    for n in 0..120_u8 {
        store.commit(&key("a"), Expect::Any, payload(vec![n; 20_000]), &wait(2000)).await.unwrap();
    }
    assert!(fs::metadata(path.with_extension("db-wal")).unwrap().len() > 2 << 20);
    disk.fill(30);
    let outcome = store.commit(&key("b"), Expect::Absent, payload(vec![b'x'; 1 << 20]), &wait(2000)).await.unwrap();
    assert!(matches!(outcome, Outcome::Done(_)));
    assert_eq!(store.load(&key("b"), &wait(2000)).await.unwrap().unwrap().payload.len(), 1 << 20);
    assert_eq!(store.load(&key("a"), &wait(2000)).await.unwrap().unwrap().payload, vec![119; 20_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_disk_is_a_setup_that_cannot_work() {
    let Some(disk) = Disk::new("size=4m") else { return };
    let path = disk.path().join("sessions.db");
    let store = SqliteStore::open(config(&path, "busy=200")).await.unwrap();
    store.commit(&key("a"), Expect::Absent, payload("old"), &wait(2000)).await.unwrap();
    drop(store);
    // Connections close in the background; a disk in use cannot be remounted.
    let begun = std::time::Instant::now();
    while path.with_extension("db-wal").exists() && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    disk.remount("ro");
    let error = SqliteStore::open(config(&path, "busy=200")).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    disk.remount("rw");
    let store = SqliteStore::open(config(&path, "")).await.unwrap();
    assert_eq!(store.load(&key("a"), &wait(100)).await.unwrap().unwrap().payload, "old");
}
