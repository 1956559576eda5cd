//! A full disk: an error, the old data, and no more than that.

use std::fs;
use std::path::Path;
use std::process::Command;

use cloakroom_core::store::{Expect, Outcome, Put};
use cloakroom_core::{ErrorKind, Result, Store};
use cloakroom_store_files::{FilesConfig, FilesStore};
use cloakroom_testkit::php::skip;

use crate::child;
use crate::util::{Room, Talking, key, names, payload, wait};

/// A small file system of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Option<Disk> {
        if skip("root") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", options, "cloakroom-test"]).arg(dir.path()).output();
        let mounted = done.as_ref().is_ok_and(|done| done.status.success());
        assert!(mounted, "mounting a tmpfs needs root; CLOAKROOM_SKIP=root leaves this test out: {done:?}");
        Some(Disk(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(done.is_ok_and(|done| done.success()));
    }
}

/// Fills the disk but for so many pages.
fn fill(disk: &Disk, free: u64) {
    let filler = disk.path().join("filler");
    let _ = fs::remove_file(&filler);
    let stat = rustix::fs::statvfs(disk.path()).unwrap();
    let pages = stat.f_bavail.saturating_sub(free);
    fs::write(&filler, vec![0; usize::try_from(pages * 4096).unwrap()]).unwrap();
}

/// Succeeds within a second.
async fn soon(what: impl AsyncFn() -> Result<Outcome>) {
    for _ in 0..100 {
        if let Ok(outcome) = what().await {
            assert!(matches!(outcome, Outcome::Done(_)));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no space");
}

#[tokio::test]
async fn a_full_disk_costs_nothing_but_the_change() {
    let Some(disk) = Disk::new("size=512k") else { return };
    let store = FilesStore::open(FilesConfig::new(disk.path())).unwrap();
    let bytes = |letter: u8, length: usize| vec![letter; length];
    let sizes = [0, 100, 5_000, 20_000, 60_000];
    let (mut failed, mut done) = (0, 0);
    for free in 0..32 {
        for (old, new) in sizes.into_iter().flat_map(|old| sizes.map(|new| (old, new))) {
            fill(&disk, 200);
            let _ = fs::remove_file(disk.path().join("sess_a"));
            // The kernel may take a moment to give back what was removed.
            soon(async || store.commit(&key("a"), Expect::Absent, payload(bytes(b'o', old)), &wait(100)).await).await;
            let before = store.load(&key("a"), &wait(100)).await.unwrap().unwrap();
            fill(&disk, free);
            let outcome = store.commit(&key("a"), Expect::Any, payload(bytes(b'n', new)), &wait(100)).await;
            let after = store.load(&key("a"), &wait(100)).await.unwrap().unwrap();
            match outcome {
                Ok(_) => {
                    done += 1;
                    assert!(after.payload == bytes(b'n', new));
                }
                Err(error) => {
                    failed += 1;
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    assert!(!error.may_have_been_applied() && std::error::Error::source(&error).is_some());
                    assert!(after.payload == before.payload, "{old} -> {new} with {free} pages free");
                    assert!(after.ttl <= before.ttl);
                }
            }
            let litter: Vec<_> = names(disk.path()).into_iter().filter(|name| name.contains("redo")).collect();
            assert_eq!(litter, Vec::<String>::new(), "{old} -> {new} with {free} pages free");
            // There is space again.
            fs::remove_file(disk.path().join("filler")).unwrap();
            soon(async || store.commit(&key("a"), Expect::Any, payload(bytes(b'p', new)), &wait(100)).await).await;
        }
    }
    println!("{failed} of {} changes failed for want of space", failed + done);
    assert!(failed > 50 && done > 50);

    // New sessions fail without leaving anything; changes within a page and logouts need no space.
    fs::write(disk.path().join("sess_b"), "old").unwrap();
    fill(&disk, 0);
    let error = store.commit(&key("c"), Expect::Absent, payload("new"), &wait(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!disk.path().join("sess_c").exists());
    store.commit(&key("b"), Expect::Any, payload("longer than before"), &wait(100)).await.unwrap();
    assert_eq!(fs::read(disk.path().join("sess_b")).unwrap(), b"longer than before");
    let error = store.commit(&key("b"), Expect::Any, Put::SetAside, &wait(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(fs::read(disk.path().join("sess_b")).unwrap(), b"longer than before");
    store.commit(&key("b"), Expect::Any, Put::Remove, &wait(100)).await.unwrap();
}

/// A write that fails halfway although space could be reserved is taken back.
#[test]
fn what_was_written_halfway_is_taken_back() {
    let room = Room::new();
    room.plant("a", vec![b'o'; 8190]);
    let child = child::command("limit", room.dir(), 0);
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
        .arg(child.get_program())
        .args(child.get_args());
    for (name, value) in child.get_envs() {
        limited.env(name, value.unwrap());
    }
    let mut child = Talking::new(limited);
    let mut said = Vec::new();
    while said.len() < 3 {
        said.extend(child.line().strip_prefix("> ").map(str::to_owned));
    }
    assert_eq!(said, ["unavailable false true"; 3]);
    assert_eq!(room.bytes("a"), vec![b'o'; 8190]);
    assert_eq!(room.names(), ["sess_a"]);
}

#[tokio::test]
async fn no_more_files() {
    let Some(disk) = Disk::new("size=1m,nr_inodes=12") else { return };
    let store = FilesStore::open(FilesConfig::new(disk.path())).unwrap();
    let mut made = Vec::new();
    let error = loop {
        let id = format!("s{}", made.len());
        match store.commit(&key(&id), Expect::Absent, payload(&id), &wait(100)).await {
            Ok(_) => made.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(made.len() > 5);
    for id in &made {
        assert_eq!(store.load(&key(id), &wait(100)).await.unwrap().unwrap().payload, id);
        store.commit(&key(id), Expect::Any, payload(format!("{id} changed")), &wait(100)).await.unwrap();
        // A large one needs a redo, for which there is no file.
        let error = store.commit(&key(id), Expect::Any, payload(vec![b'x'; 10_000]), &wait(100)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let record = store.load(&key(id), &wait(100)).await.unwrap().unwrap();
        assert_eq!(record.payload, format!("{id} changed"));
    }
}
