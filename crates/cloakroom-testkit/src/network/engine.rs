//! Whole requests while the network breaks: what the browser gets, and what becomes of the session.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::{Engine, Error, ErrorKind, Result, Session};
use tokio::time::{Instant, sleep};

use super::outages::Outage;
use super::tools::{PATIENCE, in_time, knob, ready, within};
use super::visitor::{Visitor, cookies, engine, engine_with};
use super::{IO, Networked, RECOVERY, SLACK};
use crate::proxy::{End, Way};

/// How many bytes of each way of a request are tried, if it has more.
fn points() -> usize {
    knob("CLOAKROOM_CUTS", 10)
}

/// A request has several calls within one budget; some of them are made beside it.
async fn request_in_time<T>(what: &str, request: impl Future<Output = T>) -> T {
    within(what, IO * 3 + SLACK, request).await
}

/// An engine through the proxy, one past it.
struct Both {
    through: Engine,
    trusted: Engine,
}

impl Both {
    fn of<N: Networked>(net: &N) -> Both {
        let patient = |settings: &mut cloakroom_core::Settings| settings.io_timeout = Duration::from_secs(20);
        Both { through: engine(net.store()), trusted: engine_with(net.trusted(), patient) }
    }

    /// A visitor with a session in which `n` is 1, made past the proxy; he comes through it.
    async fn visitor(&self) -> Visitor {
        Visitor::with_session(&self.trusted).await.by(&self.through)
    }

    /// What `key` is in truth, for who has this cookie.
    async fn truth(&self, visitor: &Visitor, key: &str) -> Option<i64> {
        visitor.by(&self.trusted).get(key).await.unwrap()
    }
}

fn assert_outage(what: &str, error: &Error) {
    assert_eq!((error.kind(), error.status().as_u16()), (ErrorKind::Unavailable, 503), "{what}: {error:?}");
}

const VERBS: [&str; 6] = ["read", "peek", "update", "start", "rotate", "destroy"];

async fn call(verb: &str, session: &Session) -> Result<()> {
    match verb {
        "read" => session.read().await.map(drop),
        "peek" => session.peek().await.map(drop),
        "update" => session.update(|s| s.set("n", &2)).await,
        "start" => session.start().await.map(drop),
        "rotate" => session.rotate().await.map(drop),
        _ => session.destroy().await.map(drop),
    }
}

/// "A store that is down never empties a session, never clears a cookie, never makes a new one."
pub async fn an_outage_empties_nothing_and_logs_nobody_out<N: Networked>(net: N) {
    let both = Both::of(&net);
    for outage in [Outage::Refuse, Outage::Hole, Outage::HalfOpen] {
        for verb in VERBS {
            // What is done and not heard of is another case.
            if outage == Outage::HalfOpen && matches!(verb, "update" | "destroy") {
                continue;
            }
            let what = format!("{verb}, {outage:?}");
            ready(&net).await;
            let mut visitor = both.visitor().await;
            let before = visitor.cookie.clone();
            let session = visitor.begin();
            outage.begin(net.proxy());
            let error = request_in_time(&what, call(verb, &session)).await.unwrap_err();
            assert_outage(&what, &error);
            let (headers, _) = request_in_time(&what, visitor.end(session)).await;
            assert!(cookies(&headers).is_empty(), "{what}: {headers:?}");
            net.proxy().heal();
            assert_eq!((&visitor.cookie, both.truth(&visitor, "n").await), (&before, Some(1)), "{what}");
        }
    }
}

/// Nothing is promised to a browser that is not stored.
pub async fn who_is_new_gets_no_cookie_in_an_outage<N: Networked>(net: N) {
    let both = Both::of(&net);
    for outage in [Outage::Refuse, Outage::Hole, Outage::HalfOpen] {
        for verb in ["update", "start", "rotate"] {
            let what = format!("{verb}, {outage:?}");
            ready(&net).await;
            let mut visitor = Visitor::new(&both.through);
            let session = visitor.begin();
            outage.begin(net.proxy());
            let error = request_in_time(&what, call(verb, &session)).await.unwrap_err();
            assert_outage(&what, &error);
            let (headers, _) = request_in_time(&what, visitor.end(session)).await;
            assert!(cookies(&headers).is_empty(), "{what}: {headers:?}");
            net.proxy().heal();
        }
    }
}

