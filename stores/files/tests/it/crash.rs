//! `kill -9` at any moment leaves the old session or the new one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cloakroom_core::store::{Claim, Expect, Outcome};
use cloakroom_core::{Store, SystemRandom};
use cloakroom_store_files::FilesStore;

use crate::child;
use crate::util::{Room, Talking, key, payload, wait};

/// A payload that tells whether it is whole: its number and length, and then bytes that follow from them.
fn numbered(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = format!("{number} {length} ").into_bytes();
    let letters = (b'a'..=b'z').cycle().skip(number % 26);
    bytes.extend(letters.take(length.saturating_sub(bytes.len())));
    bytes
}

fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let mut words = text.split(' ').map(str::parse::<usize>);
    matches!((words.next(), words.next()), (Some(Ok(number)), Some(Ok(length))) if numbered(number, length) == bytes)
}

/// Writes sessions of about `size` bytes as fast as it can: growing, shrinking, and of the same length.
pub(crate) async fn write_for_ever(store: &FilesStore, size: usize, ready: impl Fn()) {
    for number in 1.. {
        let length = size + [0, 0, 50, 5000, 20, 20, 0][number % 7];
        let put = payload(numbered(number, length));
        let outcome = store.commit(&key("a"), Expect::Any, put, &wait(1000)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
        if number == 1 {
            ready();
        }
    }
}

#[tokio::test]
async fn a_kill_leaves_the_old_session_or_the_new_one() {
    let kills: usize = std::env::var("CLOAKROOM_KILLS").map_or(60, |kills| kills.parse().unwrap());
    let (mut unfinished, mut torn) = (0, 0);
    for round in 0..kills {
        let size = [2_000, 200_000, 1_000_000][round % 3];
        let room = Room::new();
        room.create("a", numbered(0, size)).await.unwrap();
        let mut child = Talking::new(child::command("write", room.dir(), size));
        while child.line() != "> ready" {}
        let mut random = [0; 2];
        cloakroom_core::Random::fill(&SystemRandom, &mut random).unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(u16::from_le_bytes(random)) * 50_000 / 65_536));
        child.child.kill().unwrap();
        child.child.wait().unwrap();

        let left = room.bytes("a");
        assert!(!left.is_empty());
        unfinished += usize::from(fs::metadata(room.path("a")).unwrap().permissions().mode() & 0o1000 != 0);
        torn += usize::from(!is_whole(&left));
        let begun = Instant::now();
        let record = room.load("a").await.unwrap().unwrap();
        assert!(is_whole(&record.payload) && !record.tentative, "round {round}: {} bytes", record.payload.len());
        let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(room.bytes("a") == record.payload, "what was finished is in the file, for PHP too");
        assert_eq!(fs::metadata(room.path("a")).unwrap().permissions().mode() & 0o7777, 0o600);
        let outcome = room.commit("a", Expect::Held(locked.lease), payload("next")).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
        assert_eq!(room.names(), ["sess_a"], "round {round}");
    }
    println!("{kills} kills: {unfinished} in the midst of a change with a redo, {torn} of them with a torn file");
}

/// Leaves a session as a kill would after `done` bytes of the change, by copying a redo that the store made.
pub(crate) fn interrupt(room: &Room, id: &str, old: &str, new: &str, done: usize) -> PathBuf {
    let redo = room.dir().join(format!(".cloakroom-0/redo-{id}"));
    fs::write(room.path(id), old).unwrap();
    fs::set_permissions(room.path(id), fs::Permissions::from_mode(0o600)).unwrap();
    let copy = redo_of(room, id, new);
    fs::create_dir_all(redo.parent().unwrap()).unwrap();
    fs::set_permissions(redo.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&redo, copy).unwrap();
    fs::set_permissions(&redo, fs::Permissions::from_mode(0o600)).unwrap();
    let cut = old.len().min(new.len());
    let file = [&new.as_bytes()[..done], old.as_bytes().get(done..cut).unwrap_or_default()].concat();
    fs::write(room.path(id), file).unwrap();
    fs::set_permissions(room.path(id), fs::Permissions::from_mode(0o1600)).unwrap();
    redo
}

