//! What two requests do to each other.

use cloakroom_core::ErrorKind;

use crate::support::{Visitor, engine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_lost() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let visitor = visitor.clone();
            tokio::spawn(async move {
                for turn in 0..100 {
                    let session = visitor.begin();
                    if (task + turn) % 4 == 0 {
                        let mut s = session.start().await.unwrap();
                        let n = s.get::<i64>("n").unwrap().unwrap_or(0);
                        tokio::task::yield_now().await;
                        s.set("n", &(n + 1)).unwrap();
                    } else {
                        session.read().await.unwrap();
                        tokio::task::yield_now().await;
                        session
                            .update(|s| {
                                let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
                                s.set("n", &n)
                            })
                            .await
                            .unwrap();
                    }
                    visitor.clone().finish(session).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(visitor.clone().get("n").await, Some(801));
}

#[tokio::test]
async fn a_decision_not_to_change_is_checked_too() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    visitor.set("n", 2).await;
    let mut seen = Vec::new();
    session
        .update(|s| {
            let n = s.get::<i64>("n")?.unwrap_or(0);
            seen.push(n);
            if n == 2 { s.set("late", &1) } else { Ok(()) }
        })
        .await
        .unwrap();
    assert_eq!(seen, [1, 2]);
    assert_eq!(visitor.get("late").await, Some(1));
}

#[tokio::test]
async fn an_update_runs_again_on_fresh_data() {
    let engine = engine();
    let mut visitor = Visitor::with_session(&engine).await;
    let session = visitor.begin();
    session.read().await.unwrap();
    visitor.set("n", 10).await;
    let n = session
        .update(|s| {
            let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
            s.set("n", &n)?;
            Ok(n)
        })
        .await
        .unwrap();
    assert_eq!(n, 11);
}

#[tokio::test]
async fn logout_always_wins() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let slow = visitor.begin();
    slow.read().await.unwrap();
    assert!(visitor.begin().destroy().await.unwrap());
    for _ in 0..2 {
        assert_eq!(slow.update(|s| s.set("n", &2)).await.unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(slow.read().await.unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(slow.start().await.unwrap_err().kind(), ErrorKind::Gone);
    }
    let headers = visitor.clone().finish(slow).await;
    assert!(headers.get("set-cookie").is_none());
    assert_eq!(visitor.clone().get("n").await, None);
    assert!(engine.store().as_list().unwrap().list(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn logout_wins_over_a_start_that_waits() {
    let engine = engine();
    let visitor = Visitor::with_session(&engine).await;
    let holder = visitor.begin();
    let held = holder.start().await.unwrap();
    let waiting = visitor.begin();
    waiting.peek().await.unwrap();
    let waiter = tokio::spawn(async move { waiting.start().await.map(drop) });
    tokio::task::yield_now().await;
    held.destroy().await.unwrap();
    assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Gone);
}

#[tokio::test]
async fn first_requests_in_parallel_do_not_mix() {
    let engine = engine();
    let mut visitors: Vec<_> = (0..20).map(|_| Visitor::new(&engine)).collect();
    for (n, visitor) in (0..).zip(&mut visitors) {
        visitor.set("n", n).await;
    }
    for (n, visitor) in (0..).zip(&mut visitors) {
        assert_eq!(visitor.get("n").await, Some(n));
    }
}
