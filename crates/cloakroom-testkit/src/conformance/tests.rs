//! The suite's own tests: that every case is named, and that those cases work which the memory store has no use for.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom_core::store::{BoxFuture, Capabilities, Claim, Expect, Lease, Locked, Outcome, Put, Record, Swept};
use cloakroom_core::{Deadline, DynStore, Error, Key, Result, Store};
use cloakroom_store_memory::MemoryStore;

use super::Harness;
use crate::faulty::{Fault, Faulty, Op};

/// A case that the macro does not name would never run.
#[test]
fn the_macro_names_every_case() {
    let macros = include_str!("macros.rs");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/conformance");
    let mut cases = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap();
        if module == "stated" {
            continue;
        }
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
            let name = rest.split('<').next().unwrap();
            assert!(macros.contains(&format!("{module}::{name},")), "{module}::{name} is in no list of macros.rs");
            cases += 1;
        }
    }
    assert!(cases > 80, "only {cases} cases found");
}

/// A store that needs a moment for every call.
mod talking {
    use super::*;

    struct Talking(Faulty<MemoryStore>);

    impl Talking {
        fn new() -> Talking {
            let store = Faulty::new(MemoryStore::default());
            store.fail_always(Op::Any, Fault::Stall(Duration::from_millis(1)));
            Talking(store)
        }
    }

    impl Harness for Talking {
        fn store(&self) -> Arc<dyn DynStore> {
            Arc::new(self.0.clone())
        }

        async fn age(&self, key: &Key, by: Duration) {
            self.0.inner().age(key, by);
        }

        fn increments(&self) -> usize {
            160
        }
    }

    crate::store_conformance!(Talking::new(); columns, limit, list, sweep, talks, versions);
}

/// A store whose locks can be lost.
mod losing {
    use super::*;

    type Held = Arc<Mutex<HashMap<Key, (u64, Box<dyn Lease>)>>>;

    #[derive(Clone, Debug, Default)]
    struct Losing {
        store: MemoryStore,
        held: Held,
        tokens: Arc<Mutex<u64>>,
    }

    #[derive(Debug)]
    struct Lent {
        held: Held,
        key: Key,
        token: u64,
    }

    impl Lent {
        fn lease(&self) -> Option<Box<dyn Lease>> {
            let mut held = self.held.lock().unwrap();
            let ours = held.get(&self.key).is_some_and(|(token, _)| *token == self.token);
            ours.then(|| held.remove(&self.key)).flatten().map(|(_, lease)| lease)
        }
    }

    impl Lease for Lent {
        fn release(self: Box<Self>) -> BoxFuture<'static, ()> {
            drop(self);
            Box::pin(std::future::ready(()))
        }

        fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
            self
        }
    }

    impl Drop for Lent {
        fn drop(&mut self) {
            drop(self.lease());
        }
    }

    impl Store for Losing {
        fn capabilities(&self) -> Capabilities {
            Store::capabilities(&self.store)
        }

        async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
            Store::load(&self.store, key, deadline).await
        }

        async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
            let Some(locked) = Store::lock(&self.store, key, claim, deadline).await? else { return Ok(None) };
            let token = {
                let mut tokens = self.tokens.lock().unwrap();
                *tokens += 1;
                *tokens
            };
            self.held.lock().unwrap().insert(key.clone(), (token, locked.lease));
            let lease = Lent { held: Arc::clone(&self.held), key: key.clone(), token };
            Ok(Some(Locked::new(Box::new(lease), locked.record)))
        }

        async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
            let expect = match expect {
                Expect::Held(lease) => match lease.into_any().downcast::<Lent>().unwrap().lease() {
                    Some(lease) => Expect::Held(lease),
                    None if Store::load(self, key, deadline).await?.is_some() => return Err(Error::lock_lost()),
                    None => return Ok(Outcome::Gone),
                },
                other => other,
            };
            Store::commit(&self.store, key, expect, put, deadline).await
        }

        async fn sweep(&self, step: usize) -> Result<Swept> {
            Store::sweep(&self.store, step).await
        }
    }

    impl Harness for Losing {
        fn store(&self) -> Arc<dyn DynStore> {
            Arc::new(self.clone())
        }

        async fn age(&self, key: &Key, by: Duration) {
            self.store.age(key, by);
        }

        async fn lose_lock(&self, key: &Key) -> bool {
            self.held.lock().unwrap().remove(key).is_some()
        }
    }

    crate::__conformance_group!(lost, Losing::default());
}
