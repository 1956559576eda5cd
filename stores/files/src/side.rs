//! The directory beside the sessions in which cloakroom keeps what is its own: redos, and sessions set aside.
//!
//! It is called `.cloakroom-UID`, one for each owner of session files, because several users may share one save path
//! (Debian's has mode 1733). Nothing in it is called `sess_`, so that PHP and Debian's cleaner leave it alone.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use cloakroom_core::{Error, Result};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::file::{Site, failed};

/// What the names of redos begin with; the id follows.
pub(crate) const REDO: &str = "redo-";
/// What the names of sessions set aside begin with; the time follows.
pub(crate) const ASIDE: &str = "aside-";

const NAME: &str = ".cloakroom-";

/// Whose directory has this name, if it is one of ours.
pub(crate) fn owner(name: &CStr) -> Option<u32> {
    name.to_str().ok()?.strip_prefix(NAME)?.parse().ok()
}

fn path(site: &Site, uid: u32) -> Result<CString> {
    let path = [site.directory(), b"/", NAME.as_bytes(), uid.to_string().as_bytes()].concat();
    CString::new(path).map_err(|_| Error::config("the save path holds a NUL byte"))
}

/// `None` if there is none. One that somebody else has planted is an error.
pub(crate) fn open(site: &Site, uid: u32) -> Result<Option<OwnedFd>> {
    match find(site, uid)? {
        Found::Ours(directory) => Ok(Some(directory)),
        Found::Missing => Ok(None),
        Found::Planted => Err(planted()),
    }
}

enum Found {
    Ours(OwnedFd),
    Missing,
    /// In a directory that everybody may write to, another user has made it first, or a link in its place.
    Planted,
}

#[cold]
fn planted() -> Error {
    Error::unavailable("the directory .cloakroom-UID in the save path belongs to somebody else")
}

fn find(site: &Site, uid: u32) -> Result<Found> {
    let path = path(site, uid)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(Found::Missing),
        Err(Errno::ACCESS | Errno::LOOP | Errno::NOTDIR) => return Ok(Found::Planted),
        Err(errno) => return Err(failed("open the directory .cloakroom-UID", errno)),
    };
    let stat = rustix::fs::fstat(&directory).map_err(|errno| failed("open the directory .cloakroom-UID", errno))?;
    let planted = (stat.st_uid != uid && stat.st_uid != 0) || stat.st_mode & 0o022 != 0;
    Ok(if planted { Found::Planted } else { Found::Ours(directory) })
}

/// An error if somebody else has planted it.
pub(crate) fn open_or_make(site: &Site, uid: u32) -> Result<OwnedFd> {
    open_or_make_unless_planted(site, uid)?.ok_or_else(planted)
}

/// `None` if somebody else has planted it.
pub(crate) fn open_or_make_unless_planted(site: &Site, uid: u32) -> Result<Option<OwnedFd>> {
    match find(site, uid)? {
        Found::Ours(directory) => return Ok(Some(directory)),
        Found::Planted => return Ok(None),
        Found::Missing => {}
    }
    let made = rustix::fs::mkdir(&path(site, uid)?, Mode::RWXU);
    if let Err(errno) = made
        && errno != Errno::EXIST
    {
        return Err(failed("make the directory .cloakroom-UID", errno));
    }
    let directory = match find(site, uid)? {
        Found::Ours(directory) => directory,
        Found::Planted => return Ok(None),
        Found::Missing => return Err(failed("make the directory .cloakroom-UID", Errno::NOENT)),
    };
    give_to(&directory, uid).map_err(|errno| failed("make the directory .cloakroom-UID", errno))?;
    Ok(Some(directory))
}

/// What root makes for a session of somebody else is to be that user's.
pub(crate) fn give_to(file: impl AsFd, uid: u32) -> Result<(), Errno> {
    let me = rustix::process::geteuid();
    if me.is_root() && uid != 0 {
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), None::<Gid>)?;
    }
    Ok(())
}
