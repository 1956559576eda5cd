//! The redo: what a change that takes several steps is about to do, written down before the first step.
//!
//! PHP has nothing of the kind; its `ps_files_write` leaves whatever it had come to. A redo lies in a directory of our
//! own beside the sessions, `.cloakroom-UID/redo-ID`, readable by the owner of the session alone. While it may be
//! needed, the session file carries the sticky bit: the `fstat` that every access makes anyway shows it.
//!
//! **When a redo is applied.** Only under the lock, and only if the file is in a state that this very write can have
//! left. Let `O` be the old bytes and `N` the new ones. The write first cuts the file to the length of `N` if that is
//! less, and then copies `N` from the first byte that differs to the last, front to back. Killed anywhere, it leaves
//! `N[..k]` followed by `O[k..]`, the latter cut to the length of `N`, and no longer than it has come to. Whether a file is
//! such a mixture is decided exactly, byte by byte: the redo holds both versions of what differs, and a hash of what
//! lies before and behind, which is the same in both. The longest common beginning with `N` is the only `k` that has to be
//! tried: if a smaller one fits, this one does too. A file that is all `O` or all `N` needs no help, and anything else was
//! written by somebody since, PHP for instance: the redo is then thrown away. So is one for an empty or missing file,
//! which may be a logout.
//!
//! With `durability=data` the power may go as well; the disk then holds any mixture of old and new sectors, and the
//! redo, which says so, is judged by sectors.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Once;

use cloakroom_core::{Error, Result, Tag};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::config::Durability;
use crate::file::{PENDING, Seen, Site, Target, failed, read};
use crate::side;
use crate::write::{no_redo, pwrite, reserve, sync, truncate};

const MAGIC: &[u8; 16] = b"cloakroom redo 1";
const SECTOR: usize = 512;
/// Magic and nine numbers.
const HEADER: usize = MAGIC.len() + 9 * 8;

/// A redo that lies on the disk, complete; or none, where there is no place for it.
pub(crate) struct Redo<'a> {
    directory: Option<OwnedFd>,
    name: Vec<u8>,
    site: &'a Site,
    target: &'a Target,
}

/// A redo whose session file carries the sign.
pub(crate) struct Signed<'a> {
    redo: Redo<'a>,
    signed: bool,
}

impl<'a> Redo<'a> {
    /// Writes the redo down. Where another user has planted something in the place of its directory, as anybody can in
    /// Debian's save path, PHP's own safety has to do: to refuse every larger change would be what that user wants.
    pub(crate) fn prepare(
        site: &'a Site,
        target: &'a Target,
        seen: &Seen,
        range: Range<usize>,
        old: &[u8],
        new: &[u8],
    ) -> Result<Redo<'a>> {
        let durable = site.config.durability == Durability::Data;
        let directory = side::open_or_make_unless_planted(site, seen.uid)?;
        let redo = Redo { directory, name: name(target), site, target };
        let Some(directory) = &redo.directory else {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                let path = site.config.path.display();
                tracing::error!(%path, uid = seen.uid, "somebody else's .cloakroom-UID lies among the sessions: changes are made without a redo");
            });
            return Ok(redo);
        };
        let change = Change::new(seen, range, old, new, durable);
        let written = redo.create(directory, seen).and_then(|file| {
            let [header, checksum] = change.frame();
            for part in [&header[..], change.old, change.new, &checksum[..]] {
                write_all(&file, part)?;
            }
            if durable {
                rustix::fs::fsync(&file)?;
                rustix::fs::fsync(directory)?;
            }
            Ok(())
        });
        match written {
            Ok(()) => Ok(redo),
            Err(errno) => {
                redo.forget();
                Err(no_redo(errno))
            }
        }
    }

    fn create(&self, directory: &OwnedFd, seen: &Seen) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(directory, &self.name[..], flags, Mode::RUSR | Mode::WUSR);
        let file = match open() {
            // Left behind by root.
            Err(Errno::ACCESS) => {
                rustix::fs::unlinkat(directory, &self.name[..], AtFlags::empty())?;
                open()?
            }
            other => other?,
        };
        side::give_to(&file, seen.uid)?;
        Ok(file)
    }

    /// Puts the sign on the session file: from now on whoever opens it looks for the redo.
    pub(crate) fn sign(self, file: BorrowedFd<'_>, seen: &Seen) -> Result<Signed<'a>> {
        if self.directory.is_none() {
            return Ok(Signed { redo: self, signed: false });
        }
        match rustix::fs::fchmod(file, Mode::from_raw_mode(seen.mode | PENDING)) {
            Ok(()) => {
                if self.site.config.durability == Durability::Data {
                    rustix::fs::fsync(file).map_err(no_redo)?;
                }
                Ok(Signed { redo: self, signed: true })
            }
            Err(errno) => {
                // Only the owner may sign. Without it PHP's own safety has to do, as PHP's own mode 0660 would have it.
                tracing::debug!(session = %Tag::of(self.target.id()), %errno, "change a session file without a redo");
                self.forget();
                Ok(Signed { redo: self, signed: false })
            }
        }
    }

    /// Removes a redo that is not needed.
    pub(crate) fn forget(&self) {
        // One that stays without the sign is never looked at, and swept.
        if let Some(directory) = &self.directory {
            let _ = rustix::fs::unlinkat(directory, &self.name[..], AtFlags::empty());
        }
    }
}

