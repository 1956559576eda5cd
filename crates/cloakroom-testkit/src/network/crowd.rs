//! Many at once, while the network breaks.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Record};
use cloakroom_core::{Error, ErrorKind, Key};
use tokio::time::sleep;

use super::outages::Outage;
use super::tools::{PATIENCE, Shared, all, assert_unavailable, patient, ready, recovery, request, tell, within, write};
use super::{IO, Networked, RECOVERY, SLACK};
use crate::proxy::{End, Way};

/// How many at once.
const MANY: usize = 50;
/// What so many add to a slow machine.
const CROWDED: Duration = Duration::from_secs(5);

fn number(record: &Record) -> usize {
    std::str::from_utf8(&record.payload).unwrap().parse().unwrap()
}

/// None of them waits for the others' limits, and none is forgotten.
pub async fn of_many_at_once_each_is_unavailable_in_time_and_works_afterwards<N: Networked>(net: N) {
    for outage in [Outage::Refuse, Outage::Hole, Outage::HalfOpen] {
        let mut best = Duration::MAX;
        for round in 0..3 {
            best = best.min(many_through(&net, outage, round).await);
        }
        assert!(
            best <= RECOVERY,
            "after {MANY} calls in a network that does not work ({outage:?}) the store took {best:?}"
        );
    }
}

/// How soon the store works again for one.
async fn many_through<N: Networked>(net: &N, outage: Outage, round: usize) -> Duration {
    ready(net).await;
    outage.begin(net.proxy());
    let calls = (0..MANY).map(|n| {
        let (store, key) = (net.store(), net.key(&format!("{outage:?}-{round}-{n}")));
        async move {
            let what = format!("one of {MANY}, {outage:?}");
            let limit = IO + SLACK + CROWDED;
            let deadline = request();
            match n % 3 {
                0 => assert_unavailable(&what, within(&what, limit, store.load(&key, &deadline)).await),
                1 => {
                    let call = store.commit(&key, Expect::Absent, write(n.to_string()), &deadline);
                    assert_unavailable(&what, within(&what, limit, call).await);
                }
                _ => {
                    let call = store.lock(&key, Claim::Either, &deadline);
                    assert_unavailable(&what, within(&what, limit, call).await);
                }
            }
        }
    });
    all(calls).await;
    net.proxy().heal();
    let took = recovery(&net.store(), &net.key("after")).await;
    let calls = (0..MANY).map(|n| {
        let (store, key) = (net.store(), net.key(&format!("{outage:?}-after-{round}-{n}")));
        async move {
            let created = store.commit(&key, Expect::Absent, write(n.to_string()), &patient()).await;
            // Said by a connection that broke in the outage and was not used until now.
            if let Err(error) = created {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            }
            let reading = async {
                loop {
                    match store.load(&key, &patient()).await {
                        Ok(Some(record)) => return number(&record),
                        Ok(None) => _ = store.commit(&key, Expect::Absent, write(n.to_string()), &patient()).await,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
                    }
                }
            };
            assert_eq!(within("working after an outage", PATIENCE, reading).await, n);
        }
    });
    all(calls).await;
    took
}

/// How many increments were acknowledged, and of how many nothing is known.
#[derive(Default)]
struct Tally {
    done: AtomicUsize,
    doubtful: AtomicUsize,
}

impl Tally {
    /// After an error the same increment may be made again only if it was certainly not applied.
    fn is_settled(&self, error: &Error) -> bool {
        assert!(
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Locked | ErrorKind::Conflict),
            "incrementing through resets: {error:?}"
        );
        let doubtful = error.may_have_been_applied();
        self.doubtful.fetch_add(usize::from(doubtful), Ordering::SeqCst);
        doubtful
    }
}