/// "Requests that do not touch their session unharmed."
pub async fn who_does_not_touch_the_session_does_not_feel_an_outage<N: Networked>(net: N) {
    let both = Both::of(&net);
    for outage in [Outage::Refuse, Outage::Hole, Outage::HalfOpen, Outage::Stall] {
        ready(&net).await;
        let visitor = both.visitor().await;
        outage.begin(net.proxy());
        let begun = Instant::now();
        for _ in 0..100 {
            let mut visitor = visitor.clone();
            let session = visitor.begin();
            let headers = in_time("an untouched session", visitor.finish(session)).await.unwrap();
            assert!(headers.is_empty(), "{headers:?}");
        }
        assert!(begun.elapsed() < SLACK, "a hundred requests that ask for nothing took {:?}", begun.elapsed());
        net.proxy().heal();
    }
}

/// "A closure is never run again after that", and the count is what the answers say.
pub async fn an_update_that_is_cut_anywhere_runs_once_and_is_told_truly<N: Networked>(net: N) {
    let both = Both::of(&net);
    let work = async |session: &Session| {
        let mut runs = 0;
        let updated = session
            .update(|s| {
                runs += 1;
                let n = s.get::<i64>("n")?.unwrap_or(0) + 1;
                s.set("n", &n)
            })
            .await;
        assert!(runs <= 1, "the closure ran {runs} times, and nobody else was there");
        updated
    };
    cut_everywhere(&net, &both, work, async |what: &str, visitor: &Visitor, answer: Answer| {
        assert!(answer.cookies.is_empty(), "{what}: {:?}", answer.cookies);
        let n = both.truth(visitor, "n").await;
        match answer.error {
            None => assert_eq!(n, Some(2), "{what}: it was acknowledged"),
            Some(error) if error.may_have_been_applied() => assert!(matches!(n, Some(1 | 2)), "{what}: {n:?}"),
            Some(error) => assert_eq!(n, Some(1), "{what}: {error:?}"),
        }
    })
    .await;
}

/// "If that write fails, the response is replaced by the error."
pub async fn a_start_that_is_cut_anywhere_is_written_or_an_error<N: Networked>(net: N) {
    let both = Both::of(&net);
    let work = async |session: &Session| {
        let mut s = session.start().await?;
        assert_eq!(s.get::<i64>("n")?, Some(1), "a session that is there was begun anew");
        // Dropped, it is written when the request ends.
        s.set("n", &2)
    };
    cut_everywhere(&net, &both, work, async |what: &str, visitor: &Visitor, answer: Answer| {
        assert!(answer.cookies.is_empty(), "{what}: {:?}", answer.cookies);
        let n = both.truth(visitor, "n").await;
        match answer.error {
            None => assert_eq!(n, Some(2), "{what}: the response has left"),
            Some(error) if error.may_have_been_applied() => assert!(matches!(n, Some(1 | 2)), "{what}: {n:?}"),
            Some(error) => assert_eq!(n, Some(1), "{what}: {error:?}"),
        }
    })
    .await;
}

/// A logout is acknowledged when it has happened, and the cookie goes only then.
pub async fn a_logout_that_is_cut_anywhere_is_told_truly<N: Networked>(net: N) {
    let both = Both::of(&net);
    let work = async |session: &Session| {
        let existed = session.destroy().await?;
        assert!(existed, "a session that was there was not found");
        Ok(())
    };
    cut_everywhere(&net, &both, work, async |what: &str, visitor: &Visitor, answer: Answer| {
        let Some(error) = answer.error else {
            assert_eq!((answer.cookies.len(), &visitor.cookie), (1, &None), "{what}: {:?}", answer.cookies);
            assert_eq!(both.truth(&answer.before, "n").await, None, "{what}: it was acknowledged");
            return;
        };
        assert!(answer.cookies.is_empty(), "{what}: {:?}", answer.cookies);
        let n = both.truth(visitor, "n").await;
        assert!(n == Some(1) || (n.is_none() && error.may_have_been_applied()), "{what}: {n:?}, {error:?}");
    })
    .await;
}

/// Whatever was heard: what the browser has leads to its session.
pub async fn a_rotation_that_is_cut_anywhere_loses_nobody<N: Networked>(net: N) {
    let both = Both::of(&net);
    let work = async |session: &Session| session.rotate().await.map(drop);
    cut_everywhere(&net, &both, work, async |what: &str, visitor: &Visitor, answer: Answer| {
        if let Some(error) = &answer.error {
            assert!(answer.cookies.is_empty(), "{what}: {:?}, and {error:?}", answer.cookies);
        }
        assert_eq!(both.truth(visitor, "n").await, Some(1), "{what}: {:?}", answer.error);
        assert_eq!(both.truth(&answer.before, "n").await, Some(1), "{what}, with the old id: {:?}", answer.error);
    })
    .await;
}

