//! What the tests share: a directory of sessions, keys, short ways to the store's calls, PHP as a child.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use cloakroom_core::store::{Claim, Expect, Locked, Outcome, Payload, Put, Record, Version};
use cloakroom_core::{Deadline, Key, Result, Store};
use cloakroom_store_files::{FilesConfig, FilesStore};

pub(crate) const LIFE: Duration = Duration::from_secs(1440);

/// A store in a directory of its own.
pub(crate) struct Room {
    pub(crate) store: FilesStore,
    dir: tempfile::TempDir,
}

impl Room {
    pub(crate) fn new() -> Room {
        Room::with(|config| config)
    }

    pub(crate) fn with(set: impl FnOnce(FilesConfig) -> FilesConfig) -> Room {
        let dir = tempfile::tempdir().unwrap();
        let store = FilesStore::open(set(FilesConfig::new(dir.path()))).unwrap();
        Room { store, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("sess_{id}"))
    }

    pub(crate) fn plant(&self, id: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(id), bytes).unwrap();
    }

    pub(crate) fn bytes(&self, id: &str) -> Vec<u8> {
        fs::read(self.path(id)).unwrap()
    }

    pub(crate) fn is_there(&self, id: &str) -> bool {
        self.path(id).symlink_metadata().is_ok()
    }

    /// Everything in the directory, and in our own directory in it.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.dir())
    }

    pub(crate) async fn load(&self, id: &str) -> Result<Option<Record>> {
        self.store.load(&key(id), &wait(5_000)).await
    }

    pub(crate) async fn lock(&self, id: &str, claim: Claim) -> Result<Option<Locked>> {
        self.store.lock(&key(id), claim, &wait(5_000)).await
    }

    pub(crate) async fn commit(&self, id: &str, expect: Expect<'_>, put: Put) -> Result<Outcome> {
        self.store.commit(&key(id), expect, put, &wait(5_000)).await
    }

    pub(crate) async fn create(&self, id: &str, bytes: impl AsRef<[u8]>) -> Result<Outcome> {
        self.commit(id, Expect::Absent, payload(bytes)).await
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(self::names(&entry.path()).into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    names
}

pub(crate) fn key(id: &str) -> Key {
    Key::from_bytes(id.as_bytes())
}

pub(crate) fn wait(millis: u64) -> Deadline {
    Deadline::new(Duration::from_secs(20), Duration::from_millis(millis))
}

pub(crate) fn payload(bytes: impl AsRef<[u8]>) -> Put {
    Put::Payload(Payload::new(bytes.as_ref().to_vec().into(), LIFE))
}

pub(crate) fn version(bytes: impl AsRef<[u8]>) -> Version {
    Version::new(bytes.as_ref().to_vec())
}

/// Sets a file's time to so long ago.
pub(crate) fn age(path: &Path, by: Duration) {
    fs::File::options().read(true).open(path).unwrap().set_modified(SystemTime::now() - by).unwrap();
}

/// Runs PHP with sessions in `dir`, without any php.ini.
pub(crate) fn php(dir: &Path, id: &str, code: &str) -> Command {
    let mut command = Command::new("php");
    let code = format!("session_save_path('{}'); session_id('{id}'); {code}", dir.display());
    command.args([
        "-n",
        "-d",
        "session.use_cookies=0",
        "-d",
        "session.cache_limiter=",
        "-d",
        "session.gc_probability=0",
    ]);
    command.arg("-r").arg(code).stdin(Stdio::null());
    command
}

/// A child that says a line when it has come so far; killed and reaped at the end.
pub(crate) struct Talking {
    pub(crate) child: Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Talking {
    pub(crate) fn new(mut command: Command) -> Talking {
        use std::io::BufRead;
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Talking { child, lines }
    }

    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("the child has ended").unwrap()
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
