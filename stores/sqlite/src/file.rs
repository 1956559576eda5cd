//! The database's file: made, opened safely, made ready, and noticed when it is another one.

use std::cell::Cell;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cloakroom_core::{Error, Result};
use rusqlite::{Connection, OpenFlags};

use crate::config::{SqliteConfig, Synchronous};
use crate::error::Failure;
use crate::way::Way;

/// Closing a file gives up all locks that the process has on it, those of SQLite's connections as well. We open one only
/// to make it; nobody else of this process is to have it open by then.
static MAKING: Mutex<()> = Mutex::new(());
/// The statements that a connection keeps ready.
const STATEMENTS: usize = 64;
/// What SQLite puts beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];
/// Between tries to get at a database that somebody else has locked.
const PAUSE: Duration = Duration::from_millis(2);

/// Where the database is.
#[derive(Debug)]
pub(crate) struct Site {
    path: PathBuf,
    synchronous: Synchronous,
    table: String,
    migrates: bool,
    busy: Duration,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Read,
    Write,
}

/// A connection, and which file it has open.
#[derive(Debug)]
pub(crate) struct Db {
    pub(crate) conn: Connection,
    file: FileId,
    looked: Cell<Instant>,
}

/// Device and inode.
type FileId = (u64, u64);

impl Site {
    /// The directory has to be there, and is looked up once: a link on the way to it is followed now, and not again.
    pub(crate) fn find(config: &SqliteConfig) -> Result<Site> {
        let name =
            config.path.file_name().ok_or_else(|| Error::config("the path of the SQLite database has no name"))?;
        let parent = config.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new(".")).canonicalize().map_err(|source| {
            Error::config("the directory of the SQLite database is not there, or cannot be looked at")
                .with_source(source)
        })?;
        Ok(Site {
            path: directory.join(name),
            synchronous: config.synchronous,
            table: config.table_name().to_owned(),
            migrates: config.migrates(),
            busy: config.busy,
        })
    }

    /// A connection to the database, which is made where it is not there. It may wait for other processes.
    pub(crate) fn connect(&self, way: &Way, role: Role) -> Result<Db, Failure> {
        let until = Instant::now() + self.busy;
        loop {
            match self.try_connect(way, role, until) {
                Err(Failure::Busy) if Instant::now() < until => thread::sleep(PAUSE),
                connected => return connected,
            }
        }
    }

    fn try_connect(&self, way: &Way, role: Role, until: Instant) -> Result<Db, Failure> {
        let (conn, file) = self.open()?;
        conn.busy_timeout(Duration::ZERO)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        // A file that somebody else has written is not to make SQLite run what they wrote.
        conn.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")?;
        use_wal(&conn, until)?;
        // Now there are files beside it that everybody uses, and nobody can put others into their places.
        self.check()?;
        self.make_tables(&conn, way)?;
        match (role, self.synchronous) {
            (Role::Read, _) => conn.execute_batch("PRAGMA query_only = ON")?,
            (Role::Write, Synchronous::Normal) => conn.execute_batch("PRAGMA synchronous = NORMAL")?,
            (Role::Write, Synchronous::Full) => conn.execute_batch("PRAGMA synchronous = FULL")?,
        }
        Ok(Db { conn, file, looked: Cell::new(Instant::now()) })
    }

    fn open(&self) -> Result<(Connection, FileId), Failure> {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_file()?;
        let before = self.check()?;
        // Not through the names of files that SQLite calls URIs, and not through a link.
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        if self.check()? != before {
            return Err(Failure::Busy);
        }
        if conn.is_readonly("main")? {
            return Err(Failure::setup("the SQLite database is read-only: nobody could log in"));
        }
        Ok((conn, before))
    }

    /// For its owner alone: SQLite gives the files beside it the same mode.
    fn make_file(&self) -> Result<(), Failure> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&self.path) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                Err(Error::unavailable("make the file of the SQLite database").with_source(error).into())
            }
            Err(error) => Err(Failure::setup(format!("the file of the SQLite database cannot be made: {error}"))),
        }
    }

    /// Looks at what lies at the path, without opening it.
    fn check(&self) -> Result<FileId, Failure> {
        let found = fs::symlink_metadata(&self.path)
            .map_err(|error| Error::unavailable("look at the file of the SQLite database").with_source(error))?;
        if !found.is_file() {
            return Err(Failure::setup("what lies at the path of the SQLite database is no file, or a link"));
        }
        self.check_owners(&found)?;
        Ok(file_id(&found))
    }

    /// Where everybody may make files, as in /tmp, one that was there before us may be a trap: a database that its owner
    /// reads, or a log beside ours that is taken for what was committed.
    #[cfg(unix)]
    fn check_owners(&self, found: &Metadata) -> Result<(), Failure> {
        use std::os::unix::fs::MetadataExt;
        const EVERYBODY: u32 = 0o002;
        const STICKY: u32 = 0o1000;
        if found.nlink() > 1 {
            return Err(Failure::setup("the file of the SQLite database has a second name"));
        }
        let directory = self.path.parent().and_then(|parent| fs::metadata(parent).ok());
        let Some(mode) = directory.map(|directory| directory.mode()).filter(|mode| mode & EVERYBODY != 0) else {
            return Ok(());
        };
        if mode & STICKY == 0 {
            return Err(Failure::setup("everybody may replace files in the directory of the SQLite database"));
        }
        let ours = rustix::process::geteuid().as_raw();
        let beside = BESIDE.iter().filter_map(|end| fs::symlink_metadata(self.beside(end)).ok());
        if found.uid() != ours || beside.into_iter().any(|file| !file.is_file() || file.uid() != ours) {
            let text =
                "the SQLite database, or a file beside it, belongs to another user, in a directory that is everybody's";
            return Err(Failure::setup(text));
        }
        Ok(())
    }

    #[cfg(not(unix))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on unix")]
    fn check_owners(&self, _: &Metadata) -> Result<(), Failure> {
        Ok(())
    }

    #[cfg(unix)]
    fn beside(&self, end: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(end);
        name.into()
    }

    /// As often as one likes, and by several processes at once: who is second finds the work of the first.
    fn make_tables(&self, conn: &Connection, way: &Way) -> Result<(), Failure> {
        let looks_right = |conn: &Connection| match conn.prepare(way.check()).map(drop).map_err(Failure::from) {
            Ok(()) => Ok(true),
            Err(Failure::Sqlite(code)) if code.extended_code == rusqlite::ffi::SQLITE_ERROR => Ok(false),
            Err(failure) => Err(failure),
        };
        if looks_right(conn)? {
            return Ok(());
        }
        if self.migrates {
            conn.execute_batch("BEGIN IMMEDIATE")?;
            let made = conn.execute_batch(way.make()).and_then(|()| conn.execute_batch("COMMIT"));
            if let Err(error) = made {
                // It is rolled back when the connection is closed.
                match Failure::from(error) {
                    // A table of this name without a column that the index is on.
                    Failure::Sqlite(code) if code.extended_code == rusqlite::ffi::SQLITE_ERROR => {}
                    failure => return Err(failure),
                }
            } else if looks_right(conn)? {
                return Ok(());
            }
            return Err(Failure::Setup(format!("there is a table `{}`, but it has other columns", self.table)));
        }
        Err(Failure::Setup(format!(
            "the database has no table `{}` with the columns that this layout needs; `migrate=yes` makes one",
            self.table
        )))
    }

    /// Whether a connection still has the file open that lies at the path; looked at no more often than every `pause`.
    pub(crate) fn is_current(&self, db: &Db, pause: Duration) -> bool {
        if db.looked.get().elapsed() < pause {
            return true;
        }
        let same = fs::symlink_metadata(&self.path).is_ok_and(|found| file_id(&found) == db.file);
        if same {
            db.looked.set(Instant::now());
        }
        same
    }
}

/// Readers that wait for nobody. Once switched on it is a property of the file, for PHP as well; of several who switch it
/// on at once, all but one are told that the database is locked.
fn use_wal(conn: &Connection, until: Instant) -> Result<(), Failure> {
    let mode = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, String>(0)).map_err(Failure::from);
    loop {
        let now = mode("PRAGMA journal_mode")
            .and_then(|now| if now == "wal" { Ok(now) } else { mode("PRAGMA journal_mode = WAL") });
        match now {
            Ok(now) if now == "wal" => return Ok(()),
            Ok(_) => {
                let text = "the SQLite database cannot use a write-ahead log: is it on a network file system?";
                return Err(Failure::setup(text));
            }
            Err(Failure::Busy) if Instant::now() < until => thread::sleep(PAUSE),
            Err(failure) => return Err(failure),
        }
    }
}

#[cfg(unix)]
fn file_id(found: &Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino())
}

#[cfg(not(unix))]
fn file_id(_: &Metadata) -> FileId {
    (0, 0)
}
