//! Replies that nobody waits for any more: they belong to who asked, and are nobody else's.

#![expect(clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::store::{Expect, Outcome};
use cloakroom_core::{Deadline, ErrorKind, Key};
use tokio::time::timeout;

use super::Networked;
use super::judge::{Case, every_call, settle};
use super::tools::{
    PATIENCE, Shared, all, assert_unavailable, in_time, outage, patient, ready, tell, until, within, write,
};
use crate::proxy::{End, Way};

/// Too little time for a reply that waits.
const TOO_SHORT: Duration = Duration::from_millis(60);

/// Records of which each tells its own name.
async fn records<N: Networked>(net: &N, count: usize) -> Vec<(Key, String)> {
    let mut records = Vec::new();
    for n in 0..count {
        let (key, text) = (net.key(&format!("late-{n}")), format!("I am number {n}."));
        let outcome = net.trusted().commit(&key, Expect::Absent, write(text.clone()), &patient()).await;
        assert!(matches!(outcome, Ok(Outcome::Done(_))), "{outcome:?}");
        records.push((key, text));
    }
    records
}

/// Reads until there is an answer; it has to be the right one.
async fn assert_reads(store: &Shared, what: &str, (key, text): &(Key, String)) {
    let reading = async {
        loop {
            match store.load(key, &patient()).await {
                Ok(record) => {
                    let found = record.map(|record| String::from_utf8_lossy(&record.payload).into_owned());
                    assert!(
                        found.as_ref() == Some(text),
                        "{what}: somebody else's reply: {found:?} instead of {text:?}"
                    );
                    return;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error:?}"),
            }
        }
    };
    within(what, PATIENCE, reading).await;
}

/// The first call has given up, its reply comes, and another call is waiting for its own.
pub async fn a_late_reply_is_not_the_answer_of_a_later_call<N: Networked>(net: N) {
    let (store, records) = (net.store(), records(&net, 4).await);
    for round in 0..16 {
        ready(&net).await;
        let (first, second) = (&records[round % 4], records[(round + 1) % 4].clone());
        let deadline = Deadline::new(TOO_SHORT, Duration::from_secs(5));
        net.proxy().pause(Way::Reply);
        let answer = in_time("a call without a reply", store.load(&first.0, &deadline)).await;
        assert_unavailable("a call without a reply", answer);
        if round % 2 == 0 {
            net.proxy().resume();
            assert_reads(&store, "after a late reply", &second).await;
        } else {
            let (store, before) = (store.clone(), net.proxy().counts());
            let reading = tokio::spawn(async move { assert_reads(&store, "before a late reply", &second).await });
            // It has asked, or has begun to connect.
            until("the second call", || {
                let now = net.proxy().counts();
                now.asked > before.asked || now.connections > before.connections
            })
            .await;
            net.proxy().resume();
            reading.await.unwrap();
        }
        assert_reads(&store, "later", first).await;
    }
}

/// The same with calls of which each changes something.
pub async fn a_late_reply_of_a_change_is_not_the_answer_of_a_later_call<N: Networked>(net: N) {
    let (store, records) = (net.store(), records(&net, 2).await);
    let mut verdicts = Vec::new();
    for (number, call) in every_call().enumerate() {
        ready(&net).await;
        let mut case = Case::prepare(&net, call, &format!("first-{number}")).await;
        net.proxy().pause(Way::Reply);
        let deadline = Deadline::new(TOO_SHORT, Duration::from_secs(5));
        let what = format!("{call:?} without a reply");
        let error = outage(&what, in_time(&what, case.carry_out(&store, &deadline)).await);
        net.proxy().resume();
        assert_reads(&store, &format!("after the late reply to {call:?}"), &records[number % 2]).await;
        verdicts.push(case.judge(Err(error)).await);
    }
    settle(&net, verdicts).await;
}

