//! A store that counts its calls, and fails, stalls or stops at chosen ones.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::store::{Capabilities, Claim, Expect, List, Locked, Outcome, Put, Record, Swept};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store};
use tokio::sync::oneshot;

/// Another store, with calls counted and faults to order. All clones share both.
///
/// ```
/// use cloakroom_core::{Deadline, ErrorKind, Key, Store};
/// use cloakroom_testkit::faulty::{Calls, Fault, Faulty, Op};
/// use cloakroom_store_memory::MemoryStore;
/// # use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let store = Faulty::new(MemoryStore::default());
/// store.fail_at(Op::Load, 2, Fault::Unavailable);
/// let (key, deadline) = (Key::from_bytes(*b"abc"), Deadline::new(Duration::from_secs(1), Duration::from_secs(1)));
/// assert!(store.load(&key, &deadline).await.unwrap().is_none());
/// assert_eq!(store.load(&key, &deadline).await.unwrap_err().kind(), ErrorKind::Unavailable);
/// assert_eq!(store.calls(), Calls { loads: 2, ..Calls::default() });
/// # });
/// ```
pub struct Faulty<S> {
    store: Arc<S>,
    plan: Arc<Mutex<Plan>>,
}

/// What can be counted and can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Whichever call can fail.
    Any,
    /// [`Store::load`].
    Load,
    /// [`Store::lock`].
    Lock,
    /// [`Store::commit`], whatever it puts.
    Commit,
    /// A commit of a payload.
    Write,
    /// A commit that extends life.
    Touch,
    /// A commit that removes.
    Remove,
    /// A commit that sets aside.
    SetAside,
    /// [`Store::sweep`].
    Sweep,
    /// [`Store::settle`], which cannot fail but may take its time; it is not counted.
    Settle,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The call fails before anything was done.
    Unavailable,
    /// The same with an error of this kind.
    Error(ErrorKind),
    /// The call is carried out and fails nevertheless; a commit's error says that it may have been applied. A lock
    /// that was taken is given back.
    LostReply,
    /// The store answers nothing for so long and then carries the call out; a call whose time for talking is over by
    /// then fails and is not carried out.
    Stall(Duration),
    /// The call is carried out, and its answer takes so long; beyond the time for talking it is lost.
    Late(Duration),
}

/// How many calls there were of each kind, failed ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Loads.
    pub loads: usize,
    /// Locks.
    pub locks: usize,
    /// Commits of a payload.
    pub writes: usize,
    /// Commits that extend life.
    pub touches: usize,
    /// Commits that remove.
    pub removes: usize,
    /// Commits that set aside.
    pub asides: usize,
    /// Sweeps.
    pub sweeps: usize,
}

impl Calls {
    /// All of them together: round trips, where each call is one.
    pub fn total(&self) -> usize {
        let Calls { loads, locks, writes, touches, removes, asides, sweeps } = self;
        loads + locks + writes + touches + removes + asides + sweeps
    }
}

/// A call that stands still before it is carried out, until the gate is opened or dropped.
#[derive(Debug)]
pub struct Gate {
    arrived: Option<oneshot::Receiver<()>>,
    _closed: oneshot::Sender<()>,
}

impl Gate {
    /// Waits for the call to arrive. Waits for ever if there is none.
    pub async fn arrived(&mut self) {
        if let Some(arrived) = self.arrived.take()
            && arrived.await.is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Lets the call go on; so does dropping the gate.
    pub fn open(self) {}
}

#[derive(Default)]
struct Plan {
    calls: Calls,
    orders: Vec<Order>,
}

struct Order {
    op: Op,
    /// How many calls of the kind have to come before it; `None` is for all of them.
    after: Option<usize>,
    action: Action,
}

enum Action {
    Fault(Fault),
    Stop { arrived: oneshot::Sender<()>, opened: oneshot::Receiver<()> },
}

impl<S: Store> Faulty<S> {
    /// A store without faults, so far.
    pub fn new(store: S) -> Faulty<S> {
        Faulty { store: Arc::new(store), plan: Arc::default() }
    }

    /// The store inside, whose calls are not counted and never fail.
    pub fn inner(&self) -> &S {
        &self.store
    }

    /// How many calls there were since the last [`reset`](Faulty::reset).
    pub fn calls(&self) -> Calls {
        self.plan().calls
    }

    /// Begins to count anew; orders stay.
    pub fn reset(&self) {
        self.plan().calls = Calls::default();
    }

    /// Orders a fault for the `nth` call of a kind from now on; the next one is the first.
    pub fn fail_at(&self, op: Op, nth: usize, fault: Fault) {
        self.order(op, Some(nth), Action::Fault(fault));
    }

    /// Orders a fault for every call of a kind, until [`heal`](Faulty::heal).
    pub fn fail_always(&self, op: Op, fault: Fault) {
        self.order(op, None, Action::Fault(fault));
    }

