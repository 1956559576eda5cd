//! A store that fails: nothing is emptied, nobody is logged out, nothing is done twice.

use std::time::Duration;

use cloakroom_core::{Engine, ErrorKind, Session, Settings};
use cloakroom_store_memory::MemoryStore;
use cloakroom_testkit::faulty::{Calls, Fault, Faulty, Op};
use http::HeaderMap;
use tokio::time::Instant;

use crate::support::{Visitor, lines, memory};

fn faulty() -> (Faulty<MemoryStore>, Engine) {
    let store = Faulty::new(memory());
    let engine = Engine::new(store.clone(), Settings::php()).unwrap();
    (store, engine)
}

async fn records(engine: &Engine) -> usize {
    engine.store().as_list().unwrap().list(None, 100).await.unwrap().len()
}

fn calls(change: impl FnOnce(&mut Calls)) -> Calls {
    let mut calls = Calls::default();
    change(&mut calls);
    calls
}

/// Ends a request that failed, as an adapter does; the headers that the browser gets.
async fn end(engine: &Engine, session: Session) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if engine.finish(session.clone(), &mut headers).await.is_err() {
        headers.clear();
        engine.finish(session, &mut headers).await.unwrap();
    }
    headers
}

#[tokio::test]
async fn a_store_that_is_down_empties_nothing_and_logs_nobody_out() {
    let (store, engine) = faulty();
    let visitor = Visitor::with_session(&engine).await;
    store.fail_always(Op::Any, Fault::Unavailable);
    for verb in 0..6 {
        let session = visitor.begin();
        let result = match verb {
            0 => session.read().await.map(drop),
            1 => session.peek().await.map(drop),
            2 => session.update(|s| s.set("n", &2)).await,
            3 => session.start().await.map(drop),
            4 => session.rotate().await.map(drop),
            _ => session.destroy().await.map(drop),
        };
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, false), "{verb}");
        assert_eq!(error.status(), 503);
        let headers = end(&engine, session).await;
        assert!(lines(&headers, "set-cookie").is_empty(), "{verb}: {headers:?}");
    }
    store.heal();
    assert_eq!((visitor.clone().get("n").await, records(&engine).await), (Some(1), 1));
}

/// What failed is asked again: an error is never remembered as an absence.
#[tokio::test]
async fn the_same_request_may_try_again() {
    let (store, engine) = faulty();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    store.fail_at(Op::Load, 1, Fault::Unavailable);
    store.fail_at(Op::Write, 1, Fault::Unavailable);
    let _ = session.read().await.unwrap_err();
    assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(1));
    let _ = session.update(|s| s.set("n", &2)).await.unwrap_err();
    assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(1));
    session.update(|s| s.set("n", &3)).await.unwrap();
    store.fail_at(Op::Load, 1, Fault::Unavailable);
    let _ = session.refresh().await.unwrap_err();
    assert_eq!(session.refresh().await.unwrap().get::<i64>("n").unwrap(), Some(3));
}

#[tokio::test]
async fn what_could_not_be_created_is_not_sent() {
    let (store, engine) = faulty();
    for (verb, op) in [(0, Op::Write), (1, Op::Lock), (2, Op::Write)] {
        let mut visitor = Visitor::new(&engine);
        let session = visitor.begin();
        store.fail_at(op, 1, Fault::Unavailable);
        let result = match verb {
            0 => session.update(|s| s.set("n", &2)).await,
            1 => session.start().await.map(drop),
            _ => session.rotate().await.map(drop),
        };
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
        let headers = visitor.finish(session).await;
        assert!(lines(&headers, "set-cookie").is_empty(), "{verb}: {headers:?}");
    }
    assert_eq!(records(&engine).await, 0);
}

