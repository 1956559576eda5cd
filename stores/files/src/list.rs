//! Telling which sessions there are.
//!
//! PHP's handler cannot. A directory has no order, so that each call goes through all of it and keeps the first `limit`
//! keys after the one asked for: memory is bounded by `limit`, time is not.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::store::{BoxFuture, List, Listed};
use cloakroom_core::{Error, Key, Result};
use rustix::fs::{AtFlags, CWD, FileType};

use crate::access::Inner;
use crate::file::{Site, nanos, now};
use crate::layout;
use crate::store::FilesStore;
use crate::sweep::{is_level, open_directory, unreadable};

impl List for FilesStore {
    fn list<'a>(&'a self, after: Option<&'a Key>, limit: usize) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let inner = Arc::clone(self.inner());
        let after = after.map(|key| key.record().to_vec());
        Box::pin(async move {
            let job = tokio::task::spawn_blocking(move || inner.list(after.as_deref(), limit));
            job.await.map_err(|broken| Error::unavailable("listing was broken off").with_source(broken))?
        })
    }
}

type Found = BTreeMap<Vec<u8>, (u64, Duration)>;

impl Inner {
    fn list(&self, after: Option<&[u8]>, limit: usize) -> Result<Vec<Listed>> {
        let mut found = Found::new();
        if limit > 0 {
            self.site.directory_is_there()?;
            let directory = open_directory(CWD, self.site.config.path.as_path(), true).map_err(unreadable)?;
            self.site.gather(directory, self.site.config.depth, after, limit, &mut found)?;
        }
        let listed = found.into_iter().map(|(id, (size, ttl))| Listed::new(Key::from_bytes(id), size, Some(ttl)));
        Ok(listed.collect())
    }
}

impl Site {
    fn gather(
        &self,
        mut directory: rustix::fs::Dir,
        depth: usize,
        after: Option<&[u8]>,
        limit: usize,
        found: &mut Found,
    ) -> Result<()> {
        while let Some(entry) = directory.next() {
            let entry = entry.map_err(unreadable)?;
            let here = directory.fd().map_err(unreadable)?;
            let name = entry.file_name();
            if depth > 0 {
                if is_level(&entry)
                    && let Ok(inner) = open_directory(here, name, false)
                {
                    self.gather(inner, depth - 1, after, limit, found)?;
                }
                continue;
            }
            let Some(id) = layout::id_of(name.to_bytes()) else { continue };
            if after.is_some_and(|after| id <= after) {
                continue;
            }
            let full = found.len() >= limit;
            if full && found.last_key_value().is_some_and(|(last, _)| id >= last.as_slice()) {
                continue;
            }
            if let Some(about) = self.present(here, name) {
                found.insert(id.to_vec(), about);
                if full {
                    found.pop_last();
                }
            }
        }
        Ok(())
    }

    fn present(&self, directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<(u64, Duration)> {
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return None;
        }
        let mtime = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
        let left = u64::try_from(mtime + nanos(self.config.lifetime) - now()).ok()?;
        Some((u64::try_from(stat.st_size).ok()?, Duration::from_nanos(left)))
    }
}
