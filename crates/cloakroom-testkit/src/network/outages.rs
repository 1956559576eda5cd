//! Networks that carry nothing, or carry it too late.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::store::{Expect, Outcome};

use super::judge::{Call, Case, How, Verdict, every_call, settle};
use super::tools::{Shared, assert_unavailable, in_time, outage, patient, ready, recovery, request, write};
use super::{IO, Networked, RECOVERY};
use crate::proxy::{Proxy, Way};

/// How a network is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// Nobody listens.
    Refuse,
    /// Connections come about, and all bytes are lost.
    Hole,
    /// Requests arrive, and their replies are lost.
    HalfOpen,
    /// Nothing is lost, and all of it waits.
    Stall,
}

impl Outage {
    pub(crate) fn begin(self, proxy: &Proxy) {
        match self {
            Outage::Refuse => proxy.refuse(),
            Outage::Hole => proxy.swallow_all(),
            Outage::HalfOpen => proxy.swallow_replies(),
            Outage::Stall => [Way::Request, Way::Reply].into_iter().for_each(|way| proxy.pause(way)),
        }
    }
}

/// A closed port: it is known that nothing was sent.
pub async fn on_a_closed_port_nothing_is_applied_and_it_is_known<N: Networked>(net: N) {
    let mut verdicts = Vec::new();
    for (number, call) in every_call().enumerate() {
        ready(&net).await;
        let mut case = Case::prepare(&net, call, &format!("refused-{number}")).await;
        net.proxy().refuse();
        // Broken connections are found by being used.
        for _ in 0..4 {
            let answer = in_time("a call to a closed port", net.store().load(&net.key("any"), &request())).await;
            assert_unavailable("a call to a closed port", answer);
        }
        let answer = in_time("a call to a closed port", case.carry_out(&net.store(), &request())).await;
        let error = outage("a call to a closed port", answer);
        // A holder's connection may be his own, so that he is the first to find it broken.
        let is_holder = matches!(call, Call::Commit { how: How::Held, .. });
        assert!(is_holder || !error.may_have_been_applied(), "{call:?}: nothing can have been sent: {error:?}");
        net.proxy().heal();
        let verdict = case.judge(Err(error)).await;
        verdict.check(&net.trusted()).await;
        verdicts.push(verdict);
    }
    ready(&net).await;
    settle(&net, verdicts).await;
}

/// Connections come about, and nobody answers.
pub async fn in_a_black_hole_every_call_ends_in_time<N: Networked>(net: N) {
    every_call_through(&net, Outage::Hole).await;
}

/// What was asked for is done, and nobody hears of it.
pub async fn on_a_half_open_connection_a_commit_says_that_it_may_have_been_applied<N: Networked>(net: N) {
    every_call_through(&net, Outage::HalfOpen).await;
}

/// What waits in the network arrives after everybody has given up.
pub async fn what_arrives_after_the_caller_gave_up_was_announced<N: Networked>(net: N) {
    every_call_through(&net, Outage::Stall).await;
}

async fn every_call_through<N: Networked>(net: &N, outage: Outage) {
    let mut verdicts = Vec::new();
    for (number, call) in every_call().enumerate() {
        ready(net).await;
        verdicts.push(one_call(net, outage, call, &format!("outage-{number}")).await);
    }
    ready(net).await;
    settle(net, verdicts).await;
}

async fn one_call<N: Networked>(net: &N, kind: Outage, call: Call, name: &str) -> Verdict {
    let mut case = Case::prepare(net, call, name).await;
    let what = format!("{call:?}, {kind:?}");
    kind.begin(net.proxy());
    let answer = in_time(&what, case.carry_out(&net.store(), &request())).await;
    let error = outage(&what, answer);
    net.proxy().heal();
    let verdict = case.judge(Err(error)).await;
    verdict.check(&net.trusted()).await;
    verdict
}

/// Far away is not broken.
pub async fn latency_within_the_limit_harms_nothing<N: Networked>(net: N) {
    let deadline = || cloakroom_core::Deadline::new(Duration::from_secs(20), Duration::from_secs(20));
    let mut verdicts = Vec::new();
    for (number, call) in every_call().enumerate() {
        let mut case = Case::prepare(&net, call, &format!("far-{number}")).await;
        for way in [Way::Request, Way::Reply] {
            net.proxy().delay(way, Duration::from_millis(10));
        }
        let answer = case.carry_out(&net.store(), &deadline()).await;
        net.proxy().heal();
        let answer = answer.unwrap_or_else(|error| panic!("{call:?}: 20 ms are no outage: {error:?}"));
        let verdict = case.judge(Ok(answer)).await;
        verdict.check(&net.trusted()).await;
        verdicts.push(verdict);
    }
    settle(&net, verdicts).await;
}

