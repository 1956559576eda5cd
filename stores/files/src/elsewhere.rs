//! Where there is no `flock`: the same names, and an error that says so.

use cloakroom_core::store::{Capabilities, Claim, Expect, Locked, Outcome, Put, Record, Swept};
use cloakroom_core::{Deadline, Error, Key, Result, Store};

use crate::config::FilesConfig;

/// Sessions in PHP's own files; on this system there are none.
#[derive(Clone, Debug)]
pub enum FilesStore {}

impl FilesStore {
    /// Always an error of the kind `Config` on this system.
    pub fn open(_config: FilesConfig) -> Result<FilesStore> {
        Err(Error::config("sessions in PHP's files need flock, which this system does not have"))
    }

    /// Always an error of the kind `Config` on this system.
    pub fn new(path: impl Into<std::path::PathBuf>) -> Result<FilesStore> {
        FilesStore::open(FilesConfig::new(path))
    }

    /// The settings.
    pub fn config(&self) -> &FilesConfig {
        match *self {}
    }

    /// How many calls on the thread that asked took over a millisecond.
    pub fn slow_calls(&self) -> u64 {
        match *self {}
    }

    /// How many calls wait for locks of session files.
    pub fn waiting(&self) -> usize {
        match *self {}
    }
}

impl Store for FilesStore {
    fn capabilities(&self) -> Capabilities {
        match *self {}
    }

    async fn load(&self, _: &Key, _: &Deadline) -> Result<Option<Record>> {
        match *self {}
    }

    async fn lock(&self, _: &Key, _: Claim, _: &Deadline) -> Result<Option<Locked>> {
        match *self {}
    }

    async fn commit(&self, _: &Key, _: Expect<'_>, _: Put, _: &Deadline) -> Result<Outcome> {
        match *self {}
    }

    async fn sweep(&self, _: usize) -> Result<Swept> {
        match *self {}
    }
}
