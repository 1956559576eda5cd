//! The file: who may read it, what may lie in its place, and what is made in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Outcome, Payload, Put};
use cloakroom_core::{Error, ErrorKind, Store};
use cloakroom_store_sqlite::{SqliteConfig, SqliteStore};

use crate::util::{LIFE, Room, config, key, payload, wait};

async fn refused(path: &Path, options: &str) -> Error {
    match SqliteStore::open(config(path, options)).await {
        Ok(_) => panic!("{} {options} can be opened", path.display()),
        Err(error) => error,
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_database_is_for_its_owner_alone() {
    let room = Room::new().await;
    room.create("a", "x").await;
    for end in ["", "-wal", "-shm"] {
        let path = room.dir().join(format!("sessions.db{end}"));
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    // One that was there keeps the mode that somebody has given it.
    drop(room);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    let room = Room::in_dir(dir, "").await;
    room.create("a", "x").await;
    assert_eq!(mode(&path), 0o660);
    assert_eq!(mode(&room.dir().join("sessions.db-wal")), 0o660);
}

#[tokio::test]
async fn links_and_other_things_in_its_place_are_refused() {
    let elsewhere = Room::new().await;
    let dir = tempfile::tempdir().unwrap();
    let [link, dangling, second, folder] = ["link", "dangling", "second", "folder"].map(|name| dir.path().join(name));
    symlink(elsewhere.path(), &link).unwrap();
    symlink(dir.path().join("nothing"), &dangling).unwrap();
    fs::hard_link(elsewhere.path(), &second).unwrap();
    fs::create_dir(&folder).unwrap();
    for path in [&link, &dangling, &second, &folder] {
        assert_eq!(refused(path, "").await.kind(), ErrorKind::Config, "{}", path.display());
    }
    assert!(!dir.path().join("nothing").exists());
    // A link on the way to it is nobody's trap: releases are switched by one.
    fs::remove_file(&second).unwrap();
    symlink(elsewhere.dir(), dir.path().join("current")).unwrap();
    assert!(SqliteStore::open(config(&dir.path().join("current/sessions.db"), "")).await.is_ok());
}

/// As /tmp is: whoever comes first may have left something there.
#[tokio::test]
async fn what_others_left_in_a_directory_of_everybodys_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused(&path, "").await.to_string().contains("everybody"));
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    drop(SqliteStore::open(config(&path, "")).await.unwrap());
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let nobody = Some(65_534);
    for name in ["sessions.db-wal", "sessions.db"] {
        let planted = dir.path().join(name);
        if !planted.exists() {
            fs::write(&planted, "").unwrap();
        }
        chown(&planted, nobody, nobody).unwrap();
        assert!(refused(&path, "").await.to_string().contains("another user"), "{name}");
        fs::remove_file(&planted).unwrap();
    }
    // In a directory of one's own a file may be shared, as with PHP's user.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    drop(SqliteStore::open(config(&path, "")).await.unwrap());
    chown(&path, nobody, nobody).unwrap();
    assert!(SqliteStore::open(config(&path, "")).await.is_ok());
}

#[tokio::test]
async fn a_setup_that_cannot_work_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sessions.db");
    for (url, says) in [
        (dir.path().join("missing/sessions.db"), "directory"),
        (Path::new("/proc/version").to_owned(), "file"),
        (Path::new("/proc/sessions.db").to_owned(), "made"),
    ] {
        let error = refused(&url, "").await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        if says != "file" {
            assert!(error.to_string().contains(says), "{error:?}");
        }
    }
    fs::write(&path, "this is a text, and no database; it is longer than a header of one would be. ".repeat(20))
        .unwrap();
    let error = refused(&path, "").await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("is none"), "{error:?}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("this is a text"));
    fs::remove_file(&path).unwrap();
    // Symfony's table is the application's.
    let error = refused(&path, "layout=symfony").await;
    assert!(error.to_string().contains("`sessions`") && error.to_string().contains("migrate=yes"), "{error:?}");
    assert!(SqliteStore::open(config(&path, "layout=symfony&migrate=yes")).await.is_ok());
    let error = refused(&path, "table=sessions").await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("other columns"), "{error:?}");
    assert_eq!(refused(&path, "table=new&migrate=no").await.kind(), ErrorKind::Config);
    assert_eq!(refused(&path, "table=a.b").await.kind(), ErrorKind::Config);
    assert!(SqliteStore::open(SqliteConfig::new(&path).max_payload(1 << 30)).await.is_err());
}

#[tokio::test]
async fn several_tables_live_in_one_database() {
    let room = Room::new().await;
    room.create("a", "x").await;
    let other = SqliteStore::open(config(&room.path(), "table=admin_sessions")).await.unwrap();
    assert!(other.load(&key("a"), &wait(1000)).await.unwrap().is_none());
    other.commit(&key("a"), Expect::Absent, payload("y"), &wait(1000)).await.unwrap();
    assert_eq!(room.load("a").await.unwrap().unwrap().payload, "x");
    assert_eq!(other.load(&key("a"), &wait(1000)).await.unwrap().unwrap().payload, "y");
}