/// Too far away is an outage, and what arrives late was announced.
pub async fn latency_beyond_the_limit_is_unavailable<N: Networked>(net: N) {
    let mut verdicts = Vec::new();
    for (number, call) in every_call().enumerate() {
        ready(&net).await;
        let mut case = Case::prepare(&net, call, &format!("late-{number}")).await;
        net.proxy().delay(if number % 2 == 0 { Way::Reply } else { Way::Request }, IO * 2);
        let what = format!("{call:?}, with a latency of {:?}", IO * 2);
        let answer = in_time(&what, case.carry_out(&net.store(), &request())).await;
        let error = outage(&what, answer);
        net.proxy().heal();
        let verdict = case.judge(Err(error)).await;
        verdict.check(&net.trusted()).await;
        verdicts.push(verdict);
    }
    // What is still on its way has arrived by then.
    tokio::time::sleep(IO * 3).await;
    ready(&net).await;
    settle(&net, verdicts).await;
}

/// "Recovery within 1 s after the server is back", by itself, however it was away.
pub async fn after_an_outage_the_store_works_within_a_second<N: Networked>(net: N) {
    let key = net.key("back");
    for outage in [Outage::Refuse, Outage::Hole, Outage::HalfOpen, Outage::Stall] {
        let mut best = Duration::MAX;
        for round in 0..3 {
            ready(&net).await;
            outage.begin(net.proxy());
            // Those that come meanwhile, one after the other and together.
            for _ in 0..3 {
                let answer = in_time("asking in an outage", net.store().load(&key, &request())).await;
                assert_unavailable("asking in an outage", answer);
            }
            net.proxy().heal();
            let took = recovery(&net.store(), &key).await;
            works(&net.store(), &net, &format!("{outage:?}-{round}")).await;
            best = best.min(took);
        }
        assert!(best <= RECOVERY, "after {outage:?} the store took {best:?} to work again");
    }
}

/// A connection that was well a moment ago, and what the store does with it when nobody waits any more, cost nothing that is
/// missing later.
pub async fn many_outages_one_after_the_other_use_nothing_up<N: Networked>(net: N) {
    let key = net.key("again");
    for round in 0..60 {
        ready(&net).await;
        let outage = [Outage::Hole, Outage::HalfOpen][round % 2];
        let deadline = cloakroom_core::Deadline::new(IO / 5, Duration::ZERO);
        // The network ends at the moment at which a call has its answer.
        let _ = in_time("a call before an outage", net.store().load(&key, &request())).await;
        outage.begin(net.proxy());
        let answer = in_time("a call in an outage", net.store().load(&key, &deadline)).await;
        assert_unavailable("a call in an outage", answer);
        net.proxy().heal();
    }
    let mut best = Duration::MAX;
    for round in 0..3 {
        best = best.min(recovery(&net.store(), &key).await);
        works(&net.store(), &net, &format!("again-{round}")).await;
    }
    assert!(best <= RECOVERY, "after many outages the store took {best:?} to work again");
}

/// A store that was opened while nobody was there.
pub async fn a_store_that_was_made_in_an_outage_works_when_it_is_over<N: Networked>(net: N) {
    let (key, mut best) = (net.key("early"), Duration::MAX);
    for round in 0..3 {
        net.proxy().refuse();
        let store = net.another().await;
        assert_unavailable("a closed port", in_time("a closed port", store.load(&key, &request())).await);
        net.proxy().heal();
        best = best.min(recovery(&store, &key).await);
        works(&store, &net, &format!("early-{round}")).await;
    }
    assert!(best <= RECOVERY, "the store took {best:?} to work");
}

/// Not only for reading.
async fn works<N: Networked>(store: &Shared, net: &N, name: &str) {
    let key = net.key(name);
    let created = store.commit(&key, Expect::Absent, write("1"), &patient()).await;
    assert!(matches!(created, Ok(Outcome::Done(_))), "{name}: creating after an outage: {created:?}");
    let locked = store.lock(&key, cloakroom_core::store::Claim::Existing, &patient()).await.unwrap();
    let outcome = store.commit(&key, Expect::Held(locked.unwrap().lease), write("1"), &patient()).await;
    assert!(matches!(outcome, Ok(Outcome::Done(_))), "{name}: writing after an outage: {outcome:?}");
}
