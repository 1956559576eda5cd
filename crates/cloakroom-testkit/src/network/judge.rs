//! Every call of the contract, and whether its answer can be true.

#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "this crate is made of tests")]

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Claim, Expect, Lease, Locked, Outcome, Payload, Put, Record, Version};
use cloakroom_core::{Deadline, ErrorKind, Key, Result};

use super::Networked;
use super::tools::{PATIENCE, Shared, all, patient};

/// The life of what a case finds, and the life it gives.
const BEFORE: Duration = Duration::from_secs(600);
const AFTER: Duration = Duration::from_secs(1200);
/// Between the two.
const BORDER: Duration = Duration::from_secs(900);

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Load { there: bool },
    Lock { claim: Claim, there: bool },
    Commit { how: How, what: What },
}

/// [`Expect`], as yet without what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Absent,
    Any,
    Is,
    Held,
}

/// [`Put`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Payload,
    Touch,
    Remove,
    SetAside,
}

pub(crate) const LOADS: &[Call] = &[Call::Load { there: true }, Call::Load { there: false }];
pub(crate) const LOCKS: &[Call] = &[
    Call::Lock { claim: Claim::Existing, there: true },
    Call::Lock { claim: Claim::New, there: false },
    Call::Lock { claim: Claim::Either, there: true },
    Call::Lock { claim: Claim::Either, there: false },
];
pub(crate) const CREATIONS: &[Call] = &[Call::Commit { how: How::Absent, what: What::Payload }];
pub(crate) const CHANGES: &[Call] = &[
    Call::Commit { how: How::Is, what: What::Payload },
    Call::Commit { how: How::Any, what: What::Payload },
    Call::Commit { how: How::Held, what: What::Payload },
];
pub(crate) const TOUCHES: &[Call] = &[
    Call::Commit { how: How::Is, what: What::Touch },
    Call::Commit { how: How::Any, what: What::Touch },
    Call::Commit { how: How::Held, what: What::Touch },
];
pub(crate) const REMOVALS: &[Call] = &[
    Call::Commit { how: How::Is, what: What::Remove },
    Call::Commit { how: How::Any, what: What::Remove },
    Call::Commit { how: How::Held, what: What::Remove },
];
pub(crate) const ASIDES: &[Call] = &[
    Call::Commit { how: How::Is, what: What::SetAside },
    Call::Commit { how: How::Any, what: What::SetAside },
    Call::Commit { how: How::Held, what: What::SetAside },
];

/// All of them.
pub(crate) fn every_call() -> impl Iterator<Item = Call> {
    [LOADS, LOCKS, CREATIONS, CHANGES, TOUCHES, REMOVALS, ASIDES].into_iter().flatten().copied()
}

/// What lies under a key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Truth {
    Absent,
    Holds { payload: Bytes, renewed: bool },
}

impl Truth {
    fn of(record: Option<&Record>) -> Truth {
        record.map_or(Truth::Absent, |record| Truth::Holds {
            payload: record.payload.clone(),
            renewed: record.ttl.is_some_and(|ttl| ttl > BORDER),
        })
    }
}

impl fmt::Debug for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Truth::Absent => f.write_str("nothing"),
            Truth::Holds { payload, renewed } => {
                let life = if *renewed { "with a new life" } else { "with its old life" };
                write!(f, "{:?} {life}", String::from_utf8_lossy(payload))
            }
        }
    }
}

/// What lies there, as the trusted store sees it.
pub(crate) async fn truth(trusted: &Shared, key: &Key) -> Truth {
    Truth::of(trusted.load(key, &patient()).await.unwrap().as_ref())
}

/// A call on a key of its own, with everything it needs, ready to be made.
pub(crate) struct Case {
    pub(crate) call: Call,
    pub(crate) key: Key,
    name: String,
    before: Truth,
    version: Option<Version>,
    lease: Option<Box<dyn Lease>>,
}

/// What goes through the proxy once nothing is broken any more: a connection that broke earlier may be found only now.
async fn through<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> T {
    let mut left = 20;
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) if error.kind() == ErrorKind::Unavailable && left > 0 => left -= 1,
            Err(error) => panic!("preparing a call, with nothing broken: {error:?}"),
        }
    }
}

