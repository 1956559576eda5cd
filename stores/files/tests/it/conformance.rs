//! The store keeps every promise of the suite, at once and through the pool.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use cloakroom_core::{DynStore, Key};
use cloakroom_store_files::{FilesConfig, FilesStore, Io};
use cloakroom_testkit::conformance::Harness;

struct Fresh {
    store: FilesStore,
    config: FilesConfig,
    dir: tempfile::TempDir,
}

impl Fresh {
    fn new(io: Io) -> Fresh {
        let dir = tempfile::tempdir().unwrap();
        let config = FilesConfig::new(dir.path()).io(io);
        Fresh { store: FilesStore::open(config.clone()).unwrap(), config, dir }
    }
}

impl Harness for Fresh {
    fn store(&self) -> Arc<dyn DynStore> {
        Arc::new(self.store.clone())
    }

    async fn age(&self, key: &Key, by: Duration) {
        let name = format!("sess_{}", String::from_utf8_lossy(key.record()));
        let path = self.dir.path().join(name);
        let now = fs::metadata(&path).unwrap();
        let modified =
            UNIX_EPOCH + Duration::new(now.mtime().try_into().unwrap(), now.mtime_nsec().try_into().unwrap());
        File::options().write(true).open(&path).unwrap().set_modified(modified - by).unwrap();
    }

    /// What another process has: nothing in common with the first but the directory.
    async fn second(&self) -> Option<Arc<dyn DynStore>> {
        Some(Arc::new(FilesStore::open(self.config.clone()).unwrap()))
    }

    async fn aside(&self) -> Option<Vec<Bytes>> {
        let inside = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let named = |path: &PathBuf, begin: &str| path.file_name().unwrap().to_string_lossy().starts_with(begin);
        let own = inside(self.dir.path()).into_iter().filter(|path| named(path, ".cloakroom-"));
        let aside = own.flat_map(|own| inside(&own)).filter(|path| named(path, "aside-"));
        Some(aside.map(|path| fs::read(path).unwrap().into()).collect())
    }

    /// Each of them is several system calls and a queue.
    fn increments(&self) -> usize {
        400
    }

    /// PHP counts a session's age in whole seconds.
    fn tick(&self) -> Duration {
        Duration::from_secs(1)
    }
}

mod inline {
    use super::{Fresh, Io};

    cloakroom_testkit::store_conformance!(Fresh::new(Io::Inline); aside, list, second, sweep);
}

mod pool {
    use super::{Fresh, Io};

    cloakroom_testkit::store_conformance!(Fresh::new(Io::Pool); aside, list, second, sweep);
}
