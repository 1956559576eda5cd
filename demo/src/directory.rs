//! The demo's own directory: private, because whoever can read a session file has the session, and so has whoever can
//! read its name.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Directory {
    sessions: PathBuf,
    own: PathBuf,
}

impl Directory {
    /// Makes what is not there yet: `cloakroom-demo-UID` below the system's directory for temporary files, and the
    /// sessions in it unless they are to lie elsewhere. They stay when the demo ends, so that a restart logs nobody
    /// out.
    pub(crate) fn prepare(sessions: Option<PathBuf>) -> Result<Directory, String> {
        let user = rustix::process::geteuid().as_raw();
        let own = std::env::temp_dir().join(format!("cloakroom-demo-{user}"));
        private(&own, user)?;
        let sessions = if let Some(chosen) = sessions {
            make(&chosen)?;
            chosen
        } else {
            let below = own.join("sessions");
            private(&below, user)?;
            below
        };
        let sessions = sessions.canonicalize().map_err(|error| format!("{}: {error}", sessions.display()))?;
        Ok(Directory { sessions, own })
    }

    /// Where the session files lie: an absolute path, since PHP works in another directory.
    pub(crate) fn sessions(&self) -> &Path {
        &self.sessions
    }

    /// A place for the PHP pages of this very process.
    pub(crate) fn for_php(&self) -> Result<PathBuf, String> {
        let path = self.own.join(format!("php-{}", std::process::id()));
        make(&path)?;
        Ok(path)
    }
}

fn make(path: &Path) -> Result<(), String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| format!("cannot make the directory {}: {error}", path.display()))
}

/// A directory that is nobody else's. Everybody may write to `/tmp`, so another user may have been there first.
fn private(path: &Path, user: u32) -> Result<(), String> {
    make(path)?;
    let found = fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if found.is_dir() && found.uid() == user && found.mode() & 0o777 == 0o700 {
        Ok(())
    } else {
        Err(format!(
            "{} is not a private directory of yours: take another one with --sessions, or remove it",
            path.display()
        ))
    }
}
