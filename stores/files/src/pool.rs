//! Threads that do nothing but wait in `flock`.
//!
//! PHP's workers wait there too (`ps_files_open`), and whoever only tries now and then starves beside them. The
//! threads belong to the whole process, are started on demand and end when they have had nothing to do for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(10);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static STATE: Mutex<State> = Mutex::new(State { jobs: VecDeque::new(), threads: 0, idle: 0 });
static WORK: Condvar = Condvar::new();

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `job` on a thread of its own; gives it back if there are `limit` already and all of them wait.
pub(crate) fn submit(job: Job, limit: usize) -> Result<(), Job> {
    let mut state = state();
    if state.idle > state.jobs.len() {
        state.jobs.push_back(job);
        WORK.notify_one();
        return Ok(());
    }
    if state.threads >= limit {
        return Err(job);
    }
    state.threads += 1;
    drop(state);
    // The job reaches its thread by a slot, so that it can be taken back if no thread comes.
    let slot = Arc::new(Mutex::new(Some(job)));
    let take = |slot: &Mutex<Option<Job>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let theirs = Arc::clone(&slot);
    let thread = std::thread::Builder::new().name("cloakroom-flock".into()).stack_size(128 * 1024);
    let spawned = thread.spawn(move || {
        if let Some(job) = take(&theirs) {
            job();
        }
        work();
    });
    if spawned.is_ok() {
        return Ok(());
    }
    self::state().threads -= 1;
    take(&slot).map_or(Ok(()), Err)
}

fn work() {
    let mut state = state();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = self::state();
            continue;
        }
        state.idle += 1;
        let (back, timeout) = WORK.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = back;
        state.idle -= 1;
        if timeout.timed_out() && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}
