//! `rotate`: a new id, and where the old one leads.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cloakroom_core::{Clock, Engine, ErrorKind, Settings, SystemRandom};

use crate::support::{Visitor, engine, lines, memory};

#[derive(Clone, Debug)]
struct SetClock(Arc<AtomicI64>);

impl Clock for SetClock {
    fn unix_time(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn the_old_id_leads_to_the_new_one_for_a_while() {
    let now = Arc::new(AtomicI64::new(1000));
    let clock = Arc::new(SetClock(Arc::clone(&now)));
    let engine = Engine::from_parts(Arc::new(memory()), Settings::php(), clock, Arc::new(SystemRandom)).unwrap();
    let mut visitor = Visitor::with_session(&engine).await;
    let mut late = visitor.clone();
    let session = visitor.begin();
    session.rotate().await.unwrap();
    visitor.finish(session).await;
    assert_ne!(visitor.cookie, late.cookie);
    let old = late.cookie.clone().unwrap();

    assert_eq!(late.get("n").await, Some(1));
    assert_eq!(late.cookie, visitor.cookie, "a late request learns the new id as well");
    let mut late = Visitor::with(&engine, &old);
    late.set("n", 2).await;
    assert_eq!(visitor.get("n").await, Some(2));
    let session = Visitor::with(&engine, &old).begin();
    let s = session.start().await.unwrap();
    assert_eq!(Some(s.id().expose_str()), visitor.cookie.as_deref());
    drop(s);
    engine.finish(session, &mut http::HeaderMap::new()).await.unwrap();

    now.store(1011, Ordering::Relaxed);
    assert_eq!(Visitor::with(&engine, &old).get("n").await, None);
}

#[tokio::test]
async fn many_rotations_at_once_make_one_new_id() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..50 {
        let mut visitor = visitor.clone();
        let session = visitor.begin();
        session.rotate().await.unwrap();
        assert_eq!(lines(&visitor.finish(session).await, "set-cookie").len(), 1);
        assert_eq!(visitor.get("n").await, Some(1));
        ids.insert(visitor.cookie);
    }
    assert_eq!(ids.len(), 1);
    // The old record, and the new one.
    assert_eq!(engine.store().as_list().unwrap().list(None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_logout_with_the_old_id_ends_the_session() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let mut rotated = visitor.clone();
    let session = rotated.begin();
    session.rotate().await.unwrap();
    rotated.finish(session).await;
    assert!(visitor.begin().destroy().await.unwrap());
    assert_eq!(rotated.get("n").await, None);
    assert!(engine.store().as_list().unwrap().list(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn destroying_a_pointer_to_nothing_destroys_nothing() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let mut rotated = visitor.clone();
    let session = rotated.begin();
    session.rotate().await.unwrap();
    rotated.finish(session).await;
    assert!(rotated.begin().destroy().await.unwrap());
    assert!(!visitor.begin().destroy().await.unwrap(), "only a pointer was there");
}

#[tokio::test]
async fn reading_behind_a_pointer_to_nothing_is_gone() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let mut rotated = visitor.clone();
    let session = rotated.begin();
    session.rotate().await.unwrap();
    rotated.finish(session).await;
    assert!(rotated.begin().destroy().await.unwrap());
    assert_eq!(visitor.begin().read().await.unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(visitor.begin().update(|s| s.set("n", &1)).await.unwrap_err().kind(), ErrorKind::Gone);
    assert_eq!(visitor.begin().start().await.unwrap_err().kind(), ErrorKind::Gone);
}

/// The visitor may have logged in anew meanwhile: a late response must not take that cookie away.
#[tokio::test]
async fn a_pointer_to_nothing_sends_no_cookie() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let mut rotated = visitor.clone();
    let session = rotated.begin();
    session.rotate().await.unwrap();
    rotated.finish(session).await;
    assert!(rotated.begin().destroy().await.unwrap());
    for verb in 0..4 {
        let late = visitor.begin();
        let result = match verb {
            0 => late.read().await.map(drop),
            1 => late.update(|s| s.set("n", &1)).await,
            2 => late.start().await.map(drop),
            _ => late.rotate().await.map(drop),
        };
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Gone);
        let headers = visitor.clone().finish(late).await;
        assert!(lines(&headers, "set-cookie").is_empty(), "{verb}: {headers:?}");
    }
}

#[tokio::test]
async fn a_request_under_way_goes_on_after_a_rotation() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let slow = visitor.begin();
    slow.read().await.unwrap();
    visitor.begin().rotate().await.unwrap();
    slow.update(|s| s.set("m", &5)).await.unwrap();
    let mut visitor = visitor;
    visitor.finish(slow).await;
    assert_eq!((visitor.get("n").await, visitor.get("m").await), (Some(1), Some(5)));
}

#[tokio::test]
async fn without_a_session_rotating_begins_one() {
    let engine = engine();
    let mut visitor = Visitor::with(&engine, "0123456789abcdef0123456789abcdef");
    let session = visitor.begin();
    session.rotate().await.unwrap();
    visitor.finish(session).await;
    assert_eq!(visitor.cookie.as_ref().map(String::len), Some(32));
    assert_ne!(visitor.cookie.as_deref(), Some("0123456789abcdef0123456789abcdef"));
}
