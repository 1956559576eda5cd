//! Beside PHP's own handler, on the same files at the same time.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloakroom_core::Store;
use cloakroom_core::store::{Claim, Expect, Outcome};

use crate::child;
use crate::util::{Room, Talking, key, payload, php, version, wait};

/// The number in `n|i:5;`.
pub(crate) fn number(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).unwrap();
    text.strip_prefix("n|i:").and_then(|text| text.strip_suffix(';')).expect(text).parse().unwrap()
}

#[tokio::test]
async fn one_session_in_both_directions() {
    let room = Room::new();
    room.create("a", "n|i:41;").await.unwrap();
    let mut code =
        php(room.dir(), "a", "session_start(); $_SESSION['n']++; echo session_save_path() === '' ? 'no' : 'ok';");
    assert!(code.status().unwrap().success());
    let record = room.load("a").await.unwrap().unwrap();
    assert_eq!((&record.payload[..], record.tentative), (&b"n|i:42;"[..], false));
    assert!(php(room.dir(), "b", "session_start(); $_SESSION['n'] = 1;").status().unwrap().success());
    assert_eq!(room.load("b").await.unwrap().unwrap().payload, "n|i:1;");
    // PHP destroys; it is gone for us.
    assert!(php(room.dir(), "b", "session_start(); session_destroy();").status().unwrap().success());
    assert!(room.load("b").await.unwrap().is_none());
}

#[tokio::test]
async fn a_reader_does_not_wait_for_a_php_request_and_a_writer_does() {
    let room = Room::new();
    room.create("a", "n|i:1;").await.unwrap();
    let code = "session_start(); fwrite(STDOUT, \"in\\n\"); usleep(700000); $_SESSION['n'] = 2;";
    let mut request = Talking::new(php(room.dir(), "a", code));
    assert_eq!(request.line(), "in");
    let begun = Instant::now();
    let record = room.load("a").await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert!(begun.elapsed() >= Duration::from_millis(2), "two reads lie apart");
    assert_eq!((&record.payload[..], record.tentative), (&b"n|i:1;"[..], true));
    let outcome = room.commit("a", Expect::Is(&record.version), payload("n|i:9;")).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(400), "{:?}", begun.elapsed());
    assert!(matches!(outcome, Outcome::Conflict(record) if record.payload == "n|i:2;"));

    // A new session is empty while PHP's request runs. That it is empty is concluded under the lock only.
    let code = "session_start(); fwrite(STDOUT, \"in\\n\"); usleep(300000); $_SESSION['n'] = 3;";
    let mut request = Talking::new(php(room.dir(), "b", code));
    assert_eq!(request.line(), "in");
    let record = room.load("b").await.unwrap().unwrap();
    assert_eq!((&record.payload[..], record.tentative), (&b"n|i:3;"[..], false));
}

/// PHP empties the file before each write. Nobody may ever see that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_never_sees_php_emptying_or_writing() {
    let room = Room::new();
    let whole = |letter: &str| format!("s|s:30000:\"{}\";", letter.repeat(30_000));
    room.create("a", whole("a")).await.unwrap();
    let code = "fwrite(STDOUT, \"in\\n\"); $end = microtime(true) + 2.2; $n = 0;
        while (microtime(true) < $end) {
            session_start(); if ($n % 4 == 0) usleep(25000);
            $_SESSION['s'] = str_repeat(chr(97 + $n++ % 26), 30000); session_write_close();
        }
        fwrite(STDOUT, \"$n\\n\");";
    let mut writer = Talking::new(php(room.dir(), "a", code));
    assert_eq!(writer.line(), "in");
    let begun = Instant::now();
    let (mut reads, mut tentative, mut torn, mut letters) = (0, 0, 0, [false; 256]);
    while begun.elapsed() < Duration::from_secs(2) {
        let record = room.load("a").await.unwrap().unwrap();
        let letter = record.payload.get(11).copied().unwrap_or_default();
        let is_whole = record.payload == whole(&char::from(letter).to_string());
        // A tentative one that is not whole is what the core asks for again under the lock. It takes a writer that
        // got no CPU for more than 10 ms in the midst of its write.
        assert!(is_whole || record.tentative, "{} bytes", record.payload.len());
        assert!(!record.payload.is_empty());
        reads += 1;
        tentative += usize::from(record.tentative);
        torn += usize::from(!is_whole);
        letters[usize::from(letter)] = true;
    }
    let written: u64 = writer.line().parse().unwrap();
    println!("{reads} reads, {tentative} of them without the lock, {torn} torn, beside {written} writes of PHP");
    assert!(torn <= 1);
    assert!(reads > 100 && tentative > 10 && written > 100);
    assert!(letters.iter().filter(|seen| **seen).count() > 3, "the reader kept up");
}

