//! Requests that end early.

use std::panic::AssertUnwindSafe;

use cloakroom_core::ErrorKind;

use crate::support::{Visitor, engine};

#[tokio::test]
async fn a_cancelled_request_discards_and_unlocks() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    for guard_first in [true, false] {
        let session = visitor.begin();
        let mut s = session.start().await.unwrap();
        s.set("n", &9).unwrap();
        if guard_first {
            drop(s);
            session.cancel();
        } else {
            session.cancel();
            drop(s);
        }
        drop(session);
        assert_eq!(visitor.begin().start().await.unwrap().get::<i64>("n").unwrap(), Some(1));
    }
    assert_eq!(visitor.get("n").await, Some(1));
}

/// The guard and a clone of the handle live on in a task of the handler's.
#[tokio::test(start_paused = true)]
async fn a_cancelled_request_does_not_wait_for_its_own_guard() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let s = session.start().await.unwrap();
    session.cancel();
    assert_eq!(session.update(|s| s.set("n", &2)).await.unwrap_err().kind(), ErrorKind::Misuse);
    drop(s);
    session.update(|s| s.set("n", &2)).await.unwrap();
    assert_eq!(visitor.get("n").await, Some(2));
}

#[tokio::test]
async fn a_panic_discards_and_unlocks() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
        s.set("n", &9).unwrap();
        let _s = s;
        panic!("the handler's own");
    }));
    assert!(panicked.is_err());
    // A layer that catches panics lets the request end in order.
    visitor.finish(session).await;
    assert_eq!(visitor.get("n").await, Some(1));
}

/// Whatever moment a request is dropped at, the session is as before or as after, and free.
#[tokio::test]
async fn a_request_dropped_anywhere_leaves_a_whole_session() {
    use std::future::Future;
    use std::task::{Context, Waker};
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    for polls in 0..12 {
        let before = visitor.get("n").await.unwrap();
        let session = visitor.begin();
        let other = session.clone();
        let mut work = Box::pin(async move {
            let mut s = session.start().await?;
            s.set("n", &(before + 1))?;
            tokio::task::yield_now().await;
            s.regenerate_id(false).await?;
            tokio::task::yield_now().await;
            s.write_close().await?;
            session.rotate().await
        });
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..polls {
            if work.as_mut().poll(&mut context).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        other.cancel();
        drop(work);
        engine.shutdown().await;
        let session = visitor.begin();
        let after = match session.start().await {
            Ok(s) => s.get::<i64>("n").unwrap(),
            Err(error) => panic!("{polls}: {error:?} {}", error.kind() == ErrorKind::Locked),
        };
        assert!(after == Some(before) || after == Some(before + 1), "{polls}: {after:?}");
        visitor.finish(session).await;
    }
}
