//! One session file: opening it safely, looking at it, reading it, and its age.
//!
//! Mirrors `ps_files_open` and `ps_files_read` in ext/session/mod_files.c, and is stricter than they are: other kinds of
//! files, foreign owners, second names and expired files are seen here.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cloakroom_core::{Error, Key, Result};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Timespec, Timestamps};
use rustix::io::{Errno, retry_on_intr};

use crate::config::FilesConfig;
use crate::layout;

/// The sticky bit of a session file says that a redo may be waiting for it (see `redo.rs`). It means nothing to the
/// kernel or to PHP on a plain file, and every `fstat` shows it for nothing.
pub(crate) const PENDING: u32 = 0o1000;

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    device: i128,
    number: i128,
}

impl Inode {
    fn of(stat: &rustix::fs::Stat) -> Inode {
        Inode { device: i128::from(stat.st_dev), number: i128::from(stat.st_ino) }
    }

    pub(crate) fn number(self) -> i128 {
        self.number
    }
}

/// What `fstat` says of a session file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) inode: Inode,
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) mtime: i128,
    /// When it was last written to or touched, which nobody can set; nanoseconds since 1970.
    pub(crate) ctime: i128,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    /// No name leads to it any more: somebody destroyed it.
    pub(crate) unlinked: bool,
}

/// A path to a session file, whose last bytes are the id.
#[derive(Clone)]
pub(crate) struct Target {
    path: CString,
    id_at: usize,
}

impl Target {
    pub(crate) fn path(&self) -> &CStr {
        &self.path
    }

    /// Whether the path still leads to this file.
    pub(crate) fn is(&self, inode: Inode) -> Result<bool> {
        match rustix::fs::statat(CWD, self.path(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Inode::of(&stat) == inode),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(failed("look for a session file", errno)),
        }
    }

    pub(crate) fn id(&self) -> &[u8] {
        &self.path.to_bytes()[self.id_at..]
    }
}

/// Where the files lie and by which rules.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) config: FilesConfig,
    /// Root may use everybody's files, as in PHP.
    any_owner: bool,
    owners: [u32; 3],
}

impl Site {
    pub(crate) fn new(config: FilesConfig) -> Site {
        let (real, effective) = (rustix::process::getuid(), rustix::process::geteuid());
        Site { config, any_owner: real.is_root(), owners: [0, real.as_raw(), effective.as_raw()] }
    }

    pub(crate) fn directory(&self) -> &[u8] {
        use std::os::unix::ffi::OsStrExt;
        self.config.path.as_os_str().as_bytes()
    }

    /// `None` for ids that no file can have.
    pub(crate) fn target(&self, key: &Key) -> Option<Target> {
        let id = key.record();
        let path = layout::file_path(self.directory(), self.config.depth, id)?;
        let id_at = path.len() - id.len();
        Some(Target { path: CString::new(path).ok()?, id_at })
    }

