//! Connections that break in the midst of a call, after every byte of its requests and of its replies.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::time::Duration;

use super::judge::{
    ASIDES, CHANGES, CREATIONS, Call, Case, LOADS, LOCKS, REMOVALS, TOUCHES, Verdict, every_call, settle,
};
use super::tools::{in_time, knob, outage, patient, quiet, ready, recovery, request, tell, until};
use super::{Networked, RECOVERY};
use crate::proxy::{End, Way};

/// How many bytes of each way of a call are tried, if it has more.
fn points() -> usize {
    knob("CLOAKROOM_CUTS", 10)
}

/// "`Unavailable` (never absent)."
pub async fn a_read_that_is_cut_anywhere_is_never_absent<N: Networked>(net: N) {
    cut_everywhere(&net, LOADS).await;
}

/// The lock is free as soon as the life of one is over, and the record is as it was.
pub async fn a_lock_that_is_cut_anywhere_comes_free<N: Networked>(net: N) {
    cut_everywhere(&net, LOCKS).await;
}

/// Not written, or written whole; and nobody sends it a second time.
pub async fn a_creation_that_is_cut_anywhere_is_told_truly<N: Networked>(net: N) {
    cut_everywhere(&net, CREATIONS).await;
}

/// "A lost reply says that it may have been applied and nothing is applied twice."
pub async fn a_change_that_is_cut_anywhere_is_told_truly<N: Networked>(net: N) {
    cut_everywhere(&net, CHANGES).await;
}

/// Also the life that a record has is not changed behind anybody's back.
pub async fn a_touch_that_is_cut_anywhere_is_told_truly<N: Networked>(net: N) {
    cut_everywhere(&net, TOUCHES).await;
}

/// A logout that was not acknowledged may have happened only if it says so.
pub async fn a_removal_that_is_cut_anywhere_is_told_truly<N: Networked>(net: N) {
    cut_everywhere(&net, REMOVALS).await;
}

/// The same for sessions that nobody can read.
pub async fn a_setting_aside_that_is_cut_anywhere_is_told_truly<N: Networked>(net: N) {
    cut_everywhere(&net, ASIDES).await;
}

/// A server that says goodbye in the midst of a reply, or says nothing any more.
pub async fn a_connection_that_ends_without_a_reset_is_no_better<N: Networked>(net: N) {
    let mut verdicts = Vec::new();
    for (number, call) in every_call().enumerate() {
        let lengths = lengths(&net, call, true, &format!("length-{number}")).await;
        for (way, length) in [(Way::Request, lengths.request), (Way::Reply, lengths.reply)] {
            for (end, after) in [(End::Close, 0), (End::Close, length / 2), (End::Silence, length * 2 / 3)] {
                let name = format!("{number}-{}-{after}-{}", letter(way), usize::from(end == End::Silence));
                verdicts.push(
                    one_cut(&net, call, &name, Cut { way, after, end, warm: true, markers: lengths.markers }).await.0,
                );
            }
        }
    }
    net.proxy().heal();
    ready(&net).await;
    settle(&net, verdicts).await;
}

/// Each byte of the greetings: with a password that goes astray nobody is logged in, and nobody is logged out either.
pub async fn connecting_that_is_cut_anywhere_is_unavailable<N: Networked>(net: N) {
    let key = net.key("connecting");
    let mut lengths = [0; 2];
    for measured in 0..2 {
        let before = net.proxy().counts();
        let store = net.another().await;
        assert!(store.load(&key, &patient()).await.is_ok_and(|record| record.is_none()), "nothing is broken yet");
        let now = net.proxy().counts();
        if measured > 0 {
            lengths = [now.requests - before.requests, now.replies - before.replies].map(size);
        }
    }
    let mut cuts = 0;
    for (way, length) in [(Way::Request, lengths[0]), (Way::Reply, lengths[1])] {
        let tried = spread(length);
        cuts += tried.len();
        for after in tried {
            let store = net.another().await;
            net.proxy().cut(way, after, End::Reset);
            let what = format!("connecting, cut after {after} bytes of {length} ({way:?})");
            let answer = in_time(&what, store.load(&key, &request())).await;
            match answer {
                Ok(record) => assert!(record.is_none(), "{what}: a record that nobody wrote"),
                Err(error) => {
                    let error = outage::<()>(&what, Err(error));
                    assert!(!error.may_have_been_applied(), "{what}: a read changes nothing: {error:?}");
                }
            }
            net.proxy().heal();
            recovery(&store, &key).await;
        }
    }
    assert!(cuts > 10, "connecting takes only {lengths:?} bytes: the store had been connected before");
}

/// Tries every byte of every call, or as many as a run shall have.
async fn cut_everywhere<N: Networked>(net: &N, calls: &[Call]) {
    let (mut verdicts, mut certain, mut cuts, mut tries) = (Vec::new(), 0, 0, 0);
    for (number, call) in calls.iter().enumerate() {
        let warm = lengths(net, *call, true, &format!("warm-{number}")).await;
        let cold = lengths(net, *call, false, &format!("cold-{number}")).await;
        // What is said only once on a connection is cut as well.
        let differ = cold.request > warm.request + 8 || cold.reply > warm.reply + 8;
        for lengths in [Some(warm), differ.then_some(cold)].into_iter().flatten() {
            for (way, length) in [(Way::Request, lengths.request), (Way::Reply, lengths.reply)] {
                for after in spread(length) {
                    let name = format!("{number}-{}-{}-{after}", letter(way), usize::from(lengths.warm));
                    let cut = Cut { way, after, end: End::Reset, warm: lengths.warm, markers: lengths.markers };
                    let (verdict, has_cut) = one_cut(net, *call, &name, cut).await;
                    tries += 1;
                    cuts += usize::from(has_cut);
                    certain += usize::from(verdict.is_certain());
                    verdicts.push(verdict);
                }
            }
        }
    }
    // A length varies by some bytes from one time to the next.
    assert!(cuts * 10 > tries * 8, "only {cuts} of {tries} cuts happened");
    tell(&format!("{tries} calls were cut; {certain} left no doubt what became of them"));
    ready(net).await;
    settle(net, verdicts).await;
}

