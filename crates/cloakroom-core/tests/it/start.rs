//! `start`: PHP's `session_start` and what ends it.

use std::time::Duration;

use cloakroom_core::ErrorKind;
use http::HeaderMap;

use crate::support::{Visitor, engine, engine_with, lines};

#[tokio::test]
async fn a_dropped_guard_is_written_before_the_head_leaves() {
    let engine = engine();
    let mut visitor = Visitor::new(&engine);
    let session = visitor.begin();
    {
        let mut s = session.start().await.unwrap();
        s.set("pizza", &3).unwrap();
    }
    let headers = visitor.finish(session).await;
    assert_eq!(lines(&headers, "set-cookie").len(), 1);
    assert_eq!(lines(&headers, "pragma"), ["no-cache"]);
    assert_eq!(visitor.get("pizza").await, Some(3));
}

#[tokio::test]
async fn an_empty_start_marks_the_browser_as_php_does() {
    let engine = engine();
    let mut visitor = Visitor::new(&engine);
    let session = visitor.begin();
    assert!(session.start().await.unwrap().is_new());
    visitor.finish(session).await;
    let id = visitor.cookie.clone().unwrap();
    let session = visitor.begin();
    assert!(session.peek().await.unwrap().exists());
    assert_eq!(session.start().await.unwrap().id().expose_str(), id);
    assert!(lines(&visitor.finish(session).await, "set-cookie").is_empty());
}

#[tokio::test]
async fn strict_mode_decides_what_becomes_of_an_unknown_id() {
    let foreign = "0123456789abcdef0123456789abcdef";
    for (strict, same) in [(true, false), (false, true)] {
        let engine = engine_with(|s| s.use_strict_mode = strict);
        let session = Visitor::with(&engine, foreign).begin();
        let s = session.start().await.unwrap();
        assert_eq!(s.id().expose_str() == foreign, same);
    }
}

#[tokio::test]
async fn other_verbs_never_wait_for_their_own_request() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let s = session.start().await.unwrap();
    for result in [
        session.read().await.map(drop),
        session.update(|s| s.set("n", &2)).await,
        session.start().await.map(drop),
        session.destroy().await.map(drop),
        session.rotate().await.map(drop),
    ] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Misuse);
    }
    s.write_close().await.unwrap();
    session.read().await.unwrap();
    let (first, second) = tokio::join!(session.start(), session.start());
    assert_ne!(first.is_ok(), second.is_ok());
}

#[tokio::test]
async fn abort_and_reset_discard() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    s.set("n", &2).unwrap();
    s.reset().unwrap();
    assert_eq!(s.get::<i64>("n").unwrap(), Some(1));
    s.set("n", &3).unwrap();
    let left = s.abort().await;
    assert_eq!(left.get::<i64>("n").unwrap(), Some(3));
    visitor.finish(session).await;
    assert_eq!(visitor.get("n").await, Some(1));
}

#[tokio::test]
async fn phps_destroy_says_nothing_to_the_browser() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    assert!(session.start().await.unwrap().destroy().await.unwrap());
    let headers = visitor.finish(session).await;
    assert!(lines(&headers, "set-cookie").is_empty());
    assert_eq!(visitor.get("n").await, None);
}

#[tokio::test]
async fn regenerating_with_deletion_leaves_nothing_under_the_old_id() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let old = visitor.cookie.clone().unwrap();
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    s.regenerate_id(true).await.unwrap();
    assert_eq!(Visitor::with(&engine, &old).get("n").await, None);
    s.set("user", &7).unwrap();
    drop(s);
    let headers = visitor.finish(session).await;
    assert_eq!(lines(&headers, "set-cookie").len(), 1);
    assert_ne!(visitor.cookie.as_ref(), Some(&old));
    assert_eq!((visitor.get("n").await, visitor.get("user").await), (Some(1), Some(7)));
}

#[tokio::test]
async fn regenerating_without_deletion_leaves_the_old_session_as_it_is() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let old = visitor.cookie.clone().unwrap();
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    s.set("n", &2).unwrap();
    s.regenerate_id(false).await.unwrap();
    s.set("n", &3).unwrap();
    drop(s);
    visitor.finish(session).await;
    assert_eq!(visitor.get("n").await, Some(3));
    assert_eq!(Visitor::with(&engine, &old).get("n").await, Some(2));
}

#[tokio::test]
async fn a_guard_that_outlives_the_head_is_written_by_a_task() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    visitor.finish(session.clone()).await;
    s.set("n", &8).unwrap();
    drop(s);
    engine.shutdown().await;
    assert_eq!(visitor.get("n").await, Some(8));
    // Nothing can mark the browser any more.
    let session = Visitor::new(&engine).begin();
    session.peek().await.unwrap();
    engine.finish(session.clone(), &mut HeaderMap::new()).await.unwrap();
    assert_eq!(session.start().await.unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(session.update(|s| s.set("n", &1)).await.unwrap_err().kind(), ErrorKind::Misuse);
}

