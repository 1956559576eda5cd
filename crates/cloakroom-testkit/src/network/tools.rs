//! Short names for what nearly every case does.

#![expect(clippy::panic, reason = "this crate is made of tests")]

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::store::{Payload, Put};
use cloakroom_core::{Deadline, DynStore, Error, ErrorKind, Key, Result};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{IO, Networked, SLACK};

pub(crate) type Shared = Arc<dyn DynStore>;

/// Something that has to happen at all happens within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Limits that nothing reaches.
pub(crate) fn patient() -> Deadline {
    Deadline::new(Duration::from_secs(60), Duration::from_secs(60))
}

/// The limits of a request.
pub(crate) fn request() -> Deadline {
    Deadline::new(IO, Duration::from_secs(5))
}

/// A payload that lives for longer than any case.
pub(crate) fn write(payload: impl Into<Bytes>) -> Put {
    Put::Payload(Payload::new(payload.into(), Duration::from_secs(600)))
}

/// The end of a call with the limits of [`request`]: it has to come in time.
pub(crate) async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    within(what, IO + SLACK, call).await
}

pub(crate) async fn within<T>(what: &str, limit: Duration, call: impl Future<Output = T>) -> T {
    let answer = timeout(limit, call).await;
    answer.unwrap_or_else(|_| panic!("{what}: no end within {limit:?}, where {IO:?} were allowed for talking"))
}

/// Panics unless the call ended because the store could not be asked.
#[track_caller]
pub(crate) fn assert_unavailable<T: Debug>(what: &str, answer: Result<T>) {
    let _ = outage(what, answer);
}

/// The error of a call that ended because the store could not be asked.
#[track_caller]
pub(crate) fn outage<T: Debug>(what: &str, answer: Result<T>) -> Error {
    match answer {
        Ok(answer) => panic!("{what}: an answer where there can be none: {answer:?}"),
        Err(error) if error.kind() == ErrorKind::Unavailable => error,
        Err(error) => panic!("{what}: an outage is not {:?}: {error:?}", error.kind()),
    }
}

/// Asks until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the store works again; how long that took. Errors that are no outage end the case.
pub(crate) async fn recovery(store: &Shared, key: &Key) -> Duration {
    let begun = Instant::now();
    loop {
        match in_time("asking after an outage", store.load(key, &request())).await {
            Ok(_) => return begun.elapsed(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "after an outage: {error:?}");
                let waited = begun.elapsed();
                assert!(waited < PATIENCE, "the network works, and the store does not recover: {error:?}");
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nothing is under way any more, also nothing that the store does by itself.
pub(crate) async fn quiet<N: Networked>(net: &N, moment: Duration) {
    let mut last = net.proxy().counts();
    loop {
        sleep(moment).await;
        let now = net.proxy().counts();
        if (now.asked, now.replies) == (last.asked, last.replies) {
            return;
        }
        last = now;
    }
}

/// Waits until the store works again.
pub(crate) async fn ready<N: Networked>(net: &N) {
    recovery(&net.store(), &net.key("ready")).await;
}

/// The same question to many at once.
pub(crate) async fn all<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    calls: impl IntoIterator<Item = F>,
) -> Vec<T> {
    let tasks: Vec<JoinHandle<T>> = calls.into_iter().map(|call| tokio::spawn(call)).collect();
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(answer) => answers.push(answer),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    answers
}

/// What is of interest where a run is watched.
#[expect(clippy::print_stdout, reason = "shown only where the test fails or somebody asks for it")]
pub(crate) fn tell(text: &str) {
    println!("{text}");
}

/// A number from the environment, for runs that are longer than ordinary.
pub(crate) fn knob(variable: &str, ordinary: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(ordinary)
}
