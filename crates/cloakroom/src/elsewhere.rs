//! The stores that PHP's settings of single requests lead to, as `ini_set('session.save_path', …)` does.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloakroom_core::{DynStore, Result, Settings};
use tokio::sync::OnceCell;

use crate::connect::{Source, open};

/// So many are kept. Beyond that, those that nobody uses are closed; they are opened anew when they are wanted.
const MOST: usize = 64;

/// Stores by where they are. They are kept, since waiting for a session is first come, first served within one store
/// only.
#[derive(Default)]
pub(crate) struct Elsewhere(Mutex<HashMap<Place, Opened>>);

/// `save_handler`, `save_path` and `gc_maxlifetime`, and the handlers' own settings.
type Place = (String, String, i64, BTreeMap<String, String>);

/// A store that is opened by who asks first, while those who want the same one wait.
type Opened = Arc<OnceCell<Arc<dyn DynStore>>>;

fn place(settings: &Settings) -> Place {
    (settings.save_handler.clone(), settings.save_path.clone(), settings.gc_maxlifetime, settings.other.clone())
}

impl Elsewhere {
    /// Whether both lead to one store.
    pub(crate) fn is_same(one: &Settings, other: &Settings) -> bool {
        one.save_handler == other.save_handler
            && one.save_path == other.save_path
            && one.gc_maxlifetime == other.gc_maxlifetime
            && one.other == other.other
    }

    /// The store that these settings lead to.
    pub(crate) async fn store(&self, settings: &Settings) -> Result<Arc<dyn DynStore>> {
        let opened = self.opened(place(settings));
        Ok(Arc::clone(opened.get_or_try_init(|| open(Source::Settings, settings)).await?))
    }

    /// All that are open.
    pub(crate) fn stores(&self) -> Vec<Arc<dyn DynStore>> {
        self.lock().values().filter_map(|opened| opened.get().cloned()).collect()
    }

    fn opened(&self, place: Place) -> Opened {
        let mut all = self.lock();
        if all.len() >= MOST && !all.contains_key(&place) {
            all.retain(|_, opened| is_used(opened));
        }
        Arc::clone(all.entry(place).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody opens it just now, or has it.
fn is_used(opened: &Opened) -> bool {
    Arc::strong_count(opened) > 1 || opened.get().is_some_and(|store| Arc::strong_count(store) > 1)
}

#[cfg(all(test, feature = "files"))]
mod tests {
    use super::*;

    /// A place that is none but that of these settings.
    fn settings(path: &std::path::Path, lifetime: usize) -> Settings {
        let mut settings = Settings::php();
        settings.save_path = path.to_string_lossy().into_owned();
        settings.gc_maxlifetime = i64::try_from(lifetime).unwrap_or(i64::MAX);
        settings
    }

    #[tokio::test]
    async fn stores_that_nobody_uses_are_not_kept_without_end() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = Elsewhere::default();
        let used = elsewhere.store(&settings(root.path(), 0)).await.unwrap();
        for n in 1..3 * MOST {
            elsewhere.store(&settings(root.path(), n)).await.unwrap();
            assert!(elsewhere.stores().len() <= MOST);
        }
        let again = elsewhere.store(&settings(root.path(), 0)).await.unwrap();
        assert!(Arc::ptr_eq(&used, &again), "one that is in use is the same for all");
        let (one, two) = (settings(root.path(), 1), settings(root.path(), 2));
        assert!(Elsewhere::is_same(&one, &one) && !Elsewhere::is_same(&one, &two));
    }
}
