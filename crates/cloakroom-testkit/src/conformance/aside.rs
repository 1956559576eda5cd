//! What was set aside can be looked at.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use cloakroom_core::store::{Expect, Outcome, Put};

use super::Harness;
use super::tools::{assert_absent, assert_is, commit, create, hold};

/// Every byte of it.
pub async fn what_is_set_aside_is_kept<H: Harness>(harness: H) {
    let store = harness.store();
    assert!(harness.aside().await.unwrap().is_empty());
    let payloads: [&'static [u8]; 3] = [b"junk|\0\xff", b"more junk", b"even more"];
    for (n, payload) in payloads.into_iter().enumerate() {
        let key = harness.key(&format!("corrupt-{n}"));
        create(&store, &key, payload).await;
        let expect = if n == 1 { Expect::Held(hold(&store, &key).await.lease) } else { Expect::Any };
        assert_is!(commit(&store, &key, expect, Put::SetAside).await, Outcome::Removed(_));
        assert_absent(&store, &key).await;
        assert!(harness.aside().await.unwrap().iter().any(|kept| kept == payload), "payload {n}");
    }
    assert_eq!(harness.aside().await.unwrap().len(), 3);
}

/// What is only removed is not kept: a logout means it.
pub async fn what_is_removed_is_not_kept<H: Harness>(harness: H) {
    let (store, key) = (harness.store(), harness.key("logout"));
    create(&store, &key, "login").await;
    assert_is!(commit(&store, &key, Expect::Any, Put::Remove).await, Outcome::Removed(_));
    assert_is!(commit(&store, &key, Expect::Any, Put::SetAside).await, Outcome::Gone);
    assert!(harness.aside().await.unwrap().is_empty());
}