/// The redo that a write of `new` makes, caught by a child that is stopped as soon as it has signed the session.
fn redo_of(room: &Room, id: &str, new: &str) -> Vec<u8> {
    // In a directory on the same file system the session is the same file by a bind of its name: the redo names the
    // inode, so that the write has to go to the very file. A second name is refused, hence the move there and back.
    let other = Room::new();
    fs::rename(room.path(id), other.path(id)).unwrap();
    let redo = other.dir().join(format!(".cloakroom-0/redo-{id}"));
    fs::create_dir(redo.parent().unwrap()).unwrap();
    fs::set_permissions(redo.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    // A name elsewhere keeps what is removed at the end of the write.
    fs::write(&redo, "").unwrap();
    fs::set_permissions(&redo, fs::Permissions::from_mode(0o600)).unwrap();
    let kept = other.dir().join("kept");
    fs::hard_link(&redo, &kept).unwrap();
    let store = &other.store;
    let runtime = std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let outcome = runtime.block_on(store.commit(&key(id), Expect::Any, payload(new), &wait(1000))).unwrap();
            assert!(matches!(outcome, Outcome::Done(_)));
        });
        write.join()
    });
    runtime.unwrap();
    fs::rename(other.path(id), room.path(id)).unwrap();
    let bytes = fs::read(kept).unwrap();
    assert!(!bytes.is_empty(), "the write needed a redo");
    bytes
}

/// Each step of a change, by hand: the redo of the store itself, and a file that has come so far.
#[tokio::test]
async fn every_step_is_finished() {
    let text = |letter: &str, length: usize| format!("s|s:{length}:\"{}\";", letter.repeat(length));
    for (old, new) in [
        (text("o", 9_000), text("n", 9_000)),
        (text("o", 9_000), text("n", 20_000)),
        (text("o", 20_000), text("n", 9_000)),
        (text("o", 300), text("n", 200)),
        (text("o", 3), text("n", 100_000)),
    ] {
        for done in [0, 1, 5, 100, 4095, 4096, 8192, 9_013, 12_288, 50_000, 100_015] {
            let done = done.min(new.len());
            let room = Room::new();
            let redo = interrupt(&room, "a", &old, &new, done);
            let before = room.bytes("a");
            let record = room.load("a").await.unwrap().unwrap();
            let expect = if before == old.as_bytes() { &old } else { &new };
            assert!(record.payload == expect, "{done} of {} -> {}", old.len(), new.len());
            assert!(room.bytes("a") == expect.as_bytes());
            assert!(!redo.exists());
            assert_eq!(fs::metadata(room.path("a")).unwrap().permissions().mode() & 0o7777, 0o600);
            // By another call than a read.
            interrupt(&room, "a", &old, &new, done);
            let locked = room.lock("a", Claim::Either).await.unwrap().unwrap();
            assert!(locked.record.unwrap().payload == expect);
        }
    }
}

/// The redo is of no use with another file, another beginning, or where it was not written to its end.
#[tokio::test]
async fn a_redo_that_does_not_fit_is_thrown_away() {
    let old = "o".repeat(9_000);
    let new = format!("{}{}", "o".repeat(100), "n".repeat(9_000));
    for case in 0..5 {
        let room = Room::new();
        let redo = interrupt(&room, "a", &old, &new, 6_000);
        let mut file = room.bytes("a");
        match case {
            0 => file[50] = b'x',
            1 => file[8_000] = b'x',
            2 => fs::write(&redo, &fs::read(&redo).unwrap()[..5_000]).unwrap(),
            3 => file.extend_from_slice(b"and more"),
            _ => fs::remove_file(&redo).unwrap(),
        }
        fs::write(room.path("a"), &file).unwrap();
        assert!(room.load("a").await.unwrap().unwrap().payload == file, "case {case}");
        assert!(room.bytes("a") == file && !redo.exists(), "case {case}");
    }
    // A copy of the file is another inode.
    let room = Room::new();
    interrupt(&room, "a", &old, &new, 6_000);
    let file = room.bytes("a");
    fs::copy(room.path("a"), room.path("copy")).unwrap();
    fs::rename(room.path("copy"), room.path("a")).unwrap();
    assert!(room.load("a").await.unwrap().unwrap().payload == file);
}