#[tokio::test]
async fn after_a_lost_reply_nothing_is_done_twice() {
    for existing in [true, false] {
        let (store, engine) = faulty();
        let mut visitor = if existing { Visitor::with_session(&engine).await } else { Visitor::new(&engine) };
        let session = visitor.begin();
        store.fail_at(Op::Write, 1, Fault::LostReply);
        store.reset();
        let mut runs = 0;
        let error = session
            .update(|s| {
                runs += 1;
                let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
                s.set("n", &n)
            })
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.may_have_been_applied()), (ErrorKind::Unavailable, true));
        assert!(!error.is_retryable());
        assert_eq!((runs, store.calls().writes), (1, 1));
        let headers = visitor.finish(session).await;
        assert!(lines(&headers, "set-cookie").is_empty(), "{headers:?}");
        assert_eq!(visitor.get("n").await, existing.then_some(2), "it was applied");
    }
}

/// The change may be in the store: what this request read before is no longer good enough.
#[tokio::test]
async fn after_a_lost_reply_reading_asks_the_store() {
    let (store, engine) = faulty();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    store.fail_at(Op::Write, 1, Fault::LostReply);
    let _ = session.update(|s| s.set("n", &2)).await.unwrap_err();
    assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stalls_is_unavailable_within_the_limit() {
    for op in [Op::Load, Op::Lock, Op::Write, Op::Remove] {
        let (store, engine) = faulty();
        let visitor = Visitor::with_session(&engine).await;
        let session = visitor.begin();
        store.fail_at(op, 1, Fault::Stall(Duration::from_secs(60)));
        let begun = Instant::now();
        let result = match op {
            Op::Load => session.read().await.map(drop),
            Op::Lock => session.start().await.map(drop),
            Op::Write => session.update(|s| s.set("n", &2)).await,
            _ => session.destroy().await.map(drop),
        };
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable, "{op:?}");
        let limit = engine.settings().io_timeout;
        let took = begun.elapsed();
        assert!(took >= limit && took <= limit + Duration::from_millis(5), "{op:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_for_talking_is_one_budget_and_waiting_is_not_in_it() {
    let (store, engine) = faulty();
    let mut visitor = Visitor::with_session(&engine).await;
    let held = visitor.begin().start().await.unwrap();
    let session = visitor.begin();
    let waiting = session.clone();
    let waiting = tokio::spawn(async move { waiting.start().await?.write_close().await });
    tokio::time::sleep(Duration::from_secs(20)).await;
    held.write_close().await.unwrap();
    waiting.await.unwrap().unwrap();

    store.fail_at(Op::Load, 1, Fault::Late(Duration::from_millis(200)));
    store.fail_at(Op::Load, 2, Fault::Late(Duration::from_millis(200)));
    session.refresh().await.unwrap();
    assert_eq!(session.refresh().await.unwrap_err().kind(), ErrorKind::Unavailable);
    visitor.finish(session).await;
}

#[tokio::test]
async fn each_verb_has_its_number_of_round_trips() {
    let (store, engine) = faulty();
    let mut visitor = Visitor::with_session(&engine).await;
    for verb in 0..6 {
        store.reset();
        let session = visitor.begin();
        let expect = match verb {
            0 => Calls::default(),
            1 => {
                session.read().await.unwrap();
                session.read().await.unwrap();
                calls(|c| c.loads = 1)
            }
            2 => {
                session.update(|s| s.set("n", &5)).await.unwrap();
                calls(|c| (c.loads, c.writes) = (1, 1))
            }
            3 => {
                // A read before it serves its first attempt.
                session.read().await.unwrap();
                session.update(|s| s.set("n", &6)).await.unwrap();
                calls(|c| (c.loads, c.writes) = (1, 1))
            }
            4 => {
                session.start().await.unwrap().set("n", &7).unwrap();
                calls(|c| c.locks = 1)
            }
            _ => {
                session.update(|s| s.set("n", &7)).await.unwrap();
                calls(|c| c.loads = 1)
            }
        };
        assert_eq!(store.calls(), expect, "{verb}");
        visitor.finish(session).await;
        let written = usize::from(verb == 4);
        assert_eq!(store.calls(), Calls { writes: expect.writes + written, ..expect }, "{verb}");
    }
    // No cookie: no store.
    let mut stranger = Visitor::new(&engine);
    store.reset();
    assert_eq!(stranger.get("n").await, None);
    assert_eq!(store.calls().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn reading_touches_at_most_once_in_a_minute_or_a_tenth_of_the_lifetime() {
    for (lifetime, due) in [(1440, 60), (86_400, 60), (100, 10)] {
        let store = Faulty::new(memory());
        let mut settings = Settings::php();
        settings.gc_maxlifetime = lifetime;
        let engine = Engine::new(store.clone(), settings).unwrap();
        let mut visitor = Visitor::with_session(&engine).await;
        store.reset();
        for (wait, touches) in [(due, 0), (1, 1), (due, 1), (1, 2)] {
            tokio::time::advance(Duration::from_secs(wait)).await;
            let session = visitor.begin();
            session.read().await.unwrap();
            session.read().await.unwrap();
            assert_eq!(store.calls().touches, touches - usize::from(wait == 1), "before the end of the request");
            visitor.finish(session.clone()).await;
            visitor.finish(session).await;
            assert_eq!(store.calls().touches, touches, "{lifetime}: {wait}");
        }
        // Neither looking nor writing touches.
        tokio::time::advance(Duration::from_secs(due + 1)).await;
        let session = visitor.begin();
        session.peek().await.unwrap();
        visitor.finish(session).await;
        visitor.set("n", 2).await;
        assert_eq!(store.calls().touches, 2);
    }
}

/// The response has its data: that the session could not be kept alive does not fail it.
#[tokio::test(start_paused = true)]
async fn a_touch_that_fails_or_has_no_time_left_fails_no_request() {
    let (store, engine) = faulty();
    let mut visitor = Visitor::with_session(&engine).await;
    tokio::time::advance(Duration::from_secs(100)).await;
    store.fail_at(Op::Touch, 1, Fault::Unavailable);
    assert_eq!(visitor.get("n").await, Some(1));
    store.fail_at(Op::Load, 1, Fault::Late(Duration::from_millis(249)));
    store.fail_at(Op::Touch, 1, Fault::Stall(Duration::from_secs(60)));
    let begun = Instant::now();
    assert_eq!(visitor.get("n").await, Some(1));
    assert!(begun.elapsed() < Duration::from_millis(260), "{:?}", begun.elapsed());
}

/// Found with a handle that showed what had been there before it was dropped.
#[tokio::test(start_paused = true)]
async fn an_update_that_is_dropped_leaves_no_stale_handle() {
    let (store, engine) = faulty();
    let visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    store.fail_at(Op::Write, 1, Fault::Late(Duration::from_millis(100)));
    let update = session.update(|s| s.set("n", &2));
    assert!(tokio::time::timeout(Duration::from_millis(20), update).await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let there = visitor.begin().read().await.unwrap().get::<i64>("n").unwrap();
    assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), there);
}

/// A handle in a WebSocket lives for hours.
#[tokio::test(start_paused = true)]
async fn after_the_head_each_verb_has_a_budget_of_its_own() {
    let (store, engine) = faulty();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    visitor.finish(session.clone()).await;
    for n in 0..10 {
        store.fail_at(Op::Write, 1, Fault::Late(Duration::from_millis(200)));
        session.update(|s| s.set("n", &n)).await.unwrap();
    }
    assert_eq!(visitor.get("n").await, Some(9));
}

#[tokio::test]
async fn after_four_conflicts_the_lock_is_taken() {
    let (store, engine) = faulty();
    let visitor = Visitor::with_session(&engine).await;
    let mut runs = 0;
    let seen = store.clone();
    store.reset();
    let session = visitor.begin();
    let others = visitor.clone();
    let update = session.update(|s| {
        runs += 1;
        let n = s.get::<i64>("n")?.unwrap_or(0);
        s.set("sum", &(n + 1))
    });
    let gate = store.stop_at(Op::Write, 1);
    let interfere = async move {
        // The last gate is opened by being dropped.
        let mut gate = gate;
        for n in 10..14 {
            gate.arrived().await;
            others.clone().set("n", n).await;
            let next = store.stop_at(Op::Write, 1);
            std::mem::replace(&mut gate, next).open();
        }
    };
    let (updated, ()) = tokio::join!(update, interfere);
    updated.unwrap();
    // Four attempts that met a neighbour; the fifth has the lock.
    assert_eq!((runs, seen.calls().locks), (5, 1));
    assert_eq!(visitor.clone().get("sum").await, Some(14));
}

#[tokio::test]
async fn a_rotation_that_fails_leaves_a_usable_session_at_each_step() {
    for (op, nth, fault, moved) in [
        (Op::Lock, 1, Fault::Unavailable, false),
        (Op::Lock, 1, Fault::LostReply, false),
        (Op::Write, 1, Fault::Unavailable, false),
        (Op::Write, 1, Fault::LostReply, false),
        (Op::Write, 2, Fault::Unavailable, false),
        (Op::Write, 2, Fault::LostReply, true),
    ] {
        let (store, engine) = faulty();
        let mut visitor = Visitor::with_session(&engine).await;
        let before = visitor.cookie.clone();
        let session = visitor.begin();
        store.fail_at(op, nth, fault);
        assert_eq!(session.rotate().await.is_ok(), moved, "{op:?} {nth} {fault:?}");
        assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(1));
        visitor.finish(session).await;
        assert_eq!(visitor.cookie != before, moved, "{op:?} {nth} {fault:?}");
        // Not only readable, but free.
        let mut s = visitor.begin().start().await.unwrap();
        s.set("n", &2).unwrap();
        s.write_close().await.unwrap();
        assert_eq!(visitor.get("n").await, Some(2));
    }
}

#[tokio::test]
async fn a_new_id_at_login_that_fails_says_so() {
    for (op, fault) in
        [(Op::Lock, Fault::Unavailable), (Op::Remove, Fault::Unavailable), (Op::Remove, Fault::LostReply)]
    {
        let (store, engine) = faulty();
        let mut visitor = Visitor::with_session(&engine).await;
        let session = visitor.begin();
        let mut s = session.start().await.unwrap();
        s.set("n", &2).unwrap();
        store.fail_at(op, 1, fault);
        assert_eq!(s.regenerate_id(true).await.unwrap_err().kind(), ErrorKind::Unavailable);
        drop(s);
        let finished = engine.finish(session.clone(), &mut HeaderMap::new()).await;
        // Before the old session was let go it is open as before; behind that nothing is pretended.
        assert_eq!(finished.is_ok(), op == Op::Lock, "{op:?} {fault:?}");
        let headers = visitor.finish(session).await;
        assert!(lines(&headers, "set-cookie").is_empty(), "{headers:?}");
        let expect = match (op, fault) {
            (Op::Lock, _) => Some(2),
            (_, Fault::LostReply) => None,
            _ => Some(1),
        };
        assert_eq!(visitor.get("n").await, expect, "{op:?} {fault:?}");
        assert_eq!(records(&engine).await, usize::from(expect.is_some()), "{op:?} {fault:?}");
    }
}

#[tokio::test]
async fn a_failed_end_says_so_and_a_second_one_sends_what_took_effect() {
    let (store, engine) = faulty();
    let mut visitor = Visitor::new(&engine);
    let session = visitor.begin();
    session.update(|s| s.set("n", &1)).await.unwrap();
    let mut s = session.start().await.unwrap();
    s.set("n", &2).unwrap();
    drop(s);
    store.fail_at(Op::Write, 1, Fault::Unavailable);
    let error = engine.finish(session.clone(), &mut HeaderMap::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let headers = visitor.finish(session).await;
    assert_eq!(lines(&headers, "set-cookie").len(), 1);
    assert_eq!(visitor.get("n").await, Some(1));
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