    /// Makes the `nth` call of a kind stand still before it is carried out: for what is to happen just then.
    #[must_use = "dropping the gate opens it"]
    pub fn stop_at(&self, op: Op, nth: usize) -> Gate {
        let ((arrive, arrived), (closed, opened)) = (oneshot::channel(), oneshot::channel());
        self.order(op, Some(nth), Action::Stop { arrived: arrive, opened });
        Gate { arrived: Some(arrived), _closed: closed }
    }

    /// Forgets all orders.
    pub fn heal(&self) {
        self.plan().orders.clear();
    }

    fn order(&self, op: Op, nth: Option<usize>, action: Action) {
        self.plan().orders.push(Order { op, after: nth.map(|nth| nth.saturating_sub(1)), action });
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, and does what was ordered for the time before it. What is left is for the time after it.
    async fn before(&self, op: Op, deadline: Option<&Deadline>) -> Result<Option<Fault>> {
        let action = self.plan().call(op);
        match action {
            None => Ok(None),
            Some(Action::Stop { arrived, opened }) => {
                let _ = arrived.send(());
                let _ = opened.await;
                Ok(None)
            }
            Some(Action::Fault(Fault::Unavailable)) => Err(Error::unavailable("reach the store, as was ordered")),
            Some(Action::Fault(Fault::Error(kind))) => Err(Error::new(kind, "do what was to fail, as was ordered")),
            Some(Action::Fault(Fault::Stall(time))) => sleep(time, deadline).await.map(|()| None),
            Some(Action::Fault(fault @ (Fault::LostReply | Fault::Late(_)))) => Ok(Some(fault)),
        }
    }
}

/// What was ordered for the time after a call.
async fn after(fault: Option<Fault>, deadline: Option<&Deadline>) -> Result<()> {
    match fault {
        Some(Fault::LostReply) => Err(Error::unavailable("hear from the store, as was ordered")),
        Some(Fault::Late(time)) => sleep(time, deadline).await,
        _ => Ok(()),
    }
}

async fn sleep(time: Duration, deadline: Option<&Deadline>) -> Result<()> {
    let sleep = tokio::time::sleep(time);
    let Some(deadline) = deadline else {
        sleep.await;
        return Ok(());
    };
    deadline.io(sleep).await
}

impl Plan {
    fn call(&mut self, op: Op) -> Option<Action> {
        match op {
            Op::Load => self.calls.loads += 1,
            Op::Lock => self.calls.locks += 1,
            Op::Write => self.calls.writes += 1,
            Op::Touch => self.calls.touches += 1,
            Op::Remove => self.calls.removes += 1,
            Op::SetAside => self.calls.asides += 1,
            Op::Sweep => self.calls.sweeps += 1,
            Op::Any | Op::Commit | Op::Settle => {}
        }
        let mut due = None;
        for (index, order) in self.orders.iter_mut().enumerate().filter(|(_, order)| order.op.covers(op)) {
            match &mut order.after {
                Some(0) | None => due = due.or(Some(index)),
                Some(after) => *after -= 1,
            }
        }
        let index = due?;
        match &self.orders[index] {
            Order { after: None, action: Action::Fault(fault), .. } => Some(Action::Fault(*fault)),
            _ => Some(self.orders.remove(index).action),
        }
    }
}

impl Op {
    fn of(put: &Put) -> Op {
        match put {
            Put::Payload(_) => Op::Write,
            Put::Touch(_) => Op::Touch,
            Put::Remove => Op::Remove,
            Put::SetAside => Op::SetAside,
            _ => Op::Commit,
        }
    }

    fn covers(self, op: Op) -> bool {
        match self {
            Op::Any => op != Op::Settle,
            Op::Commit => matches!(op, Op::Commit | Op::Write | Op::Touch | Op::Remove | Op::SetAside),
            only => only == op,
        }
    }
}

impl<S> Clone for Faulty<S> {
    fn clone(&self) -> Faulty<S> {
        Faulty { store: Arc::clone(&self.store), plan: Arc::clone(&self.plan) }
    }
}

impl<S: fmt::Debug> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.store).finish()
    }
}

impl<S: Store> Store for Faulty<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        let fault = self.before(Op::Load, Some(deadline)).await?;
        let record = self.store.load(key, deadline).await?;
        after(fault, Some(deadline)).await?;
        Ok(record)
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        let fault = self.before(Op::Lock, Some(deadline)).await?;
        let locked = self.store.lock(key, claim, deadline).await?;
        after(fault, Some(deadline)).await?;
        Ok(locked)
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let fault = self.before(Op::of(&put), Some(deadline)).await?;
        let outcome = self.store.commit(key, expect, put, deadline).await?;
        after(fault, Some(deadline)).await.map_err(Error::or_maybe_applied)?;
        Ok(outcome)
    }

    async fn sweep(&self, step: usize) -> Result<Swept> {
        let fault = self.before(Op::Sweep, None).await?;
        let swept = self.store.sweep(step).await?;
        after(fault, None).await?;
        Ok(swept)
    }

    async fn settle(&self) {
        // Only what takes its time means anything here.
        let _ = self.before(Op::Settle, None).await;
        self.store.settle().await;
    }

    fn as_list(&self) -> Option<&dyn List> {
        self.store.as_list()
    }
}