/// What is left of a call: which states are possible now.
pub(crate) struct Verdict {
    name: String,
    pub(crate) key: Key,
    possible: Vec<Truth>,
}

/// What a call gave.
#[derive(Debug)]
pub(crate) enum Given {
    Record(Option<Record>),
    Locked(Option<Locked>),
    Outcome(Outcome),
}

impl Case {
    /// Makes what the call is to find. Nothing may be broken yet: what has to come from the store itself goes through
    /// the proxy.
    pub(crate) async fn prepare<N: Networked>(net: &N, call: Call, name: &str) -> Case {
        let (key, trusted, store) = (net.key(name), net.trusted(), net.store());
        let there = match call {
            Call::Load { there } | Call::Lock { there, .. } => there,
            Call::Commit { how, .. } => how != How::Absent,
        };
        let mut case = Case { call, key, name: name.to_owned(), before: Truth::Absent, version: None, lease: None };
        if there {
            let payload = Payload::new(case.old(), BEFORE);
            let outcome = trusted.commit(&case.key, Expect::Absent, Put::Payload(payload), &patient()).await;
            assert!(matches!(outcome, Ok(Outcome::Done(_))), "{name}: preparing a record: {outcome:?}");
            case.before = truth(&trusted, &case.key).await;
        }
        match call {
            Call::Commit { how: How::Is, .. } => {
                let record = through(|| async { store.load(&case.key, &patient()).await }).await;
                case.version = Some(record.expect("prepared").version);
            }
            Call::Commit { how: How::Held, .. } => {
                let locked = through(|| async { store.lock(&case.key, Claim::Existing, &patient()).await }).await;
                case.lease = Some(locked.expect("prepared").lease);
            }
            _ => {}
        }
        case
    }

    /// What lies there before.
    fn old(&self) -> Bytes {
        format!("old of {}", self.name).into()
    }

    /// What it writes, where it does: bytes that nothing else contains.
    pub(crate) fn marker(&self) -> String {
        format!("new of {}", self.name)
    }

    /// What the call leaves if it is carried out.
    fn after(&self) -> Truth {
        match (self.call, &self.before) {
            (Call::Commit { what: What::Payload, .. }, _) => {
                Truth::Holds { payload: self.marker().into(), renewed: true }
            }
            (Call::Commit { what: What::Touch, .. }, Truth::Holds { payload, .. }) => {
                Truth::Holds { payload: payload.clone(), renewed: true }
            }
            (Call::Commit { .. }, _) => Truth::Absent,
            (Call::Load { .. } | Call::Lock { .. }, before) => before.clone(),
        }
    }

    /// Makes the call.
    pub(crate) async fn carry_out(&mut self, store: &Shared, deadline: &Deadline) -> Result<Given> {
        let key = &self.key;
        match self.call {
            Call::Load { .. } => store.load(key, deadline).await.map(Given::Record),
            Call::Lock { claim, .. } => store.lock(key, claim, deadline).await.map(Given::Locked),
            Call::Commit { how, what } => {
                let put = match what {
                    What::Payload => Put::Payload(Payload::new(self.marker().into(), AFTER)),
                    What::Touch => Put::Touch(AFTER),
                    What::Remove => Put::Remove,
                    What::SetAside => Put::SetAside,
                };
                let expect = match how {
                    How::Absent => Expect::Absent,
                    How::Any => Expect::Any,
                    How::Is => Expect::Is(self.version.as_ref().unwrap()),
                    How::Held => Expect::Held(self.lease.take().unwrap()),
                };
                store.commit(key, expect, put, deadline).await.map(Given::Outcome)
            }
        }
    }