/// One change after the other while connections break: what was acknowledged is there, and nothing twice.
pub async fn increments_by_version_through_resets_are_applied_once<N: Networked>(net: N) {
    through_resets(&net, BY_VERSION, async |store: Shared, key: Key, tally: Arc<Tally>| {
        loop {
            let record = match store.load(&key, &request()).await {
                Ok(record) => record.expect("it is never absent"),
                Err(error) => {
                    assert!(!error.may_have_been_applied());
                    continue;
                }
            };
            let next = write((number(&record) + 1).to_string());
            match store.commit(&key, Expect::Is(&record.version), next, &request()).await {
                Ok(Outcome::Done(_)) => {
                    tally.done.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                Ok(Outcome::Conflict(_)) => {}
                Ok(other) => panic!("incrementing through resets: {other:?}"),
                Err(error) if tally.is_settled(&error) => return,
                Err(_) => {}
            }
        }
    })
    .await;
}

/// The same under the lock.
pub async fn increments_under_the_lock_through_resets_are_applied_once<N: Networked>(net: N) {
    through_resets(&net, UNDER_THE_LOCK, async |store: Shared, key: Key, tally: Arc<Tally>| {
        loop {
            let deadline = cloakroom_core::Deadline::new(IO, Duration::from_secs(60));
            let locked = match store.lock(&key, Claim::Existing, &deadline).await {
                Ok(locked) => locked.expect("it is never absent"),
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::Locked, "a lock was not freed for a minute");
                    continue;
                }
            };
            let next = write((number(&locked.record.expect("it is there")) + 1).to_string());
            match store.commit(&key, Expect::Held(locked.lease), next, &request()).await {
                Ok(Outcome::Done(_)) => {
                    tally.done.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                // The lock was lost with its connection.
                Ok(Outcome::Gone) => {}
                Ok(other) => panic!("incrementing through resets: {other:?}"),
                Err(error) if tally.is_settled(&error) => return,
                Err(_) => {}
            }
        }
    })
    .await;
}

/// How much is done, and how often something breaks.
struct Plan {
    tasks: usize,
    breaks: usize,
    /// The first pause between breaks; each is longer than the one before, so that also a slow store gets on.
    pause: Duration,
}

const BY_VERSION: Plan = Plan { tasks: 8, breaks: 60, pause: Duration::from_millis(20) };
/// A lock that was taken and not heard of costs its whole life.
const UNDER_THE_LOCK: Plan = Plan { tasks: 4, breaks: 16, pause: Duration::from_millis(100) };

async fn through_resets<N: Networked, F>(
    net: &N,
    plan: Plan,
    increment: impl Fn(Shared, Key, Arc<Tally>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (tally, key, over) = (Arc::new(Tally::default()), net.key("count"), Arc::new(AtomicBool::new(false)));
    let created = net.trusted().commit(&key, Expect::Absent, write("0"), &patient()).await;
    assert!(matches!(created, Ok(Outcome::Done(_))), "{created:?}");
    let breaking = async {
        let (mut step, mut pause) = (0_usize, plan.pause);
        while step < plan.breaks {
            // Now all connections, now the one that carries the next byte but so many, now in a reply.
            match step % 4 {
                0 => net.proxy().reset(),
                1 => net.proxy().cut(Way::Request, step * 37 % 400, End::Reset),
                _ => net.proxy().cut(Way::Reply, step * 53 % 200, End::Reset),
            }
            step += 1;
            pause += Duration::from_millis(2);
            sleep(pause).await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let work = all((0..plan.tasks).map(|_| {
        let (store, key, tally, over) = (net.store(), key.clone(), Arc::clone(&tally), Arc::clone(&over));
        let increment = increment.clone();
        async move {
            while !over.load(Ordering::SeqCst) {
                increment(Arc::clone(&store), key.clone(), Arc::clone(&tally)).await;
            }
        }
    }));
    tokio::join!(breaking, work);
    net.proxy().heal();
    ready(net).await;
    // A request that was on its way when its connection broke is done by now, or never.
    sleep(Duration::from_millis(200)).await;
    let (done, doubtful) = (tally.done.load(Ordering::SeqCst), tally.doubtful.load(Ordering::SeqCst));
    let count = number(&net.trusted().load(&key, &patient()).await.unwrap().unwrap());
    tell(&format!("{done} acknowledged, {doubtful} in doubt, {count} counted"));
    assert!(count >= done, "{count} counted, {done} acknowledged: an acknowledged change is lost");
    assert!(
        count <= done + doubtful,
        "{count} counted, {done} acknowledged and {doubtful} in doubt: some were applied twice"
    );
    assert!(done > 0 && doubtful < done, "{done} acknowledged, {doubtful} in doubt: the network was hardly there");
}
