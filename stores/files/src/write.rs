//! Changing a session file in place so that no moment of it can lose the session.
//!
//! Stands where PHP has `ps_files_write`, which empties the file and writes it anew: killed or without space between
//! the two, the session is gone. A rename would be safe for one writer, but PHP waits on the old file and would write
//! into nothing. So everything happens in the file itself, which never passes through length 0:
//!
//! - a change within one page that does not shrink the file is one `pwrite`, which a kill does not split;
//! - cutting off the end is one `ftruncate`;
//! - anything else is written down in a redo first (`redo.rs`), so that whoever comes next can finish it.
//!
//! Space is reserved before anything is overwritten, and a write that fails is taken back.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use cloakroom_core::{Error, Result};
use rustix::io::{Errno, retry_on_intr};

use crate::config::Durability;
use crate::file::{Seen, Site, Target, failed};
use crate::redo::Redo;

/// The kernel copies a write page by page, and looks for a deadly signal only between two pages.
const PAGE: usize = 4096;
/// A disk writes this much or nothing when the power goes.
const SECTOR: usize = 512;

/// How old bytes become new ones.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// They are the same.
    Nothing,
    /// The new ones are the beginning of the old ones.
    Cut,
    /// One write of this range of the new bytes.
    Patch(Range<usize>),
    /// A write of this range of the new bytes, in more than one step.
    Redo(Range<usize>),
}

impl Plan {
    pub(crate) fn new(old: &[u8], new: &[u8], durability: Durability) -> Plan {
        let from = common_prefix(old, new);
        if from == new.len() {
            return if from == old.len() { Plan::Nothing } else { Plan::Cut };
        }
        let same_length = old.len() == new.len();
        let kept = if same_length { common_suffix(&old[from..], &new[from..]) } else { 0 };
        let to = new.len() - kept;
        let within = |unit: usize| from / unit == (to - 1) / unit;
        let at_once = match durability {
            Durability::None => new.len() >= old.len() && within(PAGE),
            // Without power the length and the bytes may reach the disk in either order.
            Durability::Data => same_length && within(SECTOR),
        };
        if at_once { Plan::Patch(from..to) } else { Plan::Redo(from..to) }
    }
}

/// Turns a locked file that holds `old` into one that holds `new`. After an error it holds `old`, unless the error says
/// that the change may have been applied. False if there was nothing to change.
pub(crate) fn write(
    site: &Site,
    target: &Target,
    file: BorrowedFd<'_>,
    seen: &Seen,
    old: &[u8],
    new: &[u8],
) -> Result<bool> {
    let durability = site.config.durability;
    match Plan::new(old, new, durability) {
        Plan::Nothing => return Ok(false),
        Plan::Cut => truncate(file, new.len()).map_err(|errno| failed("shorten a session file", errno))?,
        Plan::Patch(range) => put(file, &range, old, new)?,
        Plan::Redo(range) => {
            let redo = Redo::prepare(site, target, seen, range.clone(), old, new)?;
            if new.len() > old.len()
                && let Err(errno) = reserve(file, old.len(), new.len())
            {
                redo.forget();
                return Err(failed("reserve space for a session file", errno));
            }
            let sign = redo.sign(file, seen)?;
            let written = if new.len() < old.len() {
                truncate(file, new.len()).map_err(|errno| failed("shorten a session file", errno))
            } else {
                Ok(())
            };
            match written.and_then(|()| put(file, &range, old, new)) {
                Ok(()) => {}
                // What could not be taken back is left for the redo to finish.
                Err(error) if error.may_have_been_applied() => return Err(error),
                Err(error) => {
                    sign.remove(file, seen);
                    return Err(error);
                }
            }
            if durability == Durability::Data {
                sync(file)?;
            }
            sign.remove(file, seen);
            return Ok(true);
        }
    }
    if durability == Durability::Data {
        sync(file)?;
    }
    Ok(true)
}

/// Writes a range of the new bytes; if that fails, the old ones again.
fn put(file: BorrowedFd<'_>, range: &Range<usize>, old: &[u8], new: &[u8]) -> Result<()> {
    let Err(errno) = pwrite(file, &new[range.clone()], range.start) else { return Ok(()) };
    let error = failed("write a session file", errno);
    // All of it from there on: the end may have been cut off.
    let restored = pwrite(file, old.get(range.start..).unwrap_or_default(), range.start);
    let restored = restored.and_then(|()| truncate(file, old.len()));
    Err(if restored.is_ok() { error } else { error.or_maybe_applied() })
}

