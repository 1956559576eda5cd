//! Something between the store and its server: it delays, cuts, swallows, and counts round trips.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::util::prefix;

/// A proxy for one server. Its connections end with it.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    /// For whoever goes through it.
    pub(crate) prefix: String,
    rules: Arc<Rules>,
    tasks: Arc<Mutex<Vec<AbortHandle>>>,
}

#[derive(Default)]
struct Rules {
    /// Before an answer goes on.
    delay: AtomicU64,
    /// How many bytes of answers go on before all connections are cut; 0 is without end.
    left: AtomicUsize,
    cutting: AtomicBool,
    cut: Notify,
    /// Answers do not come back, questions do go on.
    swallow: AtomicBool,
    /// Turns of talk from us to the server.
    flights: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn new(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (rules, tasks) = (Arc::new(Rules::default()), Arc::new(Mutex::new(Vec::new())));
        let accept = {
            let (rules, tasks) = (Arc::clone(&rules), Arc::clone(&tasks));
            tokio::spawn(async move {
                while let Ok((here, _)) = listener.accept().await {
                    let task = tokio::spawn(run(here, server, Arc::clone(&rules)));
                    tasks.lock().unwrap().push(task.abort_handle());
                }
            })
        };
        tasks.lock().unwrap().push(accept.abort_handle());
        Proxy { addr, prefix: prefix(), rules, tasks }
    }

    /// How long each answer takes from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.rules.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Cuts all connections after so many bytes of answers, of all connections together.
    pub(crate) fn cut_after(&self, bytes: usize) {
        self.rules.left.store(bytes, Ordering::SeqCst);
        self.rules.cutting.store(true, Ordering::SeqCst);
    }

    /// Whether that has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.rules.left.load(Ordering::SeqCst) == 0
    }

    /// Connections work from now on.
    pub(crate) fn heal(&self) {
        self.rules.cutting.store(false, Ordering::SeqCst);
        self.rules.swallow.store(false, Ordering::SeqCst);
        self.delay(Duration::ZERO);
    }

    /// Keeps answers back, as a network does that works in one direction only.
    pub(crate) fn swallow(&self) {
        self.rules.swallow.store(true, Ordering::SeqCst);
    }

    /// Round trips since this was last asked.
    pub(crate) fn flights(&self) -> usize {
        self.rules.flights.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap().iter() {
            task.abort();
        }
    }
}

async fn run(mut here: TcpStream, server: SocketAddr, rules: Arc<Rules>) {
    let Ok(mut there) = TcpStream::connect(server).await else { return };
    here.set_nodelay(true).unwrap();
    there.set_nodelay(true).unwrap();
    let (mut question, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut asking = false;
    loop {
        tokio::select! {
            () = rules.cut.notified() => return,
            read = here.read(&mut question) => {
                let Ok(length @ 1..) = read else { return };
                if !std::mem::replace(&mut asking, true) {
                    rules.flights.fetch_add(1, Ordering::SeqCst);
                }
                if there.write_all(&question[..length]).await.is_err() {
                    return;
                }
            }
            read = there.read(&mut answer) => {
                let Ok(mut length @ 1..) = read else { return };
                asking = false;
                sleep(Duration::from_millis(rules.delay.load(Ordering::SeqCst))).await;
                if rules.swallow.load(Ordering::SeqCst) {
                    continue;
                }
                let mut cut = false;
                if rules.cutting.load(Ordering::SeqCst) {
                    let take = |left: usize| Some(left.saturating_sub(length));
                    let left = rules.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).unwrap();
                    cut = left <= length;
                    length = length.min(left);
                }
                if here.write_all(&answer[..length]).await.is_err() || cut {
                    rules.cut.notify_waiters();
                    return;
                }
            }
        }
    }
}

/// How many answers that take this long somebody waits for, one after the other.
pub(crate) async fn round_trips<T>(delay: Duration, work: impl Future<Output = T>) -> (usize, T) {
    let begun = Instant::now();
    let done = work.await;
    let trips = begun.elapsed().as_millis() / delay.as_millis();
    (usize::try_from(trips).unwrap(), done)
}
