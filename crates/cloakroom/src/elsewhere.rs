//! The stores that PHP's settings of single requests lead to, as `ini_set('session.save_path', …)` does.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use cloakroom_core::{DynStore, Result, Settings};
use tokio::sync::OnceCell;

use crate::connect::{Source, open};

/// So many are kept. For another one, that one is closed which nobody has used for the longest time; it is opened anew
/// when it is wanted.
const MOST: usize = 64;

/// Stores by where they are. They are kept, since waiting for a session is first come, first served within one store
/// only.
#[derive(Default)]
pub(crate) struct Elsewhere(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// With when it was asked for last, as a count.
    stores: HashMap<Place, (Opened, u64)>,
    asked: u64,
}

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
        let (opened, closed) = self.lock().opened(place(settings));
        // Outside of the lock: that may take a while.
        drop(closed);
        Ok(Arc::clone(opened.get_or_try_init(|| open(Source::Settings, settings)).await?))
    }

    /// All that are open.
    pub(crate) fn stores(&self) -> Vec<Arc<dyn DynStore>> {
        self.lock().stores.values().filter_map(|(opened, _)| opened.get().cloned()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// What is there or will be, and what has to go for it.
    fn opened(&mut self, place: Place) -> (Opened, Option<Opened>) {
        self.asked += 1;
        let closed =
            if self.stores.len() >= MOST && !self.stores.contains_key(&place) { self.close_one() } else { None };
        let (opened, asked) = self.stores.entry(place).or_default();
        *asked = self.asked;
        (Arc::clone(opened), closed)
    }

    fn close_one(&mut self) -> Option<Opened> {
        let idle = self.stores.iter().filter(|(_, (opened, _))| !is_used(opened));
        // One that could not be opened goes first.
        let oldest = idle.min_by_key(|(_, (opened, asked))| (opened.get().is_some(), *asked))?.0.clone();
        self.stores.remove(&oldest).map(|(opened, _)| opened)
    }
}

/// Whether somebody opens it just now, has it, or has left it with something to do that a shutdown is to wait for.
fn is_used(opened: &Opened) -> bool {
    Arc::strong_count(opened) > 1
        || opened.get().is_some_and(|store| {
            Arc::strong_count(store) > 1
                || pin!(store.settle()).as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        })
}

#[cfg(all(test, feature = "files", feature = "memory"))]
mod tests {
    use std::time::Duration;

    use cloakroom_store_memory::MemoryStore;
    use cloakroom_testkit::faulty::{Fault, Faulty, Op};

    use super::*;
    use crate::Cloakroom;

    /// A place that is none but that of these settings.
    fn settings(path: &std::path::Path, n: usize) -> Settings {
        let mut settings = Settings::php();
        settings.save_path = path.to_string_lossy().into_owned();
        settings.gc_maxlifetime = i64::try_from(1440 + n).unwrap_or(i64::MAX);
        settings
    }

    #[tokio::test]
    async fn stores_that_nobody_uses_are_not_kept_without_end() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = Elsewhere::default();
        let store = async |n| elsewhere.store(&settings(root.path(), n)).await.unwrap();
        let used = store(0).await;
        let often = Arc::downgrade(&store(1).await);
        for n in 2..3 * MOST {
            store(n).await;
            // All but one place, which may be that of one that could not be opened.
            assert!((n.min(MOST - 1)..=MOST).contains(&elsewhere.stores().len()), "{n}");
            let mut nowhere = settings(root.path(), n);
            nowhere.save_handler = "no such handler".into();
            assert!(elsewhere.store(&nowhere).await.is_err());
            store(1).await;
        }
        assert!(Arc::ptr_eq(&used, &store(0).await), "one that is in use is the same for all");
        assert!(often.strong_count() > 0, "and so is one that was asked for not long ago");
        let (one, two) = (settings(root.path(), 1), settings(root.path(), 2));
        assert!(Elsewhere::is_same(&one, &one) && !Elsewhere::is_same(&one, &two));
    }

    /// Stores that are still giving a lock back when nobody has them any more.
    #[tokio::test(start_paused = true)]
    async fn stores_are_not_left_before_they_have_settled() {
        let root = tempfile::tempdir().unwrap();
        let room = Cloakroom::builder().settings(settings(root.path(), 0)).build().await.unwrap();
        let elsewhere = room.elsewhere.as_ref().unwrap();
        for n in 1..=3 {
            let store = Faulty::new(MemoryStore::default());
            store.fail_always(Op::Settle, Fault::Stall(Duration::from_secs(1)));
            let cell = OnceCell::new_with(Some(Arc::new(store) as Arc<dyn DynStore>));
            elsewhere.lock().stores.insert(place(&settings(root.path(), n)), (Arc::new(cell), 0));
        }
        for n in 4..3 * MOST {
            elsewhere.store(&settings(root.path(), n)).await.unwrap();
        }
        for n in 1..=3 {
            assert!(elsewhere.lock().stores.contains_key(&place(&settings(root.path(), n))), "{n}");
        }
        // One beside the other.
        let begun = tokio::time::Instant::now();
        room.shutdown().await;
        assert_eq!(begun.elapsed().as_secs(), 1);
    }
}
