//! `read`, `update`, `destroy`: what they do to the store and to the browser.

use std::time::Duration;

use cloakroom_core::{Engine, ErrorKind, KeyRef, Settings};
use cloakroom_store_memory::{MemoryConfig, MemoryStore};

use crate::support::{Visitor, engine, engine_with, lines};

#[tokio::test]
async fn an_untouched_session_leaves_no_trace() {
    let visitor = Visitor::with(&engine(), "0123456789abcdef0123456789abcdef");
    let headers = visitor.clone().finish(visitor.begin()).await;
    assert!(headers.is_empty(), "{headers:?}");
}

#[tokio::test]
async fn reading_marks_nobody() {
    let engine = engine();
    for mut visitor in [Visitor::new(&engine), Visitor::with(&engine, "0123456789abcdef0123456789abcdef")] {
        let session = visitor.begin();
        let snapshot = session.read().await.unwrap();
        assert!(snapshot.is_empty() && !snapshot.exists());
        let headers = visitor.finish(session).await;
        assert_eq!(lines(&headers, "vary"), ["Cookie"]);
        assert_eq!(headers.len(), 1, "{headers:?}");
    }
}

#[tokio::test]
async fn the_first_change_marks_the_browser_once() {
    let engine = engine();
    let mut visitor = Visitor::new(&engine);
    let session = visitor.begin();
    session.update(|s| s.set("n", &1)).await.unwrap();
    session.update(|s| s.set("m", &2)).await.unwrap();
    let headers = visitor.finish(session).await;
    let cookies = lines(&headers, "set-cookie");
    assert_eq!(cookies.len(), 1);
    assert!(cookies[0].ends_with("; path=/; HttpOnly; SameSite=Lax"), "{cookies:?}");
    assert_eq!(lines(&headers, "cache-control"), ["no-store, no-cache, must-revalidate"]);
    assert_eq!(visitor.cookie.as_ref().unwrap().len(), 32);
    assert_eq!((visitor.get("n").await, visitor.get("m").await), (Some(1), Some(2)));
    let session = visitor.begin();
    session.update(|s| s.set("n", &3)).await.unwrap();
    assert!(lines(&visitor.finish(session).await, "set-cookie").is_empty());
}

#[tokio::test]
async fn a_foreign_id_is_never_taken_over() {
    let engine = engine();
    let foreign = "0123456789abcdef0123456789abcdef";
    let mut visitor = Visitor::with(&engine, foreign);
    visitor.set("n", 1).await;
    assert_ne!(visitor.cookie.as_deref(), Some(foreign));
    assert_eq!(Visitor::with(&engine, foreign).get("n").await, None);

    // Also without strict mode: only `start` adopts ids, as PHP does.
    let engine = engine_with(|s| s.use_strict_mode = false);
    let mut visitor = Visitor::with(&engine, foreign);
    visitor.set("n", 1).await;
    assert_ne!(visitor.cookie.as_deref(), Some(foreign));
}

#[tokio::test]
async fn hostile_cookies_are_no_sessions() {
    let engine = engine();
    for cookie in ["", "../../etc/passwd", "a b", "%00", &"a".repeat(5000), "..", "a/b", "<script>", "CON.", "é"] {
        let mut visitor = Visitor::with(&engine, cookie);
        assert_eq!(visitor.get("n").await, None);
        visitor.set("n", 1).await;
        assert_eq!(visitor.cookie.as_ref().unwrap().len(), 32, "{cookie}");
    }
}

#[tokio::test]
async fn a_change_that_changes_nothing_writes_nothing() {
    let engine = engine();
    let mut visitor = Visitor::new(&engine);
    let session = visitor.begin();
    assert!(!session.update(|s| s.remove("n")).await.unwrap());
    session
        .update(|s| {
            s.clear();
            Ok(())
        })
        .await
        .unwrap();
    assert!(lines(&visitor.finish(session).await, "set-cookie").is_empty());
    assert_eq!(engine.store().as_list().unwrap().list(None, 10).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_closure_that_fails_commits_nothing() {
    #[derive(Debug, PartialEq)]
    struct SoldOut;
    impl From<cloakroom_core::Error> for SoldOut {
        fn from(error: cloakroom_core::Error) -> SoldOut {
            panic!("{error:?}")
        }
    }
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let result = session.try_update(|s| s.set("n", &9).map_err(SoldOut::from).and(Err::<(), _>(SoldOut))).await;
    assert_eq!(result, Err(SoldOut));
    visitor.finish(session).await;
    assert_eq!(visitor.get("n").await, Some(1));
}

#[tokio::test]
async fn old_snapshots_stay_as_they_were() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let before = session.read().await.unwrap();
    session.update(|s| s.set("n", &2)).await.unwrap();
    assert_eq!(before.get::<i64>("n").unwrap(), Some(1));
    assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(2));
}

#[tokio::test]
async fn reading_twice_gives_the_same_and_refreshing_asks_again() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    visitor.set("n", 5).await;
    assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(1));
    assert_eq!(session.refresh().await.unwrap().get::<i64>("n").unwrap(), Some(5));
}

#[tokio::test]
async fn destroying_removes_the_cookie_and_begins_anew() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let old = visitor.cookie.clone().unwrap();
    let session = visitor.begin();
    assert!(session.destroy().await.unwrap());
    assert!(!session.destroy().await.unwrap());
    assert!(session.read().await.unwrap().is_empty());
    let headers = visitor.finish(session).await;
    assert_eq!(
        lines(&headers, "set-cookie"),
        ["PHPSESSID=deleted; expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0; path=/; HttpOnly; SameSite=Lax"]
    );
    assert_eq!(Visitor::with(&engine, &old).get("n").await, None);

    let mut visitor = Visitor::with_session(&engine).await;
    let old = visitor.cookie.clone();
    let session = visitor.begin();
    session.destroy().await.unwrap();
    session.update(|s| s.set("n", &7)).await.unwrap();
    visitor.finish(session).await;
    assert!(visitor.cookie.is_some() && visitor.cookie != old);
    assert_eq!(visitor.get("n").await, Some(7));
}