impl Signed<'_> {
    /// The file is whole: takes the sign off and removes the redo.
    pub(crate) fn remove(&self, file: BorrowedFd<'_>, seen: &Seen) {
        if self.signed {
            // If the sign stays, the next to come finds the file whole and takes it off.
            let _ = rustix::fs::fchmod(file, Mode::from_raw_mode(seen.mode & !PENDING));
            self.redo.forget();
        }
    }
}

/// Brings a signed file, whose exclusive lock is held, into order. True if its bytes were changed.
pub(crate) fn recover(site: &Site, target: &Target, file: BorrowedFd<'_>, seen: &Seen) -> Result<bool> {
    let name = name(target);
    let directory = side::open(site, seen.uid)?;
    let text = match &directory {
        Some(directory) => read_redo(directory, &name, seen)?,
        None => None,
    };
    let current = read(file, seen.size)?;
    let change = text.as_deref().and_then(Change::parse).filter(|change| change.inode == inode_number(seen));
    let applied = match change {
        Some(change) if change.judge(&current) == State::Torn => {
            finish(file, &change, current.len()).map_err(|errno| failed("finish an interrupted change", errno))?;
            if site.config.durability == Durability::Data {
                sync(file)?;
            }
            tracing::info!(session = %Tag::of(target.id()), "finished a change that had been interrupted");
            true
        }
        _ => false,
    };
    rustix::fs::fchmod(file, Mode::from_raw_mode(seen.mode & !PENDING))
        .map_err(|errno| failed("finish an interrupted change", errno))?;
    if let Some(directory) = directory {
        let _ = rustix::fs::unlinkat(directory, &name[..], AtFlags::empty());
    }
    Ok(applied)
}

fn finish(file: BorrowedFd<'_>, change: &Change<'_>, length: usize) -> Result<(), Errno> {
    if length > change.new_length {
        truncate(file, change.new_length)?;
    } else if length < change.new_length {
        reserve(file, length, change.new_length)?;
    }
    pwrite(file, change.new, change.from)
}

/// A redo's bytes, if there is one and it is the owner's.
fn read_redo(directory: &OwnedFd, name: &[u8], seen: &Seen) -> Result<Option<bytes::Bytes>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("read a redo", errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| failed("read a redo", errno))?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
    if !regular || (stat.st_uid != seen.uid && stat.st_uid != 0) {
        return Err(Error::unavailable("a redo belongs to somebody else"));
    }
    read(&file, u64::try_from(stat.st_size).unwrap_or(0)).map(Some)
}

fn name(target: &Target) -> Vec<u8> {
    [side::REDO.as_bytes(), target.id()].concat()
}

fn inode_number(seen: &Seen) -> u64 {
    u64::try_from(seen.inode.number()).unwrap_or(u64::MAX)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(file.as_fd(), bytes))?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// What a redo says.
#[derive(Debug, PartialEq, Eq)]
struct Change<'a> {
    durable: bool,
    inode: u64,
    old_length: usize,
    new_length: usize,
    /// Where the first difference lies.
    from: usize,
    /// What lies there before and after; whatever follows it is the same in both.
    old: &'a [u8],
    new: &'a [u8],
    head: u64,
    tail: u64,
}

/// What the bytes of a session file are to a redo.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The change has not begun.
    Old,
    /// The change is complete.
    New,
    /// The change was interrupted.
    Torn,
    /// Somebody has written since.
    Foreign,
}