/// "At login, what is privileged is written only after the old one is dead."
pub async fn a_login_that_is_cut_anywhere_leaves_nothing_under_the_old_id<N: Networked>(net: N) {
    let both = Both::of(&net);
    let work = async |session: &Session| {
        let mut s = session.start().await?;
        s.regenerate_id(true).await?;
        s.set("user", &7)
    };
    cut_everywhere(&net, &both, work, async |what: &str, visitor: &Visitor, answer: Answer| {
        assert_eq!(both.truth(&answer.before, "user").await, None, "{what}: the old id is logged in");
        match &answer.error {
            None => {
                assert_eq!(both.truth(visitor, "user").await, Some(7), "{what}: it was acknowledged");
                assert_ne!(visitor.cookie, answer.before.cookie, "{what}");
            }
            Some(error) if error.may_have_been_applied() => {}
            Some(error) => assert_eq!(both.truth(visitor, "user").await, None, "{what}: {error:?}"),
        }
    })
    .await;
}

/// "Recovery within 1 s after the server is back", for who comes then.
pub async fn requests_work_within_a_second_after_an_outage<N: Networked>(net: N) {
    let both = Both::of(&net);
    for outage in [Outage::Refuse, Outage::Hole, Outage::HalfOpen, Outage::Stall] {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            ready(&net).await;
            let mut visitor = both.visitor().await;
            outage.begin(net.proxy());
            for _ in 0..2 {
                let error = request_in_time("in an outage", visitor.get("n")).await.unwrap_err();
                assert_outage("in an outage", &error);
            }
            net.proxy().heal();
            let begun = Instant::now();
            loop {
                match request_in_time("after an outage", visitor.get("n")).await {
                    Ok(n) => break assert_eq!(n, Some(1)),
                    Err(error) => assert_outage("after an outage", &error),
                }
                assert!(begun.elapsed() < PATIENCE, "requests do not work again after {outage:?}");
                sleep(Duration::from_millis(5)).await;
            }
            best = best.min(begun.elapsed());
        }
        assert!(best <= RECOVERY, "after {outage:?} requests took {best:?} to work again");
    }
}

/// What a request that was cut gave to the browser.
struct Answer {
    /// The visitor as he was before.
    before: Visitor,
    error: Option<Error>,
    cookies: Vec<String>,
}

/// Makes a request again and again, each time with another visitor and cut after another byte.
async fn cut_everywhere<N: Networked>(
    net: &N,
    both: &Both,
    work: impl AsyncFn(&Session) -> Result<()>,
    judge: impl AsyncFn(&str, &Visitor, Answer),
) {
    let mut lengths = [0; 2];
    for _ in 0..2 {
        net.proxy().reset();
        ready(net).await;
        let (mut visitor, before) = (both.visitor().await.by(&patient(net)), net.proxy().counts());
        let session = visitor.begin();
        work(&session).await.unwrap_or_else(|error| panic!("before anything is broken: {error:?}"));
        visitor.finish(session).await.unwrap_or_else(|error| panic!("before anything is broken: {error:?}"));
        let now = net.proxy().counts();
        lengths = [now.requests - before.requests, now.replies - before.replies];
    }
    for (way, length) in [Way::Request, Way::Reply].into_iter().zip(lengths) {
        let length = usize::try_from(length).unwrap();
        let step = (length / points()).max(1);
        for after in (0..length).step_by(step).chain([length]) {
            let what = format!("cut after {after} of {length} bytes ({way:?})");
            ready(net).await;
            let before = both.visitor().await;
            let mut visitor = before.clone();
            let session = visitor.begin();
            net.proxy().cut(way, after, End::Reset);
            let worked = request_in_time(&what, work(&session)).await;
            let (headers, ended) = request_in_time(&what, visitor.end(session)).await;
            net.proxy().heal();
            let error = worked.and(ended).err();
            if let Some(error) = &error {
                assert_outage(&what, error);
            }
            judge(&what, &visitor, Answer { before, error, cookies: cookies(&headers) }).await;
        }
    }
    both.through.shutdown().await;
}

fn patient<N: Networked>(net: &N) -> Engine {
    engine_with(net.store(), |settings| settings.io_timeout = Duration::from_secs(20))
}
