//! The renewal of a lock, and who must not wait for it.

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome};
use cloakroom_core::{ErrorKind, Store};
use tokio::time::Instant;

use crate::faults::{IO, behind, create, write};
use crate::util::{deadline, key, limits, one, payload, until};

/// The renewal of a lock may take longer than a request: a commit does not wait for its end.
#[tokio::test]
async fn a_renewal_without_answer_holds_up_no_commit() {
    let Some(servers) = one() else { return };
    let (proxy, store) = behind(&servers[0]).await;
    create(&store, "a", "1").await;
    let held = store.lock(&key("a"), Claim::Existing, &deadline()).await.unwrap().unwrap().lease;
    proxy.flights();
    proxy.swallow();
    until("the lock is being renewed", || proxy.flights() > 0).await;
    let begun = Instant::now();
    let late = store.commit(&key("a"), Expect::Held(held), payload("2"), &limits(Duration::from_secs(5))).await;
    let took = begun.elapsed();
    let error = late.unwrap_err();
    assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, false), "{error:?}");
    assert!(took < IO * 2, "{took:?}");
    proxy.heal();
    // The lock is given back all the same, and nothing was written.
    assert!(matches!(write(&store, "a", "3").await, Ok(Outcome::Done(_))));
}