/// Writes all of it.
pub(crate) fn pwrite(file: impl AsFd, mut bytes: &[u8], at: usize) -> Result<(), Errno> {
    let file = file.as_fd();
    let mut at = at as u64;
    while !bytes.is_empty() {
        let written = retry_on_intr(|| rustix::io::pwrite(file, bytes, at))?;
        if written == 0 {
            return Err(Errno::IO);
        }
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}

pub(crate) fn truncate(file: impl AsFd, length: usize) -> Result<(), Errno> {
    let file = file.as_fd();
    retry_on_intr(|| rustix::fs::ftruncate(file, length as u64))
}

/// Makes sure that there is space for what lies beyond the old end, without making the file longer.
#[cfg(target_os = "linux")]
pub(crate) fn reserve(file: impl AsFd, from: usize, to: usize) -> Result<(), Errno> {
    let file = file.as_fd();
    let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
    match retry_on_intr(|| rustix::fs::fallocate(file, flags, from as u64, (to - from) as u64)) {
        // The file system cannot reserve; a write that fails is taken back all the same.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => other,
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn reserve(_file: impl AsFd, _from: usize, _to: usize) -> Result<(), Errno> {
    Ok(())
}

/// Waits until the file is on the disk.
pub(crate) fn sync(file: impl AsFd) -> Result<()> {
    rustix::fs::fsync(file).map_err(|errno| failed("flush a session file", errno).or_maybe_applied())
}

/// Blocks of so many bytes are compared at once.
const STEP: usize = 512;

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let length = a.len().min(b.len());
    let mut at = 0;
    while at + STEP <= length && a[at..at + STEP] == b[at..at + STEP] {
        at += STEP;
    }
    at + a[at..length].iter().zip(&b[at..length]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    let mut length = a.len().min(b.len());
    let (mut a, mut b) = (&a[a.len() - length..], &b[b.len() - length..]);
    let all = length;
    while length >= STEP && a[length - STEP..] == b[length - STEP..] {
        length -= STEP;
        (a, b) = (&a[..length], &b[..length]);
    }
    all - length + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// An error for a redo that cannot be kept.
pub(crate) fn no_redo(errno: Errno) -> Error {
    failed("write down a change of a session before making it", errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &[u8], new: &[u8], none: &Plan, data: &Plan) {
        assert_eq!(&Plan::new(old, new, Durability::None), none);
        assert_eq!(&Plan::new(old, new, Durability::Data), data);
    }

    #[test]
    fn plans() {
        check(b"abc", b"abc", &Plan::Nothing, &Plan::Nothing);
        check(b"", b"", &Plan::Nothing, &Plan::Nothing);
        check(b"abc", b"", &Plan::Cut, &Plan::Cut);
        check(b"abc", b"ab", &Plan::Cut, &Plan::Cut);
        check(b"abcd", b"aXcd", &Plan::Patch(1..2), &Plan::Patch(1..2));
        check(b"", b"abc", &Plan::Patch(0..3), &Plan::Redo(0..3));
        check(b"abc", b"aXYZ", &Plan::Patch(1..4), &Plan::Redo(1..4));
        check(b"abcd", b"aXY", &Plan::Redo(1..3), &Plan::Redo(1..3));
        let mut old = vec![b'x'; 10_000];
        let mut new = old.clone();
        new[4095] = b'y';
        check(&old, &new, &Plan::Patch(4095..4096), &Plan::Patch(4095..4096));
        new[4096] = b'y';
        check(&old, &new, &Plan::Redo(4095..4097), &Plan::Redo(4095..4097));
        old[4095] = b'y';
        check(&old, &new, &Plan::Patch(4096..4097), &Plan::Patch(4096..4097));
        new[4096 + 512] = b'y';
        check(&old, &new, &Plan::Patch(4096..4609), &Plan::Redo(4096..4609));
    }

    #[test]
    fn common_parts() {
        for length in [0, 1, STEP - 1, STEP, STEP + 1, 2 * STEP, 1200] {
            for differs in 0..=length {
                let a = vec![b'a'; length];
                let mut b = a.clone();
                if let Some(byte) = b.get_mut(differs) {
                    *byte = b'b';
                }
                assert_eq!(common_prefix(&a, &b), differs);
                assert_eq!(common_suffix(&a, &b), if differs == length { length } else { length - differs - 1 });
            }
        }
        assert_eq!(common_suffix(b"xxabc", b"abc"), 3);
    }
}