/// Found with a session that was made in a body, and whose cookie nobody ever got.
#[tokio::test]
async fn a_verb_that_is_called_first_after_the_head_marks_nobody() {
    let engine = engine();
    let session = Visitor::new(&engine).begin();
    engine.finish(session.clone(), &mut HeaderMap::new()).await.unwrap();
    assert_eq!(session.update(|s| s.set("n", &1)).await.unwrap_err().kind(), ErrorKind::Misuse);
    let session = Visitor::new(&engine).begin();
    assert!(session.finish_now(&mut HeaderMap::new()));
    assert_eq!(session.start().await.unwrap_err().kind(), ErrorKind::Misuse);
    // Who has a cookie can go on.
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    assert!(session.finish_now(&mut HeaderMap::new()));
    session.update(|s| s.set("n", &9)).await.unwrap();
    assert_eq!(visitor.get("n").await, Some(9));
}

/// Found with nobody left to write it: such a guard handed its data back to a request that had already ended.
#[tokio::test]
async fn a_start_after_the_head_is_written_by_a_task() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    visitor.finish(session.clone()).await;
    let mut s = session.start().await.unwrap();
    s.set("n", &8).unwrap();
    drop(s);
    engine.shutdown().await;
    assert_eq!(visitor.get("n").await, Some(8));
}

#[tokio::test(start_paused = true)]
async fn a_verb_after_a_guard_that_outlived_the_head_does_not_wait_for_it() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let mut s = session.start().await.unwrap();
    visitor.finish(session.clone()).await;
    s.set("n", &8).unwrap();
    drop(s);
    session.update(|s| s.set("m", &1)).await.unwrap();
    assert_eq!((visitor.get("n").await, visitor.get("m").await), (Some(8), Some(1)));
}

#[tokio::test]
async fn a_start_that_a_task_waits_for_while_the_request_ends_is_written() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let held = visitor.begin().start().await.unwrap();
    let session = visitor.begin();
    let inner = session.clone();
    let task = tokio::spawn(async move {
        let mut s = inner.start().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        s.set("n", &8).unwrap();
    });
    tokio::task::yield_now().await;
    let mut ending = visitor.clone();
    let ending = tokio::spawn(async move { ending.finish(session).await });
    tokio::task::yield_now().await;
    held.write_close().await.unwrap();
    ending.await.unwrap();
    task.await.unwrap();
    engine.shutdown().await;
    assert_eq!(visitor.clone().get("n").await, Some(8));
}

#[tokio::test(start_paused = true)]
async fn waiting_has_a_limit() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let holder = visitor.begin();
    let held = holder.start().await.unwrap();
    let error = visitor.begin().start().await.unwrap_err();
    assert_eq!((error.kind(), error.waited()), (ErrorKind::Locked, Some(Duration::from_secs(30))));
    let error = visitor.begin().update(|s| s.set("n", &2)).await.unwrap_err();
    assert_eq!((error.kind(), error.waited()), (ErrorKind::Locked, Some(Duration::from_secs(5))));
    assert_eq!(visitor.begin().read().await.unwrap().get::<i64>("n").unwrap(), Some(1));
    drop(held);
}

/// `Duration::MAX` is how one says "no limit".
#[tokio::test]
async fn no_limit_is_a_limit_too() {
    let engine = engine_with(|s| {
        (s.start_wait, s.update_wait) = (Duration::MAX, Duration::MAX);
        (s.io_timeout, s.rotation_grace) = (Duration::MAX, Duration::MAX);
        s.gc_maxlifetime = i64::MAX;
    });
    let visitor = Visitor::with_session(&engine).await;
    drop(visitor.begin().start().await.unwrap());
    visitor.begin().rotate().await.unwrap();
    assert_eq!(visitor.begin().start().await.unwrap().get::<i64>("n").unwrap(), Some(1));
}

#[tokio::test]
async fn an_undecodable_session_is_set_aside() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let key = cloakroom_core::Key::from_id(&visitor.begin().id().await.unwrap());
    let deadline = cloakroom_core::Deadline::new(Duration::from_secs(1), Duration::from_secs(1));
    let put = |bytes: &'static [u8]| {
        let payload = cloakroom_core::store::Payload::new(bytes.into(), Duration::from_secs(100));
        cloakroom_core::store::Put::Payload(payload)
    };
    engine.store().commit(&key, cloakroom_core::store::Expect::Any, put(b"n|i:1"), &deadline).await.unwrap();
    for _ in 0..2 {
        let error = visitor.begin().read().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(!format!("{error:?}").contains(visitor.cookie.as_deref().unwrap()), "{error:?}");
        assert_eq!(visitor.begin().update(|s| s.set("n", &1)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
    let session = visitor.begin();
    assert_eq!(session.start().await.unwrap_err().kind(), ErrorKind::Corrupt);
    visitor.finish(session).await;
    assert_eq!(visitor.get("n").await, None);
}