/// Where one call is cut.
#[derive(Clone, Copy)]
struct Cut {
    way: Way,
    after: usize,
    end: End,
    warm: bool,
    /// How often a call that is not cut sends what it writes.
    markers: usize,
}

/// Gets a connection ready: one that has said all this before, or a new one that has answered one other call.
async fn prepare<N: Networked>(net: &N, call: Call, warm: bool, name: &str) -> Case {
    if !warm {
        net.proxy().reset();
    }
    ready(net).await;
    if warm {
        let mut before = Case::prepare(net, call, &format!("{name}-w")).await;
        let answer = before.carry_out(&net.store(), &patient()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{call:?}, before anything is broken: {error:?}"));
        before.judge(Ok(answer)).await.check(&net.trusted()).await;
    }
    let case = Case::prepare(net, call, name).await;
    // What the store does beside is not what is to be cut.
    quiet(net, Duration::from_millis(2)).await;
    case
}

/// Makes one call and cuts it.
async fn one_cut<N: Networked>(net: &N, call: Call, name: &str, cut: Cut) -> (Verdict, bool) {
    let mut case = prepare(net, call, cut.warm, name).await;
    let state = if cut.warm { "used" } else { "new" };
    let what =
        format!("{call:?}, cut by {:?} after {} bytes ({:?}) on a {state} connection", cut.end, cut.after, cut.way);
    net.proxy().watch(case.marker());
    net.proxy().cut(cut.way, cut.after, cut.end);
    let answer = in_time(&what, case.carry_out(&net.store(), &request())).await;
    net.proxy().heal();
    let has_cut = net.proxy().has_cut();
    let verdict = case.judge(answer).await;
    verdict.check(&net.trusted()).await;
    let seen = net.proxy().seen();
    assert!(seen <= cut.markers, "{what}: what it writes was sent {seen} times instead of {}", cut.markers);
    (verdict, has_cut)
}

/// How long a call is on the wire.
#[derive(Clone, Copy)]
struct Lengths {
    warm: bool,
    request: usize,
    reply: usize,
    markers: usize,
}

/// Measured as the cuts find it.
async fn lengths<N: Networked>(net: &N, call: Call, warm: bool, name: &str) -> Lengths {
    let mut lengths = Lengths { warm, request: usize::MAX, reply: usize::MAX, markers: 1 };
    // The least of some times: what the store does beside only adds to it.
    for round in 0..3 {
        let mut case = prepare(net, call, warm, &format!("{name}-{round}")).await;
        net.proxy().watch(case.marker());
        let before = net.proxy().counts();
        let answer = case.carry_out(&net.store(), &patient()).await;
        let now = net.proxy().counts();
        let answer = answer.unwrap_or_else(|error| panic!("{call:?}, before anything is broken: {error:?}"));
        case.judge(Ok(answer)).await.check(&net.trusted()).await;
        lengths.request = lengths.request.min(size(now.requests - before.requests));
        lengths.reply = lengths.reply.min(size(now.replies - before.replies));
        lengths.markers = lengths.markers.max(net.proxy().seen());
    }
    assert!(lengths.request > 0 && lengths.reply > 0, "{call:?} does not go through the proxy");
    lengths
}

/// All numbers up to the length, or as many of them as are tried, the first and the last ones among them.
fn spread(length: usize) -> Vec<usize> {
    let points = points().max(4);
    if length < points {
        return (0..=length).collect();
    }
    let mut spread: Vec<usize> = (0..points).map(|n| n * length / (points - 1)).collect();
    spread.push(length.saturating_sub(1));
    spread.sort_unstable();
    spread.dedup();
    spread
}

fn letter(way: Way) -> char {
    match way {
        Way::Request => 'q',
        Way::Reply => 'a',
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What is said of recovery in the rules, after the least of all outages.
pub async fn after_a_reset_the_store_works_at_once<N: Networked>(net: N) {
    let key = net.key("reset");
    let mut best = Duration::MAX;
    for round in 0..6 {
        ready(&net).await;
        let (busy, before) = (round % 2 == 1, net.proxy().counts().asked);
        let asking = busy.then(|| {
            net.proxy().pause(Way::Reply);
            let (store, key) = (net.store(), key.clone());
            tokio::spawn(async move { in_time("a call that is reset", store.load(&key, &request())).await.is_ok() })
        });
        if busy {
            until("a request", || net.proxy().counts().asked > before).await;
        }
        net.proxy().reset();
        net.proxy().resume();
        if let Some(asking) = asking {
            // It may have been asked again: reading changes nothing.
            asking.await.unwrap();
        }
        best = best.min(recovery(&net.store(), &key).await);
    }
    assert!(best <= RECOVERY, "the store took {best:?} to work again after a reset");
}
