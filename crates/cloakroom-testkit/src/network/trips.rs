//! How often the server is asked: rule 5 of the protocol, counted on the wire.

#![expect(clippy::unwrap_used, reason = "this crate is made of tests")]

use std::time::Duration;

use cloakroom_core::{Engine, Key, Settings};

use super::tools::quiet;
use super::visitor::{Visitor, engine_with};
use super::{MOST_TRIPS, Networked, Trips};

/// How often each verb is measured at the most: what a store does beside (a connection more, a statement that is prepared)
/// only adds to it.
const TRIES: usize = 12;

/// One request, from its head to the head of its response.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Untouched,
    Read,
    Update,
    Start,
    Create,
}

/// "0 untouched, 1 read, 2 changed, 2 for `start` and write", or what the store states.
pub async fn each_verb_asks_the_server_as_often_as_it_shall<N: Networked>(net: N) {
    let allowed = net.trips();
    let Trips { untouched, read, update, start, create, touch } = allowed;
    let most = [read, update, start, create, touch].into_iter().max().unwrap();
    assert!(untouched == 0 && most <= MOST_TRIPS, "more than any layout needs: {allowed:?}");
    let engine = patient_engine(&net, |_| {});
    let mut found = Trips::default();
    for (verb, allowed, found) in [
        (Verb::Untouched, untouched, &mut found.untouched),
        (Verb::Read, read, &mut found.read),
        (Verb::Update, update, &mut found.update),
        (Verb::Start, start, &mut found.start),
        (Verb::Create, create, &mut found.create),
    ] {
        *found = fewest(&net, &engine, verb, allowed).await;
    }
    found.touch = touch;
    assert_eq!(found, allowed, "counted on the left, stated on the right");
}

/// "Touch at most once in min(60 s, lifetime / 10)", and only by who reads.
pub async fn reading_lets_a_session_live_on_only_when_that_is_due<N: Networked>(net: N) {
    let Trips { read, touch, .. } = net.trips();
    for (lifetime, due) in [(1440, 60), (86_400, 60), (200, 20)] {
        let engine = patient_engine(&net, |settings| settings.gc_maxlifetime = lifetime);
        let mut visitor = Visitor::with_session(&engine).await;
        let key = Key::from_id(&visitor.id());
        for round in 0..2 {
            assert_eq!(reads(&net, &mut visitor).await, read, "{lifetime} s, fresh, round {round}");
            net.age(&key, Duration::from_secs(due / 2)).await;
            assert_eq!(reads(&net, &mut visitor).await, read, "{lifetime} s, too early, round {round}");
            let mut fewest = usize::MAX;
            for _ in 0..TRIES {
                // Once it has been touched, it is fresh again.
                net.age(&key, Duration::from_secs(due + 3)).await;
                fewest = fewest.min(reads_once(&net, &mut visitor).await);
                if fewest <= read + touch {
                    break;
                }
            }
            assert_eq!(fewest, read + touch, "{lifetime} s, due, round {round}");
        }
        // Who only peeks lets nothing live on.
        net.age(&key, Duration::from_secs(due + 3)).await;
        let before = trips(&net).await;
        let session = visitor.begin();
        session.peek().await.unwrap();
        visitor.finish(session).await.unwrap();
        assert_eq!(trips(&net).await - before, read, "{lifetime} s, peeking");
    }
}

fn patient_engine<N: Networked>(net: &N, change: impl FnOnce(&mut Settings)) -> Engine {
    engine_with(net.store(), |settings| {
        settings.io_timeout = Duration::from_secs(20);
        change(settings);
    })
}

/// The least of several times, all of which a verb takes if nothing else happens.
async fn fewest<N: Networked>(net: &N, engine: &Engine, verb: Verb, expected: usize) -> usize {
    let mut visitor = Visitor::with_session(engine).await;
    let mut fewest = usize::MAX;
    for n in 0..TRIES {
        if matches!(verb, Verb::Create) {
            visitor.cookie = None;
        }
        let before = trips(net).await;
        let session = visitor.begin();
        match verb {
            Verb::Untouched => {}
            Verb::Read => drop(session.read().await.unwrap()),
            Verb::Update | Verb::Create => session.update(|s| s.set("n", &n)).await.unwrap(),
            Verb::Start => session.start().await.unwrap().set("n", &n).unwrap(),
        }
        visitor.finish(session).await.unwrap();
        fewest = fewest.min(trips(net).await - before);
        if fewest <= expected && n > 0 {
            break;
        }
    }
    fewest
}

/// The least of several requests that read. A request that also touches touches only once.
async fn reads<N: Networked>(net: &N, visitor: &mut Visitor) -> usize {
    let mut fewest = usize::MAX;
    for _ in 0..3 {
        fewest = fewest.min(reads_once(net, visitor).await);
    }
    fewest
}

async fn reads_once<N: Networked>(net: &N, visitor: &mut Visitor) -> usize {
    let before = trips(net).await;
    visitor.get("n").await.unwrap();
    trips(net).await - before
}

/// The round trips so far, when nothing is under way any more.
async fn trips<N: Networked>(net: &N) -> usize {
    // What the last request left to be done goes on beside it for some moments.
    quiet(net, Duration::from_millis(15)).await;
    net.proxy().counts().round_trips
}