/// A writer that is interrupted for some milliseconds in the midst of its write: older PHP does not empty the file first,
/// so that what lies there is as long as a session and may even look like one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_does_not_take_half_a_write_for_a_session() {
    use std::os::unix::fs::FileExt;
    let room = Room::new();
    room.plant("a", "a".repeat(80));
    let (path, enough) = (room.path("a"), Arc::new(AtomicBool::new(false)));
    let is_enough = Arc::clone(&enough);
    let writer = std::thread::spawn(move || {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let mut interrupted_for_long = Vec::new();
        for round in 0..2000_u16 {
            if round >= 60 && is_enough.load(Ordering::Relaxed) {
                break;
            }
            file.lock().unwrap();
            let letter = [b'c' + u8::try_from(round % 100).unwrap()];
            file.write_all_at(&letter.repeat(40), 0).unwrap();
            // The reader goes by the file's time, which lags behind on a busy machine.
            let written = file.metadata().unwrap();
            let begun = Duration::new(written.ctime().try_into().unwrap(), written.ctime_nsec().try_into().unwrap());
            std::thread::sleep(Duration::from_millis(5));
            file.write_all_at(&letter.repeat(40), 40).unwrap();
            // Nor does it wait for ever, and some milliseconds may become many.
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            if now.saturating_sub(begun) > Duration::from_millis(9) {
                interrupted_for_long.push(letter[0]);
            }
            std::thread::sleep(Duration::from_millis(20));
            file.unlock().unwrap();
        }
        interrupted_for_long
    });
    std::thread::sleep(Duration::from_millis(20));
    let (mut halves, mut wholes) = (Vec::new(), 0);
    while !writer.is_finished() {
        let payload = room.load("a").await.unwrap().unwrap().payload;
        let whole = payload.iter().all(|letter| *letter == payload[0]);
        if whole {
            wholes += 1;
        } else {
            halves.push(payload[0]);
        }
        enough.store(wholes > 30, Ordering::Relaxed);
    }
    let interrupted_for_long = writer.join().unwrap();
    println!("{wholes} whole sessions, {halves:?} halves, {} long interruptions", interrupted_for_long.len());
    assert!(wholes > 30, "{wholes}");
    assert!(halves.iter().all(|half| interrupted_for_long.contains(half)), "{halves:?} {interrupted_for_long:?}");
}

/// Two processes of ours and two of PHP count up one number, 2,000 times in all.
#[tokio::test]
async fn no_update_is_lost() {
    let room = Room::new();
    room.plant("a", "n|i:0;");
    let code = "fwrite(STDOUT, \"in\\n\");
        for ($i = 0; $i < 500; $i++) { session_start(); $_SESSION['n']++; session_write_close(); }
        fwrite(STDOUT, \"done\\n\");";
    let mut php = [(); 2].map(|()| Talking::new(php(room.dir(), "a", code)));
    let mut ours = [(); 2].map(|()| Talking::new(child::command("count", room.dir(), 500)));
    for worker in &mut php {
        assert_eq!(worker.line(), "in");
        assert_eq!(worker.line(), "done");
    }
    for child in &mut ours {
        while child.line() != "> done" {}
    }
    assert_eq!(number(&room.bytes("a")), 2000);
}

/// Trying again and again starves beside workers that wait in the kernel. What a turn takes is the machine's; how many
/// there are beside those of PHP's workers is ours.
#[tokio::test]
async fn whoever_waits_beside_php_gets_a_turn() {
    let room = Room::new();
    room.plant("a", "n|i:0;");
    let code = "fwrite(STDOUT, \"in\n\"); $turns = 0;
        for ($end = microtime(true) + 4; microtime(true) < $end; $turns++) {
            session_start(); usleep(5000); session_write_close();
        }
        fwrite(STDOUT, \"$turns\n\");";
    let mut workers: Vec<_> = (0..6).map(|_| Talking::new(php(room.dir(), "a", code))).collect();
    for worker in &mut workers {
        assert_eq!(worker.line(), "in");
    }
    let (begun, mut ours) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(4) {
        let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        locked.lease.release().await;
        ours += 1;
    }
    let mut theirs = workers.iter_mut().map(|worker| worker.line().parse::<usize>().unwrap()).collect::<Vec<_>>();
    theirs.sort_unstable();
    println!("{ours} turns beside {theirs:?} of PHP's workers");
    // A worker on a processor of its own may take the lock again before those whom it woke are there.
    let usual = theirs[theirs.len() / 2];
    assert!(ours * 4 > usual, "{ours} turns beside {theirs:?}");
}

/// What PHP has done to a file since our write was killed is what counts.
#[tokio::test]
async fn php_after_a_crash() {
    let room = Room::new();
    let old = format!("n|i:1;s|s:9000:\"{}\";", "o".repeat(9000));
    room.create("a", &old).await.unwrap();
    let redo = crate::crash::interrupt(&room, "a", &old, &format!("n|i:20;s|s:9000:\"{}\";", "w".repeat(9000)), 0);
    // Interrupted before the first byte: PHP reads the old session and writes it anew.
    assert!(php(room.dir(), "a", "session_start(); $_SESSION['n'] = 5;").status().unwrap().success());
    let now = room.load("a").await.unwrap().unwrap().payload;
    assert_eq!(now, old.replace("n|i:1;", "n|i:5;"));
    assert!(!redo.exists());

    // PHP has logged the user out and in again: another file.
    let redo = crate::crash::interrupt(&room, "b", &old, &old.replace('o', "w"), 5000);
    std::fs::remove_file(room.path("b")).unwrap();
    assert!(php(room.dir(), "b", "session_start();").status().unwrap().success());
    assert_eq!(room.load("b").await.unwrap().unwrap().payload, "");
    assert!(redo.exists(), "swept later");

    // An empty file may be a logout, even where the sign is still on it.
    let redo = crate::crash::interrupt(&room, "c", &old, &old.replace('o', "w"), 5000);
    std::fs::File::options().write(true).open(room.path("c")).unwrap().set_len(0).unwrap();
    assert_eq!(room.load("c").await.unwrap().unwrap().payload, "");
    assert!(!redo.exists());
    let is_old = version(&old);
    let outcome = room.store.commit(&key("c"), Expect::Is(&is_old), payload("x"), &wait(1000)).await.unwrap();
    assert!(matches!(outcome, Outcome::Conflict(record) if record.payload.is_empty()));
    assert!(room.lock("c", Claim::Existing).await.unwrap().is_some());
}
