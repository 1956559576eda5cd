//! Sessions that could not be read, kept for people to look at.
//!
//! PHP destroys such a session (`php_session_decode` fails, `php_session_destroy` follows) and with it the evidence.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cloakroom_core::Result;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::config::Durability;
use crate::file::{Site, failed};
use crate::side::{self, ASIDE};
use crate::write::pwrite;

/// How many are kept for each owner.
pub(crate) const MOST_ASIDE: usize = 100;
/// For how long they are kept.
pub(crate) const LONGEST_ASIDE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Keeps a copy of a session's bytes, and no more of such copies than there may be.
pub(crate) fn keep(site: &Site, uid: u32, bytes: &[u8]) -> Result<()> {
    let directory = side::open_or_make(site, uid)?;
    let written = (|| {
        let (file, name) = create(&directory)?;
        let done = side::give_to(&file, uid)
            .and_then(|()| pwrite(&file, bytes, 0))
            .and_then(|()| if site.config.durability == Durability::Data { rustix::fs::fsync(&file) } else { Ok(()) });
        if done.is_err() {
            let _ = rustix::fs::unlinkat(&directory, &name, AtFlags::empty());
        }
        done
    })();
    written.map_err(|errno| failed("set a session aside", errno))?;
    prune(&directory, MOST_ASIDE)
}

fn create(directory: &std::os::fd::OwnedFd) -> Result<(std::os::fd::OwnedFd, String), Errno> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        // Names sort by age, and tell nothing of the id.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{ASIDE}{:012}-{:09}-{number}", now.as_secs(), now.subsec_nanos());
        match rustix::fs::openat(directory, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => return Ok((file, name)),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Removes copies that are too old, and the oldest of those that are too many.
pub(crate) fn prune(directory: &std::os::fd::OwnedFd, most: usize) -> Result<()> {
    let broken = |errno| failed("look through sessions set aside", errno);
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory).map_err(broken)? {
        let entry = entry.map_err(broken)?;
        if entry.file_name().to_bytes().starts_with(ASIDE.as_bytes()) {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    let oldest = SystemTime::now().checked_sub(LONGEST_ASIDE).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let limit = format!("{ASIDE}{:012}", oldest.unwrap_or_default().as_secs());
    let too_many = names.len().saturating_sub(most);
    for (number, name) in names.iter().enumerate() {
        if number < too_many || name.to_bytes() < limit.as_bytes() {
            let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
        }
    }
    Ok(())
}
