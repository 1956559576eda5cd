//! Work that outlives whoever began it, counted so that a shutdown can wait for it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};

/// Counts work that goes on when the request that began it is over. Clones count together.
///
/// For authors of stores: a lock that a dropped lease gives back in a task of its own is such work, and
/// [`Store::settle`](crate::Store::settle) waits for it.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Count>);

#[derive(Default)]
struct Count {
    running: AtomicUsize,
    ended: Notify,
}

/// One piece of work that is under way, until this is dropped.
#[must_use = "what is to be waited for is over when this is dropped"]
pub struct Task(Arc<Count>);

impl Tasks {
    /// Counts a piece of work until what is returned is dropped.
    pub fn begin(&self) -> Task {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        Task(Arc::clone(&self.0))
    }

    /// Starts work that runs to its end, and counts it until what it gave has been taken or dropped. It is no longer
    /// counted if `runtime` ends first.
    pub fn spawn<T: Send + 'static>(
        &self,
        runtime: &Handle,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Running<T> {
        let task = self.begin();
        Running(runtime.spawn(async move { (work.await, task) }))
    }

    /// Waits until nothing that is counted is under way.
    pub async fn ended(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.0.running.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// What [`Tasks::spawn`] has started; to be awaited, or dropped, which does not stop it.
pub struct Running<T>(JoinHandle<(T, Task)>);

impl<T> Future for Running<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_ok(|(done, _)| done)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({} running)", self.0.running.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

impl<T> fmt::Debug for Running<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_waited_for() {
        let (tasks, begun) = (Tasks::default(), Instant::now());
        tasks.ended().await;
        assert!(begun.elapsed().is_zero());
        let shared = tasks.clone();
        drop(tasks.spawn(&Handle::current(), async move {
            sleep(Duration::from_secs(1)).await;
            drop(shared.spawn(&Handle::current(), sleep(Duration::from_secs(1))));
        }));
        tasks.ended().await;
        assert_eq!(begun.elapsed().as_secs(), 2);
    }

    /// What is dropped with it may begin more.
    #[tokio::test(start_paused = true)]
    async fn what_the_work_gave_belongs_to_it() {
        struct More(Tasks);
        impl Drop for More {
            fn drop(&mut self) {
                drop(self.0.spawn(&Handle::current(), sleep(Duration::from_secs(1))));
            }
        }
        let (tasks, begun) = (Tasks::default(), Instant::now());
        let more = More(tasks.clone());
        drop(tasks.spawn(&Handle::current(), async move { more }));
        tasks.ended().await;
        assert_eq!(begun.elapsed().as_secs(), 1);
    }

    #[test]
    fn a_runtime_that_ends_ends_its_work() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let tasks = Tasks::default();
        drop(tasks.spawn(runtime.handle(), std::future::pending::<()>()));
        drop(runtime);
        tokio::runtime::Runtime::new().unwrap().block_on(tasks.ended());
    }
}
