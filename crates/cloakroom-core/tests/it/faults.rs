//! A store that fails: nothing is emptied, nobody is logged out, nothing is done twice.

use std::time::Duration;

use cloakroom_core::{Engine, ErrorKind, Settings};
use cloakroom_store_memory::MemoryStore;
use cloakroom_testkit::faulty::{Fault, Faulty, Op};
use http::HeaderMap;
use tokio::time::Instant;

use crate::support::{Visitor, memory};

fn faulty() -> (Faulty<MemoryStore>, Engine) {
    let store = Faulty::new(memory());
    let engine = Engine::new(store.clone(), Settings::php()).unwrap();
    (store, engine)
}

async fn records(engine: &Engine) -> usize {
    engine.store().as_list().unwrap().list(None, 100).await.unwrap().len()
}

/// What made the move fail had used up the request's time for talking to the store.
#[tokio::test(start_paused = true)]
async fn a_move_that_fails_for_want_of_time_leaves_no_copy() {
    let (store, engine) = faulty();
    let mut visitor = Visitor::with_session(&engine).await;
    for rotate in [true, false] {
        let session = visitor.begin();
        store.fail_at(Op::Remove, 1, Fault::Stall(Duration::from_millis(1)));
        if rotate {
            store.fail_at(Op::Write, 2, Fault::Stall(Duration::from_secs(1)));
            let _ = session.rotate().await.unwrap_err();
        } else {
            let mut s = session.start().await.unwrap();
            store.fail_at(Op::Write, 1, Fault::Stall(Duration::from_secs(1)));
            let _ = s.regenerate_id(false).await.unwrap_err();
            let _ = s.write_close().await.unwrap_err();
        }
        visitor.finish(session).await;
        assert_eq!((visitor.get("n").await, records(&engine).await), (Some(1), 1), "{rotate}");
    }
}

#[tokio::test]
async fn a_logout_that_fails_midway_can_be_repeated() {
    let (store, engine) = faulty();
    let mut late = Visitor::with_session(&engine).await;
    let mut rotated = late.clone();
    let session = rotated.begin();
    session.rotate().await.unwrap();
    rotated.finish(session).await;
    let session = late.begin();
    store.fail_at(Op::Remove, 2, Fault::Unavailable);
    assert_eq!(session.destroy().await.unwrap_err().kind(), ErrorKind::Unavailable);
    late.finish(session).await;
    assert!(late.begin().destroy().await.unwrap(), "the pointer is gone, and the session is found nevertheless");
    assert_eq!(rotated.get("n").await, None);
}

#[tokio::test(start_paused = true)]
async fn an_update_waits_for_its_neighbours_no_longer_than_its_limit_in_all() {
    let (_, engine) = faulty();
    let visitor = Visitor::with_session(&engine).await;
    let neighbour = visitor.clone();
    let neighbour = tokio::spawn(async move {
        for n in 10..20 {
            let mut s = neighbour.begin().start().await.unwrap();
            s.set("n", &n).unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            s.write_close().await.unwrap();
        }
    });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let error = visitor.begin().update(|s| s.set("m", &2)).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::Locked, 5));
    neighbour.abort();
}

/// Nothing was written under the new id, and the old one still has everything.
#[tokio::test]
async fn a_new_id_that_could_not_be_written_is_not_sent() {
    let (store, engine) = faulty();
    let mut visitor = Visitor::with_session(&engine).await;
    let before = visitor.cookie.clone();
    for by_hand in [true, false] {
        let session = visitor.begin();
        let mut s = session.start().await.unwrap();
        s.regenerate_id(false).await.unwrap();
        store.fail_at(Op::Write, 1, Fault::Unavailable);
        if by_hand {
            assert_eq!(s.write_close().await.unwrap_err().kind(), ErrorKind::Unavailable);
        } else {
            drop(s);
            let error = engine.finish(session.clone(), &mut HeaderMap::new()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
        }
        visitor.finish(session).await;
        assert_eq!((visitor.get("n").await, &visitor.cookie), (Some(1), &before), "{by_hand}");
    }

    // What was written after all is sent.
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    s.regenerate_id(false).await.unwrap();
    store.fail_at(Op::Write, 1, Fault::Unavailable);
    let _ = s.write_close().await.unwrap_err();
    session.update(|s| s.set("n", &2)).await.unwrap();
    visitor.finish(session).await;
    assert_ne!(visitor.cookie, before);
    assert_eq!(visitor.get("n").await, Some(2));
}
