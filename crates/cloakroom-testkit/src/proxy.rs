//! A network that breaks on demand: a TCP proxy in front of any server.
//!
//! Everything can be changed at any time, also in the midst of a reply. The proxy has a thread of its own, so that it works on
//! while the test, or what is tested, blocks.

mod carry;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc as orders, watch};

use self::carry::{Connection, carry};
use crate::error::{Doing, Result};

/// Whether these bytes of a client are work that goes on behind the test's back.
type IsBackground = Box<dyn Fn(&[u8]) -> bool + Send>;

/// How many may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A proxy for one server. Dropping it ends its connections and closes its port.
///
/// ```
/// use cloakroom_testkit::proxy::{End, Proxy, Way};
/// # let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
/// # let server_addr = server.local_addr().unwrap();
/// let proxy = Proxy::before(server_addr).unwrap();
/// // What is tested connects to `proxy.addr()`. Its next question arrives; of the answer it gets four bytes.
/// proxy.cut(Way::Reply, 4, End::Reset);
/// ```
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    orders: Option<orders::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Request,
    /// From the server to the client.
    Reply,
}

/// How a [cut](Proxy::cut) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client's connection is reset. The server sees the client leave, after what has arrived.
    Reset,
    /// The client's connection is closed, as by a server that ends. The server sees the client leave.
    Close,
    /// The connection stays open, and neither side hears of the other any more.
    Silence,
    /// What follows waits, here and on all other connections, until [`resume`](Proxy::resume).
    Pause,
}

/// What has come through so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: usize,
    /// Those that are open.
    pub open: usize,
    /// How often the client had to wait for the server: request bytes that are the first on their connection, or that
    /// arrive after reply bytes have gone to the client since the last request bytes there. Requests sent together, before
    /// the reply to the first of them came, are one.
    pub round_trips: usize,
    /// Bytes that arrived from clients, those included that were lost then.
    pub asked: u64,
    /// Bytes that went on to the server.
    pub requests: u64,
    /// Bytes that went on to clients.
    pub replies: u64,
}

/// What the tasks of the proxy share with its owner.
struct Shared {
    state: Mutex<State>,
    /// A connection has ended.
    ended: Condvar,
    /// Tells the tasks to look at the state again.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    latency: [Duration; 2],
    paused: [bool; 2],
    swallows: [bool; 2],
    cut: Option<Cut>,
    has_cut: bool,
    /// Connections with a lower number are to be reset.
    oldest: u64,
    open: BTreeSet<u64>,
    counts: Counts,
    background: Option<IsBackground>,
    marker: Vec<u8>,
    /// How many markers there have been.
    watches: u64,
    seen: usize,
}

struct Cut {
    way: Way,
    left: usize,
    end: End,
}

/// What the thread does by itself; the rest is state. Answered when it is done.
enum Order {
    Refuse(mpsc::Sender<()>),
    Accept(mpsc::Sender<bool>),
}

