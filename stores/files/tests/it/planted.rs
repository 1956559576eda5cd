//! What somebody may have put in the place of a session file: refused, and left as it is.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;

use cloakroom_core::store::{Claim, Expect, Put};
use cloakroom_core::{ErrorKind, Store};
use cloakroom_testkit::php::skip;
use rustix::fs::{CWD, FileType, Gid, Mode, Uid};

use crate::child;
use crate::util::{LIFE, Room, Talking, payload};

async fn refuses(room: &Room, id: &str) {
    let mut errors = vec![
        room.load(id).await.map(|_| ()),
        room.create(id, "x").await.map(|_| ()),
        room.commit(id, Expect::Any, payload("x")).await.map(|_| ()),
        room.commit(id, Expect::Any, Put::Touch(LIFE)).await.map(|_| ()),
        room.commit(id, Expect::Any, Put::Remove).await.map(|_| ()),
        room.commit(id, Expect::Any, Put::SetAside).await.map(|_| ()),
    ];
    for claim in [Claim::Existing, Claim::New, Claim::Either] {
        errors.push(room.lock(id, claim).await.map(|_| ()));
    }
    for (number, error) in errors.into_iter().enumerate() {
        let error = error.expect_err(&format!("call {number}"));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "call {number}");
        assert!(!format!("{error:?}").contains(id) && !format!("{error:?}").contains("sess_"), "{error:?}");
    }
    let swept = room.store.sweep(100).await.unwrap();
    assert_eq!((swept.removed, room.is_there(id)), (0, true));
}

#[tokio::test]
async fn links_of_both_kinds() {
    let room = Room::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("target");
    fs::write(&target, "a|i:1;").unwrap();
    crate::util::age(&target, LIFE / 2);
    symlink(&target, room.path("soft")).unwrap();
    let other = outside.path().join("other");
    fs::write(&other, "a|i:1;").unwrap();
    fs::hard_link(&other, room.path("hard")).unwrap();
    symlink(outside.path().join("nothing"), room.path("dangling")).unwrap();
    let before = fs::metadata(&target).unwrap();
    for id in ["softly", "hardly"] {
        // The names of the ids are unlike anything in the messages.
        fs::rename(room.path(&id[..4]), room.path(id)).unwrap();
        refuses(&room, id).await;
    }
    refuses(&room, "dangling").await;
    assert_eq!((fs::read(&target).unwrap(), fs::read(&other).unwrap()), (b"a|i:1;".to_vec(), b"a|i:1;".to_vec()));
    assert_eq!(fs::metadata(&target).unwrap().mtime(), before.mtime());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2, "nothing was made at the end of a link");
}

#[tokio::test]
async fn other_kinds_of_files() {
    let room = Room::new();
    rustix::fs::mknodat(CWD, room.path("fifokind"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    refuses(&room, "fifokind").await;
    fs::create_dir(room.path("dirkind")).unwrap();
    refuses(&room, "dirkind").await;
    let _socket = std::os::unix::net::UnixListener::bind(room.path("socketkind")).unwrap();
    refuses(&room, "socketkind").await;
}

/// Runs as nobody, since root is exempt, as in PHP.
#[test]
fn foreign_owners() {
    if skip("root") {
        return;
    }
    assert!(rustix::process::geteuid().is_root(), "this test changes its user and needs root");
    let nobody = 65534;
    let room = Room::new();
    fs::set_permissions(room.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    for (id, uid, mode) in
        [("mine", nobody, 0o600), ("roots", 0, 0o666), ("foreign", 12345, 0o666), ("secret", 0, 0o600)]
    {
        room.plant(id, "n|i:1;");
        fs::set_permissions(room.path(id), fs::Permissions::from_mode(mode)).unwrap();
        rustix::fs::chown(room.path(id), Some(Uid::from_raw(uid)), None::<Gid>).unwrap();
    }
    room.plant("large", vec![b'o'; 20_000]);
    rustix::fs::chown(room.path("large"), Some(Uid::from_raw(nobody)), None::<Gid>).unwrap();
    let mut command = child::command("look", room.dir(), 0);
    command.uid(nobody).gid(nobody);
    let mut child = Talking::new(command);
    let mut said = Vec::new();
    while said.len() < 5 {
        let line = child.line();
        said.extend(line.strip_prefix("> ").map(str::to_owned));
    }
    let expect =
        ["mine true true true", "roots true true true", "foreign false false false", "secret false false false"];
    assert_eq!(said[..4], expect);
    assert_eq!(said[4], "large true");
    assert_eq!(room.bytes("foreign"), b"n|i:1;");
    assert_eq!(room.bytes("roots"), b"written by nobody");
    // Nobody's own directory, for the redo of the large one; somebody else's would be refused.
    let own = fs::metadata(room.dir().join(".cloakroom-65534")).unwrap();
    assert_eq!((own.uid(), own.mode() & 0o7777), (nobody, 0o700));
}

/// Anybody may make it in Debian's save path. Nothing of ours goes in there, and sessions go on.
#[tokio::test]
async fn a_planted_directory_for_redos_is_not_used() {
    let room = Room::new();
    let own = room.dir().join(format!(".cloakroom-{}", rustix::process::geteuid().as_raw()));
    let elsewhere = tempfile::tempdir().unwrap();
    let change = async |letter: u8| {
        room.commit("a", Expect::Any, payload(vec![letter; 9_000 + usize::from(letter)])).await.unwrap();
        assert_eq!(room.bytes("a"), vec![letter; 9_000 + usize::from(letter)]);
        assert_eq!(fs::metadata(room.path("a")).unwrap().mode() & 0o7777, 0o600, "no sign of a redo that is not there");
    };
    room.create("a", vec![b'x'; 10_000]).await.unwrap();
    let _ = fs::remove_dir_all(&own);
    symlink(elsewhere.path(), &own).unwrap();
    change(b'b').await;
    // What cannot be read is not destroyed without a copy.
    let error = room.commit("a", Expect::Any, Put::SetAside).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(room.is_there("a"));
    fs::remove_file(&own).unwrap();
    fs::write(&own, "no directory").unwrap();
    change(b'c').await;
    fs::remove_file(&own).unwrap();
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
    change(b'd').await;
    assert_eq!(fs::read_dir(&own).unwrap().count() + fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
