//! Removing expired sessions, and what cloakroom itself left behind.
//!
//! Stands for `ps_files_cleanup_dir`, but never runs in a request, does not hold a whole directory in memory, follows no
//! link, goes into the levels of a depth, and leaves alone what is locked or was touched meanwhile.

use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::store::Swept;
use cloakroom_core::{Error, Result, is_id_byte};
use rustix::fs::{AtFlags, CWD, Dir, DirEntry, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::access::Inner;
use crate::file::{PENDING, Site, failed, nanos, now, try_flock};
use crate::layout::{LONGEST_ID, PREFIX};
use crate::side::{self, REDO};
use crate::{aside, layout};

/// So many entries are looked at before the thread is given back.
const BIT: usize = 256;
/// A redo without its session is litter only after a while: its writer may be just about to begin.
const LITTER: Duration = Duration::from_secs(60);

/// How far the sweeping has come; kept between the calls.
#[derive(Debug, Default)]
pub(crate) struct Walk(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    /// The directories that are open, the innermost last.
    At(Vec<Dir>),
    /// Another call is at it.
    Busy,
}

impl Walk {
    fn take(&self) -> State {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Busy)
    }

    fn put(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// One step of the sweeping, on the blocking pool, in bits.
pub(crate) async fn sweep(inner: &Arc<Inner>, step: usize) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut left = step.max(1);
    while left > 0 && !swept.done {
        let bit = left.min(BIT);
        let theirs = Arc::clone(inner);
        let job = tokio::task::spawn_blocking(move || theirs.sweep_bit(bit));
        let broken = |error| Error::unavailable("sweeping was broken off").with_source(error);
        let Some(part) = job.await.map_err(broken)?? else { break };
        swept = Swept::new(swept.removed + part.removed, part.done);
        left -= bit;
    }
    Ok(swept)
}

impl Inner {
    /// `None` if another call is sweeping.
    fn sweep_bit(&self, bit: usize) -> Result<Option<Swept>> {
        let mut stack = match self.walk.take() {
            State::Busy => {
                return Ok(None);
            }
            State::Start => Vec::new(),
            State::At(stack) => stack,
        };
        let swept = self.site.sweep_some(&mut stack, bit);
        // After an error the next round begins anew.
        let on = matches!(&swept, Ok(swept) if !swept.done);
        self.walk.put(if on { State::At(stack) } else { State::Start });
        swept.map(Some)
    }
}

impl Site {
    fn sweep_some(&self, stack: &mut Vec<Dir>, bit: usize) -> Result<Swept> {
        if stack.is_empty() {
            self.directory_is_there()?;
            stack.push(open_directory(CWD, self.config.path.as_path(), true).map_err(unreadable)?);
        }
        let mut removed = 0;
        for _ in 0..bit {
            let level = stack.len().saturating_sub(1);
            let Some(directory) = stack.last_mut() else { return Ok(Swept::new(removed, true)) };
            let Some(entry) = directory.next() else {
                stack.pop();
                if stack.is_empty() {
                    self.sweep_side()?;
                    return Ok(Swept::new(removed, true));
                }
                continue;
            };
            let entry = entry.map_err(unreadable)?;
            let here = directory.fd().map_err(unreadable)?;
            if level < self.config.depth {
                // A link in the place of a directory is not followed.
                if is_level(&entry)
                    && let Ok(inner) = open_directory(here, entry.file_name(), false)
                {
                    stack.push(inner);
                }
            } else if self.sweep_file(here, &entry) == Ok(true) {
                removed += 1;
            }
        }
        Ok(Swept::new(removed, false))
    }

    fn has_expired(&self, stat: &Stat) -> bool {
        let mtime = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        FileType::from_raw_mode(stat.st_mode).is_file() && mtime + nanos(self.config.lifetime) < now()
    }

    /// Every file that PHP's sweeping would take, whatever follows the prefix.
    fn sweep_file(&self, directory: BorrowedFd<'_>, entry: &DirEntry) -> Result<bool, Errno> {
        let name = entry.file_name();
        if !name.to_bytes().starts_with(PREFIX.as_bytes()) {
            return Ok(false);
        }
        if !self.has_expired(&rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?) {
            return Ok(false);
        }
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        if !try_flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap_or(false) {
            return Ok(false);
        }
        let stat = rustix::fs::fstat(&file)?;
        if stat.st_nlink == 0 || !self.has_expired(&stat) {
            return Ok(false);
        }
        if stat.st_nlink == 1 {
            // Whoever waits for the lock finds nothing. A file with a second name keeps what it holds.
            rustix::fs::ftruncate(&file, 0)?;
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
        Ok(true)
    }

    /// What lies in our own directory and is of no use any more.
    fn sweep_side(&self) -> Result<()> {
        let me = rustix::process::geteuid().as_raw();
        let Some(directory) = side::open(self, me)? else { return Ok(()) };
        aside::prune(&directory, aside::MOST_ASIDE)?;
        for entry in Dir::read_from(&directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            if let Some(id) = entry.file_name().to_bytes().strip_prefix(REDO.as_bytes()) {
                // One that cannot be looked at stays.
                let _ = self.sweep_redo(&directory, &entry, id);
            }
        }
        Ok(())
    }

    /// Removes a redo whose session is gone, or whose write has ended and only had no time to remove it.
    fn sweep_redo(&self, directory: &OwnedFd, entry: &DirEntry, id: &[u8]) -> Result<(), Errno> {
        let name = entry.file_name();
        let redo = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let age = now() - i128::from(redo.st_mtime) * 1_000_000_000;
        if age < nanos(LITTER) {
            return Ok(());
        }
        let path = layout::file_path(self.directory(), self.config.depth, id).and_then(|path| CString::new(path).ok());
        if let Some(path) = path {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            match rustix::fs::open(&path, flags, Mode::empty()) {
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
                Ok(file) => {
                    let locked = try_flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap_or(false);
                    if !locked || rustix::fs::fstat(&file)?.st_mode & PENDING != 0 {
                        return Ok(());
                    }
                    return rustix::fs::unlinkat(directory, name, AtFlags::empty());
                }
            }
        }
        rustix::fs::unlinkat(directory, name, AtFlags::empty())
    }
}

/// Whether this is the name of a directory between the save path and the files.
pub(crate) fn is_level(entry: &DirEntry) -> bool {
    matches!(entry.file_name().to_bytes(), [byte] if is_id_byte(*byte))
}

/// Opens a directory, and follows a link only where the save path itself is one, as PHP does.
pub(crate) fn open_directory(at: BorrowedFd<'_>, path: impl rustix::path::Arg, follow: bool) -> Result<Dir, Errno> {
    let follow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | follow;
    Dir::new(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

#[cold]
pub(crate) fn unreadable(errno: Errno) -> Error {
    failed("look through the save path", errno)
}

const _: () = assert!(LONGEST_ID + REDO.len() <= 255);