#[tokio::test]
async fn readers_wait_for_nobody_because_of_the_log() {
    let room = Room::new().await;
    room.create("a", "x").await;
    let mode: String = room.beside().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    let mut beside = room.beside();
    let open = beside.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    open.execute("UPDATE cloakroom_sessions SET payload = x'79'", []).unwrap();
    let short = cloakroom_core::Deadline::new(std::time::Duration::from_millis(500), LIFE);
    assert_eq!(room.store.load(&key("a"), &short).await.unwrap().unwrap().payload, "x");
    open.commit().unwrap();
    assert_eq!(room.load("a").await.unwrap().unwrap().payload, "y");
}

/// People look into the table, and other programs count what is in it.
#[tokio::test]
async fn the_columns_tell_what_they_are_called() {
    let room = Room::new().await;
    let mut put = Payload::new(Bytes::from("x"), LIFE);
    put.columns.user = Some("17".to_owned());
    put.columns.agent = Some("A\0gent ".repeat(1000));
    room.commit("a", Expect::Absent, Put::Payload(put)).await.unwrap();
    let row = |what: &str| {
        let row = format!("SELECT {what} FROM cloakroom_sessions WHERE id = CAST('a' AS BLOB)");
        room.beside().query_row(&row, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(row("expires_at - created_at"), 1_440_000);
    assert!((0..60_000).contains(&row("unixepoch() * 1000 + 999 - created_at")));
    assert_eq!(row("last_seen_at - created_at"), 0);
    assert_eq!(row("user_id = '17' AND address IS NULL AND length(agent) = 2000"), 1);
    assert_eq!(row("lock_token > 0"), 0);
    let held = room.lock("a", Claim::Existing).await.unwrap().unwrap();
    assert_eq!(row("lock_token > 0 AND lock_until > unixepoch() * 1000"), 1);
    held.lease.release().await;
    assert_eq!(row("lock_token > 0"), 0);
    let mut put = Payload::new(Bytes::from("x"), LIFE);
    put.columns.user = Some("x".repeat(256));
    let error = room.commit("a", Expect::Any, Put::Payload(put)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
}

/// Locking and touching write a page or two, however large the session is.
#[tokio::test]
async fn a_large_session_is_not_written_anew_by_locking_it() {
    let room = Room::new().await;
    room.create("a", vec![b'x'; 2 << 20]).await;
    let beside = room.beside();
    // The log is as long as what was written since it began anew.
    let written = || {
        let log = |sql: &str| beside.query_row(sql, [], |row| row.get::<_, i64>(1)).unwrap();
        log("PRAGMA wal_checkpoint(PASSIVE)")
    };
    let before = written();
    for _ in 0..5 {
        let locked = room.lock("a", Claim::Existing).await.unwrap().unwrap();
        assert_eq!(locked.record.unwrap().payload.len(), 2 << 20);
        room.commit("a", Expect::Held(locked.lease), Put::Touch(LIFE)).await.unwrap();
        room.commit("a", Expect::Any, Put::Touch(LIFE)).await.unwrap();
    }
    let pages = written() - if written() < before { 0 } else { before };
    assert!(pages < 150, "{pages} pages for 15 changes; the session itself has 512");
}

#[tokio::test]
async fn what_is_set_aside_is_bounded_in_number_and_age() {
    let room = Room::with("max_aside=3&aside_lifetime=3600").await;
    let aside = |room: &Room| {
        let beside = room.beside();
        let mut all = beside.prepare("SELECT payload FROM cloakroom_aside ORDER BY id").unwrap();
        let all = all.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap().map(|payload| payload.unwrap());
        all.map(|payload| String::from_utf8(payload).unwrap()).collect::<Vec<_>>()
    };
    let set_aside = async |n: usize| {
        room.create("bad", n.to_string()).await;
        let outcome = room.commit("bad", Expect::Any, Put::SetAside).await.unwrap();
        assert!(matches!(outcome, Outcome::Removed(_)));
    };
    for n in 0..5 {
        set_aside(n).await;
    }
    assert_eq!(aside(&room), ["2", "3", "4"]);
    let older =
        "UPDATE cloakroom_aside SET aside_at = aside_at - 3600001 WHERE id < (SELECT max(id) FROM cloakroom_aside)";
    room.beside().execute(older, []).unwrap();
    set_aside(5).await;
    assert_eq!(aside(&room), ["4", "5"]);
    // Also where nothing is set aside any more, when a round of sweeping ends.
    room.beside().execute("UPDATE cloakroom_aside SET aside_at = aside_at - 3600001", []).unwrap();
    assert!(room.store.sweep(100).await.unwrap().done);
    assert_eq!(aside(&room), [""; 0]);
}