#[tokio::test]
async fn destroying_what_was_never_sent_sends_nothing() {
    let engine = engine();
    let mut visitor = Visitor::new(&engine);
    let session = visitor.begin();
    session.update(|s| s.set("n", &1)).await.unwrap();
    assert!(session.destroy().await.unwrap());
    assert!(lines(&visitor.finish(session).await, "set-cookie").is_empty());
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_that_names_the_key() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let snapshot = session.read().await.unwrap();
    let error = snapshot.get::<String>("n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error:?}");
    assert!(error.to_string().contains('n'));
    assert_eq!(snapshot.get::<i64>("n").unwrap(), Some(1));
}

#[tokio::test]
async fn what_php_would_lose_is_refused() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    for key in ["a|b", "5"] {
        let error = session.update(|s| s.set(key, &1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{key}: {error:?}");
    }
    assert_eq!(session.update(|s| s.set("_cloakroom", &1)).await.unwrap_err().kind(), ErrorKind::Misuse);
    assert_eq!(session.read().await.unwrap().keys().collect::<Vec<_>>(), [KeyRef::Str(b"n")]);
}

#[tokio::test]
async fn clearing_leaves_what_cloakroom_remembers() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.update(|s| Ok(s.bag_mut().set("_cloakroom", &7)?)).await.unwrap();
    session
        .update(|s| {
            s.clear();
            Ok(())
        })
        .await
        .unwrap();
    let snapshot = session.read().await.unwrap();
    assert!(snapshot.is_empty());
    assert_eq!(snapshot.bag().get::<i64>("_cloakroom").unwrap(), Some(7));
}

#[tokio::test]
async fn a_session_has_a_largest_size() {
    let engine = engine_with(|s| s.max_size = 1000);
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    let error = session.update(|s| s.set("big", "x".repeat(1000).as_str())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    visitor.finish(session).await;
    assert_eq!(visitor.get("n").await, Some(1));
}

#[tokio::test]
async fn clones_share_one_state() {
    let engine = engine();
    let mut visitor = Visitor::new(&engine);
    let a = visitor.begin();
    let b = a.clone();
    let (first, second) = tokio::join!(a.update(|s| s.set("a", &1)), b.update(|s| s.set("b", &2)));
    first.and(second).unwrap();
    visitor.finish(a).await;
    assert_eq!((visitor.get("a").await, visitor.get("b").await), (Some(1), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_session_lives_as_long_as_it_is_read() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert_eq!(visitor.get("n").await, Some(1));
    }
    tokio::time::advance(Duration::from_secs(1000)).await;
    let session = visitor.begin();
    session.peek().await.unwrap();
    visitor.finish(session).await;
    tokio::time::advance(Duration::from_secs(1000)).await;
    assert_eq!(visitor.get("n").await, None);
}

/// The short way out of a request must not forget what the long way does.
#[tokio::test(start_paused = true)]
async fn a_request_that_owes_the_store_something_does_not_end_at_once() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let mut headers = http::HeaderMap::new();
    let session = visitor.begin();
    session.read().await.unwrap();
    assert!(session.finish_now(&mut headers), "nothing is due yet");
    assert_eq!(lines(&headers, "vary"), ["Cookie"]);

    tokio::time::advance(Duration::from_secs(1000)).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    assert!(!session.finish_now(&mut headers), "the session has to be kept alive");

    let session = visitor.begin();
    drop(session.start().await.unwrap());
    assert!(!session.finish_now(&mut headers), "the session has to be written");
}

/// A connection that lives for hours is somebody who is there.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_read_after_the_head_lives_on() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    visitor.finish(session.clone()).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        assert_eq!(session.refresh().await.unwrap().get::<i64>("n").unwrap(), Some(1));
    }
}

/// Sweeping by PHP's draw is a task, and tasks end with their runtime.
#[test]
fn sweeping_goes_on_after_its_runtime_has_gone() {
    let engine = engine_with(|settings| {
        (settings.gc_probability, settings.gc_divisor, settings.gc_maxlifetime) = (1, 1, 1);
    });
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime().block_on(async { drop(Visitor::with_session(&engine).await) });
    runtime().block_on(async {
        for _ in 0..5 {
            drop(Visitor::with_session(&engine).await);
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        assert!(engine.sweep().await.unwrap() <= 1, "nothing had been swept");
    });
}

/// For the settings, or for the store.
#[tokio::test]
async fn a_new_id_for_a_session_that_is_too_large_leaves_it_open() {
    let small = MemoryStore::new(MemoryConfig::default().max_payload(1000));
    for engine in [engine_with(|settings| settings.max_size = 1000), Engine::new(small, Settings::php()).unwrap()] {
        let mut visitor = Visitor::with_session(&engine).await;
        let session = visitor.begin();
        let mut s = session.start().await.unwrap();
        s.set("big", &"x".repeat(2000)).unwrap();
        for delete_old in [true, false] {
            assert_eq!(s.regenerate_id(delete_old).await.unwrap_err().kind(), ErrorKind::TooLarge);
        }
        s.remove("big").unwrap();
        s.set("n", &2).unwrap();
        drop(s);
        visitor.finish(session).await;
        assert_eq!(visitor.get("n").await, Some(2));
    }
}