/// Many share what connections there are; some have too little time.
pub async fn late_replies_among_many_calls_are_nobody_elses<N: Networked>(net: N) {
    let records = records(&net, 16).await;
    ready(&net).await;
    net.proxy().delay(Way::Reply, Duration::from_millis(8));
    let tasks = (0..records.len()).map(|task| {
        let (store, records) = (net.store(), records.clone());
        async move {
            let (mut right, mut late) = (0, 0);
            for n in 0..40 {
                // Each time another one, lest a reply that is late be right by chance.
                let (record, short) = (&records[(task + n * 5) % records.len()], (task + n) % 2 == 0);
                let limit = if short { Duration::from_millis(4) } else { Duration::from_secs(20) };
                match store.load(&record.0, &Deadline::new(limit, Duration::ZERO)).await {
                    Ok(Some(found)) => {
                        assert!(found.payload == record.1, "somebody else's reply: {:?}", found.payload);
                        right += 1;
                    }
                    Ok(None) => panic!("a record that is there was absent"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                        late += 1;
                    }
                }
            }
            (right, late)
        }
    });
    let counts = all(tasks).await;
    net.proxy().heal();
    let (right, late) = counts.iter().fold((0, 0), |(right, late), counts| (right + counts.0, late + counts.1));
    tell(&format!("{right} right replies beside {late} that came too late"));
    assert!(right >= 16 && late >= 160, "{right} right replies, {late} late ones");
}

/// "A connection dropped in mid-reply is closed, never reused."
pub async fn a_call_that_is_dropped_in_the_midst_of_its_reply_disturbs_no_other<N: Networked>(net: N) {
    let (store, records) = (net.store(), records(&net, 2).await);
    let mut verdicts = Vec::new();
    for (number, call) in every_call().enumerate() {
        for after in [0, 1, 4, 9] {
            ready(&net).await;
            let mut case = Case::prepare(&net, call, &format!("dropped-{number}-{after}")).await;
            net.proxy().cut(Way::Reply, after, End::Pause);
            {
                let deadline = patient();
                let mut call = Box::pin(case.carry_out(&store, &deadline));
                let cut = async {
                    until("the reply", || net.proxy().has_cut()).await;
                    // What has arrived of it is being read.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                };
                tokio::select! {
                    biased;
                    // Replies of a few bytes may be whole by then.
                    _ = &mut call => {}
                    () = cut => {}
                }
            }
            net.proxy().heal();
            assert_reads(&store, &format!("after a dropped {call:?}"), &records[number % 2]).await;
            verdicts.push(case.abandon());
        }
    }
    ready(&net).await;
    settle(&net, verdicts).await;
}

/// However many leave, nothing is used up: neither places in a pool nor in a line.
pub async fn calls_that_are_dropped_use_nothing_up<N: Networked>(net: N) {
    let (store, records) = (net.store(), records(&net, 2).await);
    ready(&net).await;
    for (round, call) in every_call().filter(|call| !matches!(call, super::judge::Call::Commit { .. })).enumerate() {
        net.proxy().pause(Way::Reply);
        let calls = (0..60).map(|n| {
            let (store, key) = (store.clone(), net.key(&format!("many-{round}-{n}")));
            async move {
                let deadline = patient();
                let limit = Duration::from_millis(5 + n % 7);
                match call {
                    super::judge::Call::Lock { claim, .. } => {
                        _ = timeout(limit, store.lock(&key, claim, &deadline)).await;
                    }
                    _ => _ = timeout(limit, store.load(&key, &deadline)).await,
                }
            }
        });
        all(calls).await;
        net.proxy().heal();
        assert_reads(&store, "after many dropped calls", &records[round % 2]).await;
    }
    // As many at once as before.
    let calls = (0..40).map(|n| {
        let (store, record) = (store.clone(), records[n % 2].clone());
        async move { assert_reads(&store, "many at once, after many dropped calls", &record).await }
    });
    all(calls).await;
}