    /// Whether the answer can be true, and what may lie there now.
    pub(crate) async fn judge(self, answer: Result<Given>) -> Verdict {
        let (name, call, after) = (&self.name, self.call, self.after());
        let both = || vec![self.before.clone(), after.clone()];
        let possible = match answer {
            Ok(Given::Record(record)) => {
                let seen = Truth::of(record.as_ref());
                assert!(seen == self.before, "{name}, {call:?}: {seen:?} was read where there is {:?}", self.before);
                vec![self.before.clone()]
            }
            Ok(Given::Locked(locked)) => {
                let Some(Locked { lease, record, .. }) = locked else {
                    panic!("{name}, {call:?}: refused where there is {:?}", self.before)
                };
                let seen = Truth::of(record.as_ref());
                lease.release().await;
                assert!(seen == self.before, "{name}, {call:?}: {seen:?} was locked where there is {:?}", self.before);
                self.or_empty(vec![self.before.clone()])
            }
            Ok(Given::Outcome(outcome)) => {
                match (call, &outcome) {
                    (Call::Commit { what: What::Payload | What::Touch, .. }, Outcome::Done(_)) => {}
                    (Call::Commit { what: What::Remove | What::SetAside, .. }, Outcome::Removed(record)) => {
                        assert_eq!(record.payload, self.old(), "{name}, {call:?}: another record was removed");
                    }
                    _ => panic!("{name}, {call:?}: {outcome:?} where there is {:?} and nobody else", self.before),
                }
                vec![after]
            }
            Err(error) => {
                let kind = error.kind();
                assert_eq!(kind, ErrorKind::Unavailable, "{name}, {call:?}: an outage is no {kind}: {error:?}");
                match call {
                    Call::Load { .. } => {
                        assert!(!error.may_have_been_applied(), "{name}: a read changes nothing: {error:?}");
                        both()
                    }
                    Call::Lock { .. } => self.or_empty(both()),
                    Call::Commit { .. } if error.may_have_been_applied() => both(),
                    Call::Commit { .. } => vec![self.before.clone()],
                }
            }
        };
        Verdict { name: format!("{name}, {call:?}"), key: self.key, possible }
    }

    /// For a call that was dropped: done or not.
    pub(crate) fn abandon(self) -> Verdict {
        let possible = self.or_empty(vec![self.before.clone(), self.after()]);
        Verdict { name: format!("{}, {:?}, dropped", self.name, self.call), key: self.key, possible }
    }

    /// Where the layout's lock needs a record, a new one may be there, with 0 bytes.
    fn or_empty(&self, mut possible: Vec<Truth>) -> Vec<Truth> {
        if self.before == Truth::Absent {
            possible.extend([false, true].map(|renewed| Truth::Holds { payload: Bytes::new(), renewed }));
        }
        possible
    }
}

impl Verdict {
    /// Looks whether it is as it has to be.
    pub(crate) async fn check(&self, trusted: &Shared) {
        let now = truth(trusted, &self.key).await;
        let Verdict { name, possible, .. } = self;
        assert!(possible.contains(&now), "{name}: there is now {now:?}; by what the call said it can be {possible:?}");
    }

    /// The server may have lost it since.
    #[must_use]
    pub(crate) fn or_lost(mut self) -> Verdict {
        self.possible.push(Truth::Absent);
        self
    }

    /// Whether the call has left no doubt.
    pub(crate) fn is_certain(&self) -> bool {
        self.possible.len() == 1
    }
}

/// Looks at all of them once more, later: nothing that was said not to have been applied is applied now, and no lock is held
/// for longer than a lock lives, in this process or for others.
pub(crate) async fn settle<N: Networked>(net: &N, verdicts: Vec<Verdict>) {
    let trusted = net.trusted();
    for verdict in &verdicts {
        verdict.check(&trusted).await;
    }
    let limit = Deadline::new(Duration::from_secs(60), net.lock_life() + PATIENCE);
    for (who, store) in [("others", trusted), ("its own process", net.store())] {
        // Not all at once: some stores hold a connection for each lock.
        for some in verdicts.chunks(8) {
            let locks = some.iter().map(|verdict| {
                let (store, key, name, limit) =
                    (store.clone(), verdict.key.clone(), verdict.name.clone(), limit.clone());
                // Not longer than the first of them may wait, which has waited for the lives of all.
                let limit = limit.with_lock_wait(limit.lock_wait());
                async move {
                    match store.lock(&key, Claim::Either, &limit).await {
                        Ok(Some(locked)) => locked.lease.release().await,
                        other => panic!("{name}: the lock does not come free for {who}: {other:?}"),
                    }
                }
            });
            all(locks).await;
        }
    }
}
