//! Servers that end and come back, and servers that hang.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome};
use cloakroom_core::{Error, ErrorKind};
use tokio::time::sleep;

use super::judge::{Case, Verdict, every_call, settle};
use super::tools::{assert_unavailable, in_time, outage, patient, ready, recovery, request, write};
use super::visitor::{Visitor, cookies, engine};
use super::{Networked, RECOVERY, Server};

fn server<N: Networked>(net: &N) -> &dyn Server {
    net.server().expect("a store with a server of its own")
}

/// All calls, made ready while the server works.
async fn cases<N: Networked>(net: &N) -> Vec<Case> {
    ready(net).await;
    let mut cases = Vec::new();
    for (number, call) in every_call().enumerate() {
        cases.push(Case::prepare(net, call, &format!("server-{number}")).await);
    }
    cases
}

/// All of them, while it does not.
async fn each_is_unavailable<N: Networked>(net: &N, what: &str, cases: Vec<Case>) -> Vec<(Case, Error)> {
    let mut ended = Vec::new();
    for mut case in cases {
        let what = format!("{:?} on a server that {what}", case.call);
        let answer = in_time(&what, case.carry_out(&net.store(), &request())).await;
        ended.push((case, outage(&what, answer)));
    }
    ended
}

/// Whatever was asked while it was away was not done, or may have been by what the call said.
pub async fn a_stopped_server_is_unavailable_and_never_absent<N: Networked>(net: N) {
    let cases = cases(&net).await;
    server(&net).stop();
    let ended = each_is_unavailable(&net, "was stopped", cases).await;
    server(&net).restart();
    ready(&net).await;
    let verdicts = verdicts(ended, server(&net).keeps_records()).await;
    settle(&net, verdicts).await;
}

/// What waited in its sockets is done when it goes on: it was announced, or is not done.
pub async fn a_paused_server_is_unavailable_and_what_it_does_later_was_announced<N: Networked>(net: N) {
    let cases = cases(&net).await;
    server(&net).pause();
    let ended = each_is_unavailable(&net, "hangs", cases).await;
    server(&net).resume();
    ready(&net).await;
    sleep(Duration::from_millis(300)).await;
    let verdicts = verdicts(ended, true).await;
    settle(&net, verdicts).await;
}

async fn verdicts(ended: Vec<(Case, Error)>, keeps: bool) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for (case, error) in ended {
        let verdict = case.judge(Err(error)).await;
        verdicts.push(if keeps { verdict } else { verdict.or_lost() });
    }
    verdicts
}

/// "Recovery within 1 s after the server is back", by itself.
pub async fn after_a_restart_the_store_works_within_a_second<N: Networked>(net: N) {
    let (key, mut best) = (net.key("restart"), Duration::MAX);
    for round in 0..3 {
        ready(&net).await;
        server(&net).stop();
        for _ in 0..2 {
            let answer = in_time("a stopped server", net.store().load(&key, &request())).await;
            assert_unavailable("a stopped server", answer);
        }
        server(&net).restart();
        best = best.min(recovery(&net.store(), &key).await);
        let written =
            net.store().commit(&net.key(&format!("new-{round}")), Expect::Absent, write("1"), &patient()).await;
        assert!(matches!(written, Ok(Outcome::Done(_))), "{written:?}");
    }
    assert!(best <= RECOVERY, "after a restart of the server the store took {best:?} to work again");
}

/// The same after it hung.
pub async fn after_a_pause_the_store_works_within_a_second<N: Networked>(net: N) {
    let (key, mut best) = (net.key("pause"), Duration::MAX);
    for _ in 0..3 {
        ready(&net).await;
        server(&net).pause();
        for _ in 0..2 {
            let answer = in_time("a server that hangs", net.store().load(&key, &request())).await;
            assert_unavailable("a server that hangs", answer);
        }
        server(&net).resume();
        best = best.min(recovery(&net.store(), &key).await);
    }
    assert!(best <= RECOVERY, "after its server hung the store took {best:?} to work again");
}

/// What a restart loses is absent, which is honest; what it keeps is whole. Nothing is empty.
pub async fn what_a_restart_lost_is_gone<N: Networked>(net: N) {
    ready(&net).await;
    let (store, keeps) = (net.store(), server(&net).keeps_records());
    let (seen, held) = (net.key("seen"), net.key("held"));
    for key in [&seen, &held] {
        let created = store.commit(key, Expect::Absent, write("1"), &patient()).await;
        assert!(matches!(created, Ok(Outcome::Done(_))), "{created:?}");
    }
    let version = store.load(&seen, &patient()).await.unwrap().unwrap().version;
    let lease = store.lock(&held, Claim::Existing, &patient()).await.unwrap().unwrap().lease;
    server(&net).stop();
    server(&net).restart();
    ready(&net).await;
    let found = store.load(&seen, &patient()).await.unwrap().map(|record| record.payload);
    assert_eq!(found.as_deref(), keeps.then_some(&b"1"[..]));
    let changed = store.commit(&seen, Expect::Is(&version), write("2"), &patient()).await;
    assert!(
        matches!(changed, Ok(Outcome::Done(_)) if keeps) || matches!(changed, Ok(Outcome::Gone) if !keeps),
        "{changed:?}"
    );
    let written = store.commit(&held, Expect::Held(lease), write("2"), &patient()).await;
    let now = net.trusted().load(&held, &patient()).await.unwrap().map(|record| record.payload);
    match &written {
        Ok(Outcome::Done(_)) => assert_eq!(now.as_deref(), keeps.then_some(&b"2"[..]), "{written:?}"),
        Ok(Outcome::Gone) | Err(_) => assert_eq!(now.as_deref(), keeps.then_some(&b"1"[..]), "{written:?}"),
        Ok(other) => panic!("{other:?}"),
    }
}

/// A request that has seen its session and finds it absent never gets another one by itself.
pub async fn a_session_that_a_restart_lost_is_gone_for_who_saw_it<N: Networked>(net: N) {
    ready(&net).await;
    let engine = engine(net.store());
    let mut visitor = Visitor::with_session(&engine).await;
    let (keeps, before) = (server(&net).keeps_records(), visitor.cookie.clone());
    let session = visitor.begin();
    assert_eq!(session.read().await.unwrap().get::<i64>("n").unwrap(), Some(1));
    server(&net).stop();
    server(&net).restart();
    ready(&net).await;
    let updated = session.update(|s| s.set("n", &2)).await;
    match &updated {
        Ok(()) => assert!(keeps, "a session was made from what an earlier read gave"),
        Err(error) => assert!(error.kind() == ErrorKind::Gone && !keeps, "{error:?}"),
    }
    let headers = visitor.finish(session).await.unwrap();
    assert!(cookies(&headers).is_empty(), "{headers:?}");
    assert_eq!(visitor.cookie, before);
    assert_eq!(visitor.get("n").await.unwrap(), keeps.then_some(2));
}