impl<'a> Change<'a> {
    fn new(seen: &Seen, range: Range<usize>, old: &'a [u8], new: &'a [u8], durable: bool) -> Change<'a> {
        let kept = new.len() - range.end;
        Change {
            durable,
            inode: inode_number(seen),
            old_length: old.len(),
            new_length: new.len(),
            from: range.start,
            head: xxh3_64(&old[..range.start]),
            tail: xxh3_64(&new[range.end..]),
            old: &old[range.start..old.len() - kept],
            new: &new[range],
        }
    }

    /// What stands before and behind the two versions.
    fn frame(&self) -> [Vec<u8>; 2] {
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        let lengths = [self.old_length, self.new_length, self.from, self.old.len(), self.new.len()];
        let lengths = lengths.map(|length| length as u64);
        let mode = u64::from(self.durable);
        for number in [mode, self.inode].into_iter().chain(lengths).chain([self.head, self.tail]) {
            header.extend_from_slice(&number.to_le_bytes());
        }
        let mut hash = Xxh3::new();
        for part in [&header[..], self.old, self.new] {
            hash.update(part);
        }
        [header, hash.digest().to_le_bytes().to_vec()]
    }

    /// `None` for a redo that was not written to its end.
    fn parse(text: &'a [u8]) -> Option<Change<'a>> {
        let (body, checksum) = text.split_last_chunk::<8>()?;
        if !body.starts_with(MAGIC) || xxh3_64(body) != u64::from_le_bytes(*checksum) {
            return None;
        }
        let mut numbers = body.get(MAGIC.len()..HEADER)?.chunks_exact(8);
        let mut number = || numbers.next()?.try_into().ok().map(u64::from_le_bytes);
        let (durable, inode) = (number()? == 1, number()?);
        let mut length = || number().and_then(|number| usize::try_from(number).ok());
        let (old_length, new_length, from) = (length()?, length()?, length()?);
        let (old, new) = (length()?, length()?);
        let (head, tail) = (number()?, number()?);
        let (old, new) = match body[HEADER..].split_at_checked(old)? {
            (old, rest) if rest.len() == new => (old, rest),
            _ => return None,
        };
        // The same number of bytes follows in both.
        let fits = from.checked_add(old.len())? <= old_length
            && from.checked_add(new.len())? <= new_length
            && old_length - old.len() == new_length - new.len();
        fits.then_some(Change { durable, inode, old_length, new_length, from, old, new, head, tail })
    }

    fn kept(&self) -> usize {
        self.new_length - self.from - self.new.len()
    }

    fn judge(&self, current: &[u8]) -> State {
        let kept = self.kept();
        let lengths = self.old_length.min(self.new_length)..=self.old_length.max(self.new_length);
        if current.is_empty() || !lengths.contains(&current.len()) || current.len() < self.from + kept {
            return State::Foreign;
        }
        let (head, rest) = current.split_at(self.from);
        let (middle, tail) = rest.split_at(rest.len() - kept);
        if xxh3_64(head) != self.head || xxh3_64(tail) != self.tail {
            return State::Foreign;
        }
        if middle == self.old {
            State::Old
        } else if middle == self.new {
            State::New
        } else if self.is_prefix_of_new_on_old(middle) || (self.durable && self.is_mixture_of_sectors(middle)) {
            State::Torn
        } else {
            State::Foreign
        }
    }

    fn is_prefix_of_new_on_old(&self, middle: &[u8]) -> bool {
        let same = middle.iter().zip(self.new).take_while(|(a, b)| a == b).count();
        let old = &self.old[..self.old.len().min(self.new.len())];
        (same == middle.len() && same >= old.len()) || old.get(same..) == Some(&middle[same..])
    }

    fn is_mixture_of_sectors(&self, middle: &[u8]) -> bool {
        // What a file holds beyond the end that it had is zero until it is written.
        let is = |whole: &[u8], at: usize, sector: &[u8]| {
            let known = whole.get(at..whole.len().min(at + sector.len())).unwrap_or_default();
            sector.starts_with(known) && sector[known.len()..].iter().all(|&byte| byte == 0)
        };
        let mut at = 0;
        while at < middle.len() {
            let end = middle.len().min(at + SECTOR - (self.from + at) % SECTOR);
            let sector = &middle[at..end];
            if !is(self.old, at, sector) && !is(self.new, at, sector) {
                return false;
            }
            at = end;
        }
        true
    }
}

#[cfg(test)]
#[path = "redo_tests.rs"]
mod tests;