impl Proxy {
    /// A proxy on a free port of this machine. The server need not be there yet; who comes while it is not is reset.
    pub fn before(server: SocketAddr) -> Result<Proxy> {
        let doing = || format!("starting a proxy before {server}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().doing(doing)?;
        let (port, listener) = {
            let _entered = runtime.enter();
            let port = socket((Ipv4Addr::LOCALHOST, 0).into()).doing(doing)?;
            let addr = port.local_addr().doing(doing)?;
            (port, listen(addr).doing(doing)?)
        };
        let addr = listener.local_addr().doing(doing)?;
        let shared =
            Arc::new(Shared { state: Mutex::default(), ended: Condvar::new(), changed: watch::Sender::new(()) });
        let (send, receive) = orders::unbounded_channel();
        let serve = serve(server, addr, listener, Arc::clone(&shared), receive);
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            runtime.block_on(serve);
            // Bound but deaf, it keeps the port for us while nobody listens there.
            drop(port);
        });
        Ok(Proxy { addr, shared, orders: Some(send), thread: Some(thread.doing(doing)?) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets what goes this way be so long on its way, beginning with what arrives now. It does not become slower: bytes
    /// that are on their way together arrive together.
    pub fn delay(&self, way: Way, latency: Duration) {
        self.shared.change(|state| state.latency[way.index()] = latency);
    }

    /// Lets what goes this way wait until [`resume`](Proxy::resume).
    pub fn pause(&self, way: Way) {
        self.shared.change(|state| state.paused[way.index()] = true);
    }

    /// Ends [`pause`](Proxy::pause) both ways. Nothing was lost.
    pub fn resume(&self) {
        self.shared.change(|state| state.paused = [false; 2]);
    }

    /// A black hole: connections are accepted, and all bytes are lost. A connection that has lost bytes of a request stays
    /// silent both ways for ever, also after [`heal`](Proxy::heal); one that was idle works again then.
    pub fn swallow_all(&self) {
        self.shared.change(|state| state.swallows = [true; 2]);
    }

    /// Requests arrive, and replies are lost. A connection that has lost bytes of a reply never carries any again; one
    /// that has not works after [`heal`](Proxy::heal).
    pub fn swallow_replies(&self) {
        self.shared.change(|state| state.swallows[Way::Reply.index()] = true);
    }

    /// Lets exactly so many bytes more go this way, on all connections together, and then does `end` to the connection
    /// on which that happens: at once behind the last of them, or when the next byte comes where there are none to go.
    /// This happens once.
    pub fn cut(&self, way: Way, after: usize, end: End) {
        self.shared.change(|state| {
            state.cut = Some(Cut { way, left: after, end });
            state.has_cut = false;
        });
    }

    /// Whether the last [`cut`](Proxy::cut) has happened.
    pub fn has_cut(&self) -> bool {
        self.shared.open().has_cut
    }

    /// Resets all connections, and returns when that is done.
    pub fn reset(&self) {
        let end = {
            let mut state = self.shared.open();
            state.oldest = u64::try_from(state.counts.connections).unwrap_or(u64::MAX);
            state.oldest
        };
        self.shared.changed.send_replace(());
        let mut state = self.shared.open();
        while state.open.first().is_some_and(|id| *id < end) {
            state = self.shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Closes the port and resets all connections: whoever connects is refused, until [`heal`](Proxy::heal). The system
    /// gives the port to nobody else meanwhile.
    pub fn refuse(&self) {
        let (done, wait) = mpsc::channel();
        if self.order(Order::Refuse(done)) {
            let _ = wait.recv();
        }
        self.reset();
    }

    /// Ends everything that was ordered. What was paused goes on; connections that have lost bytes stay as they are.
    pub fn heal(&self) {
        self.shared.change(|state| {
            (state.latency, state.paused, state.swallows) = Default::default();
            state.cut = None;
        });
        let (done, wait) = mpsc::channel();
        let open = self.order(Order::Accept(done)) && wait.recv().unwrap_or(false);
        assert!(open, "the proxy cannot listen on its own port any more");
    }

    /// What has come through so far.
    pub fn counts(&self) -> Counts {
        let state = self.shared.open();
        Counts { open: state.open.len(), ..state.counts }
    }

    /// Does not count round trips that begin with such bytes: what a client says by itself, while no request waits for it.
    pub fn leave_out(&self, background: impl Fn(&[u8]) -> bool + Send + 'static) {
        self.shared.change(|state| state.background = Some(Box::new(background)));
    }

    /// Counts how often these bytes are in what clients send, beginning now.
    pub fn watch(&self, marker: impl Into<Vec<u8>>) {
        let marker = marker.into();
        self.shared.change(|state| (state.marker, state.watches, state.seen) = (marker, state.watches + 1, 0));
    }

    /// How often the bytes of the last [`watch`](Proxy::watch) were there.
    pub fn seen(&self) -> usize {
        self.shared.open().seen
    }

    fn order(&self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders.take();
        if let Some(thread) = self.thread.take() {
            // It ends with its runtime, and that with all connections.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("addr", &self.addr).field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Way {
    fn index(self) -> usize {
        match self {
            Way::Request => 0,
            Way::Reply => 1,
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.open());
        self.changed.send_replace(());
    }
}

/// Accepts connections and does orders, until the sender of orders is gone.
async fn serve(
    server: SocketAddr,
    addr: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    mut orders: orders::UnboundedReceiver<Order>,
) {
    let mut listener = Some(listener);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Refuse(done)) => {
                    listener = None;
                    let _ = done.send(());
                }
                Some(Order::Accept(done)) => {
                    if listener.is_none() {
                        listener = listen(addr).ok();
                    }
                    let _ = done.send(listener.is_some());
                }
                None => return,
            },
            client = accept(listener.as_ref()) => {
                let connection = Connection::new(&shared);
                tokio::spawn(carry(connection, client, server));
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((client, _)) => return client,
            // Out of file descriptors, for one: a moment later there may be some.
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn socket(addr: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    socket(addr)?.listen(BACKLOG)
}