    /// Opens what is there. `None` if there is nothing.
    ///
    /// The path is followed anew each time, as PHP does it, rather than from a directory kept open: a save path that
    /// is a symbolic link and is switched, or a directory made anew, counts from the next request on.
    pub(crate) fn open(&self, target: &Target, access: OFlags) -> Result<Option<OwnedFd>> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        match retry_on_intr(|| rustix::fs::open(target.path(), flags, Mode::empty())) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => self.directory_is_there().map(|()| None),
            Err(errno) => Err(failed("open a session file", errno)),
        }
    }

    /// Makes a file that is not there yet, empty. `None` if one is.
    pub(crate) fn create(&self, target: &Target) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.config.mode);
        match retry_on_intr(|| rustix::fs::open(target.path(), flags, mode)) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::EXIST) => Ok(None),
            Err(Errno::NOENT) => {
                self.directory_is_there()?;
                let depth = self.config.depth;
                let message =
                    format!("the save path {} lacks directories for depth {depth}", self.config.path.display());
                Err(Error::config(message))
            }
            Err(errno) => Err(failed("create a session file", errno)),
        }
    }

    /// A directory that has vanished must not look like a session that is absent.
    pub(crate) fn directory_is_there(&self) -> Result<()> {
        match rustix::fs::stat(self.config.path.as_path()) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() => Ok(()),
            Ok(_) => Err(Error::config(format!("the save path {} is not a directory", self.config.path.display()))),
            Err(errno) => {
                let message = format!("the save path {} cannot be used", self.config.path.display());
                Err(Error::config(message).with_source(std::io::Error::from(errno)))
            }
        }
    }

    /// Looks at an open file and refuses what is not a session file of ours.
    pub(crate) fn look(&self, file: impl AsFd) -> Result<Seen> {
        let stat = rustix::fs::fstat(file).map_err(|errno| failed("look at a session file", errno))?;
        if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Error::unavailable("what lies in the place of a session file is not a regular file"));
        }
        if !self.any_owner && !self.owners.contains(&stat.st_uid) {
            return Err(Error::unavailable("the session file was not created by this user"));
        }
        if stat.st_nlink > 1 {
            // Writing in place would change a file that somebody planted here by its other name.
            return Err(Error::unavailable("the session file has a second name elsewhere"));
        }
        Ok(Seen {
            inode: Inode::of(&stat),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            ctime: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            unlinked: stat.st_nlink == 0,
        })
    }

    /// Remaining life; `None` if the file has expired: its age is more than the lifetime, as PHP's sweeping has it.
    pub(crate) fn life(&self, seen: &Seen) -> Option<Duration> {
        let left = seen.mtime + nanos(self.config.lifetime) - now();
        u64::try_from(left).ok().map(Duration::from_nanos)
    }

    /// Lets a file live for so long from now on.
    pub(crate) fn set_life(&self, file: impl AsFd, ttl: Duration) -> Result<()> {
        let times = if ttl == self.config.lifetime {
            // PHP's own utime(path, NULL): allowed to whoever may write, not to the owner alone.
            let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
            Timestamps { last_access: now, last_modification: now }
        } else {
            let mtime = now() + nanos(ttl) - nanos(self.config.lifetime);
            let seconds = i64::try_from(mtime.div_euclid(1_000_000_000)).unwrap_or(i64::MAX);
            let nanos = i32::try_from(mtime.rem_euclid(1_000_000_000)).unwrap_or(0);
            Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
                last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
            }
        };
        rustix::fs::futimens(file, &times).map_err(|errno| failed("set the time of a session file", errno))
    }
}

/// Reads a file of about `size` bytes to its end.
pub(crate) fn read(file: impl AsFd, size: u64) -> Result<Bytes> {
    let file = file.as_fd();
    let size = usize::try_from(size).map_err(|_| too_large())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| too_large())?;
    while bytes.len() < size {
        let at = bytes.len() as u64;
        let got = retry_on_intr(|| rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at))
            .map_err(|errno| failed("read a session file", errno))?;
        if got == 0 {
            break;
        }
    }
    Ok(bytes.into())
}

/// Tries to get a lock at once.
pub(crate) fn try_flock(file: impl AsFd, operation: FlockOperation) -> Result<bool> {
    let file = file.as_fd();
    match retry_on_intr(|| rustix::fs::flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        // PHP goes on without the lock and loses updates.
        Err(errno) => Err(failed("lock a session file", errno)),
    }
}

/// Destroys a file whose lock is held: whoever waits for the lock finds nothing any more.
pub(crate) fn destroy(file: impl AsFd, target: &Target) -> Result<()> {
    retry_on_intr(|| rustix::fs::ftruncate(file.as_fd(), 0)).map_err(|errno| failed("empty a session file", errno))?;
    unlink(target)
}

pub(crate) fn unlink(target: &Target) -> Result<()> {
    match rustix::fs::unlink(target.path()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove a session file", errno)),
    }
}

#[cold]
pub(crate) fn failed(what: &'static str, errno: Errno) -> Error {
    Error::unavailable(what).with_source(std::io::Error::from(errno))
}

#[cold]
fn too_large() -> Error {
    Error::new(cloakroom_core::ErrorKind::TooLarge, "read a session file that does not fit into memory")
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanos)
}

pub(crate) fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX / 4)
}
