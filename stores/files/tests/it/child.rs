//! Other processes: this test binary run again, with a part to play named in the environment.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Put};
use cloakroom_core::{Store, store::Record};
use cloakroom_store_files::{FilesConfig, FilesStore, Io};

use crate::crash;
use crate::util::{key, payload, wait};

const PART: &str = "CLOAKROOM_PART";
const DIR: &str = "CLOAKROOM_DIR";
const NUMBER: &str = "CLOAKROOM_NUMBER";

/// The command that plays `part` in `dir`.
pub(crate) fn command(part: &str, dir: &Path, number: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child::plays_its_part", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(PART, part).env(DIR, dir).env(NUMBER, number.to_string());
    command
}

/// Says a line to the parent, past the test harness.
fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n> {text}").unwrap();
    out.flush().unwrap();
}

#[test]
fn plays_its_part() {
    let Ok(part) = std::env::var(PART) else { return };
    let dir = std::env::var(DIR).unwrap();
    let number: usize = std::env::var(NUMBER).unwrap().parse().unwrap();
    // strace is slow enough to send everything to the pool.
    let io = if part == "calls" { Io::Inline } else { Io::Auto };
    let store = FilesStore::open(FilesConfig::new(dir).io(io)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match part.as_str() {
            "count" => count(&store, number).await,
            "hold" => {
                let _held = store.lock(&key("a"), Claim::Existing, &wait(1000)).await.unwrap().unwrap();
                say("held");
                std::thread::sleep(Duration::from_secs(60));
            }
            "write" => crash::write_for_ever(&store, number, || say("ready")).await,
            "look" => look(&store).await,
            "limit" => limit(&store).await,
            "calls" => calls(&store).await,
            other => panic!("no part {other}"),
        }
    });
}

/// Counts up a number in session `a`, in turn as the core's `update` and as its `start` do.
async fn count(store: &FilesStore, times: usize) {
    for turn in 0..times {
        if turn % 2 == 1 {
            let locked = store.lock(&key("a"), Claim::Existing, &wait(20_000)).await.unwrap().unwrap();
            let next = next(&locked.record.unwrap());
            let commit = store.commit(&key("a"), Expect::Held(locked.lease), payload(next), &wait(20_000)).await;
            assert!(matches!(commit.unwrap(), Outcome::Done(_)));
            continue;
        }
        let mut record = store.load(&key("a"), &wait(20_000)).await.unwrap().unwrap();
        loop {
            let next = next(&record);
            let outcome = store.commit(&key("a"), Expect::Is(&record.version), payload(next), &wait(20_000)).await;
            match outcome.unwrap() {
                Outcome::Done(_) => break,
                Outcome::Conflict(now) => record = now,
                other => panic!("{other:?}"),
            }
        }
    }
    say("done");
}

fn next(record: &Record) -> String {
    format!("n|i:{};", crate::php::number(&record.payload) + 1)
}

/// Tells what becomes of each of some sessions, for a process of another user.
async fn look(store: &FilesStore) {
    for id in ["mine", "roots", "foreign", "secret"] {
        let load = store.load(&key(id), &wait(1000)).await;
        let lock = store.lock(&key(id), Claim::Existing, &wait(1000)).await.map(|locked| locked.is_some());
        let write = store.commit(&key(id), Expect::Any, payload("written by nobody"), &wait(1000)).await;
        say(&format!("{id} {} {} {}", load.is_ok(), lock.is_ok(), write.is_ok()));
    }
    let outcome = store.commit(&key("large"), Expect::Any, payload(vec![b'x'; 10_000]), &wait(1000)).await;
    say(&format!("large {}", outcome.is_ok()));
}

/// Grows a session beyond the largest file that this process may write.
async fn limit(store: &FilesStore) {
    let old = store.load(&key("a"), &wait(1000)).await.unwrap().unwrap().payload;
    for bytes in
        [[&old[..], b"and more"].concat(), [&old[..8150], &[b'n'; 50]].concat(), [b"inserted", &old[..]].concat()]
    {
        let error = store.commit(&key("a"), Expect::Any, payload(bytes), &wait(1000)).await.unwrap_err();
        let after = store.load(&key("a"), &wait(1000)).await.unwrap().unwrap().payload;
        say(&format!("{} {} {}", error.kind(), error.may_have_been_applied(), after == old));
    }
}

/// Each call once more between two marks, for strace.
async fn calls(store: &FilesStore) {
    let mark = |name: &str| drop(std::fs::metadata(format!("/mark-{name}")));
    let small = |letter: &str| payload(format!("{letter}{}", "x".repeat(500)));
    store.commit(&key("a"), Expect::Absent, small("a"), &wait(1000)).await.unwrap();
    for round in ["warm", "mark"] {
        let name = |name: &str| {
            if round == "mark" {
                mark(name);
            }
        };
        name("load");
        let record = store.load(&key("a"), &wait(1000)).await.unwrap().unwrap();
        name("absent");
        assert!(store.load(&key("zz"), &wait(1000)).await.unwrap().is_none());
        name("update");
        let deadline = wait(1000);
        let other = if record.payload[0] == b'a' { "b" } else { "a" };
        store.commit(&key("a"), Expect::Is(&record.version), small(other), &deadline).await.unwrap();
        name("touch");
        store.commit(&key("a"), Expect::Any, Put::Touch(crate::util::LIFE), &wait(1000)).await.unwrap();
        name("start");
        let locked = store.lock(&key("a"), Claim::Existing, &wait(1000)).await.unwrap().unwrap();
        let other = if other == "a" { "b" } else { "a" };
        store.commit(&key("a"), Expect::Held(locked.lease), small(other), &wait(1000)).await.unwrap();
        name("create");
        store.commit(&key(&format!("new{round}")), Expect::Absent, small("n"), &wait(1000)).await.unwrap();
        name("shrink");
        store.commit(&key("a"), Expect::Any, payload("c".repeat(300)), &wait(1000)).await.unwrap();
        name("end");
    }
}
