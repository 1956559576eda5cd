//! One connection through the proxy: what goes each way, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{End, Shared, State, Way};

/// How much is taken up at once.
const CHUNK: usize = 16 << 10;
/// How many of these are on their way; beyond it, who sends has to wait.
const ON_THE_WAY: usize = 256;
/// How long a side that was told of the end may go on talking.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A connection as the proxy counts it.
pub(super) struct Connection {
    shared: Arc<Shared>,
    id: u64,
    /// Request bytes have come that no reply bytes followed yet.
    asking: AtomicBool,
    /// Bytes that went this way were lost, or those before them: it stays silent.
    silent: [AtomicBool; 2],
}

/// The last bytes of a client, which could be the beginning of a marker that goes on in the next.
#[derive(Default)]
struct Tail {
    watch: u64,
    bytes: Vec<u8>,
}

/// Why a connection ends before both sides have said everything.
enum Verdict {
    /// A cut: the client is reset, the server sees it leave.
    Reset,
    /// A cut: both see the other leave.
    Close,
    /// One side has broken off, or all connections are to be reset.
    Broken,
}

/// What becomes of bytes that are to go on.
enum Pass {
    Go(usize, Option<End>),
    Lost,
}

impl Connection {
    pub(super) fn new(shared: &Arc<Shared>) -> Connection {
        let mut state = shared.open();
        let id = u64::try_from(state.counts.connections).unwrap_or(u64::MAX);
        state.counts.connections += 1;
        state.open.insert(id);
        Connection { shared: Arc::clone(shared), id, asking: AtomicBool::default(), silent: Default::default() }
    }

    /// Returns when the state is as asked for.
    async fn until(&self, reached: impl Fn(&State) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        while !reached(&self.shared.open()) {
            // The sender is part of what we share.
            let _ = changed.changed().await;
        }
    }

    /// Counts bytes that have come from the client.
    fn asked(&self, bytes: &[u8], tail: &mut Tail) {
        let mut state = self.shared.open();
        state.counts.asked += len(bytes.len());
        let begins = !self.asking.swap(true, Ordering::Relaxed);
        if begins && !state.background.as_ref().is_some_and(|background| background(bytes)) {
            state.counts.round_trips += 1;
        }
        if tail.watch != state.watches {
            *tail = Tail { watch: state.watches, bytes: Vec::new() };
        }
        if !state.marker.is_empty() {
            let marker = state.marker.len();
            tail.bytes.extend_from_slice(bytes);
            state.seen += tail.bytes.windows(marker).filter(|part| *part == state.marker).count();
            tail.bytes.drain(..tail.bytes.len().saturating_sub(marker - 1));
        }
    }

    /// Without its requests a server has nothing to reply to.
    fn silence(&self, way: Way) {
        self.silent[Way::Reply.index()].store(true, Ordering::Relaxed);
        if way == Way::Request {
            self.silent[way.index()].store(true, Ordering::Relaxed);
        }
    }

    fn pass(&self, way: Way, length: usize) -> Pass {
        let mut state = self.shared.open();
        if state.swallows[way.index()] {
            self.silence(way);
        }
        if self.silent[way.index()].load(Ordering::Relaxed) {
            return Pass::Lost;
        }
        let (mut go, mut end) = (length, None);
        if let Some(cut) = state.cut.as_mut().filter(|cut| cut.way == way) {
            go = length.min(cut.left);
            cut.left -= go;
            if cut.left == 0 {
                end = Some(cut.end);
                (state.cut, state.has_cut) = (None, true);
            }
        }
        if end == Some(End::Pause) {
            state.paused[way.index()] = true;
        }
        match way {
            Way::Request => state.counts.requests += len(go),
            Way::Reply => state.counts.replies += len(go),
        }
        if go > 0 && way == Way::Reply {
            // Before the client gets them: what it says then is the next round trip.
            self.asking.store(false, Ordering::Relaxed);
        }
        Pass::Go(go, end)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.open().open.remove(&self.id);
        self.shared.ended.notify_all();
    }
}

/// Carries bytes both ways until both sides have said everything, or one of them or an order ends it. The connection is
/// the first parameter, so that it counts as open until its sockets are closed.
pub(super) async fn carry(connection: Connection, mut client: TcpStream, server: SocketAddr) {
    let reset = |state: &State| connection.id < state.oldest;
    let connected = tokio::select! {
        biased;
        () = connection.until(reset) => None,
        server = TcpStream::connect(server) => server.ok(),
    };
    let Some(mut server) = connected else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let verdict = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (requests, replies) = (
            one_way(&connection, Way::Request, from_client, to_server),
            one_way(&connection, Way::Reply, from_server, to_client),
        );
        tokio::select! {
            biased;
            () = connection.until(reset) => Verdict::Broken,
            ended = async { tokio::try_join!(requests, replies) } => match ended {
                Ok(_) => return,
                Err(verdict) => verdict,
            },
        }
    };
    match verdict {
        Verdict::Broken => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
        Verdict::Reset => {
            let _ = client.set_zero_linger();
            drop(client);
            drop(connection);
            leave(server).await;
        }
        Verdict::Close => {
            drop(connection);
            tokio::join!(leave(client), leave(server));
        }
    }
}

/// Says goodbye and hears the other out: bytes that nobody reads would make a reset of it.
async fn leave(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let _ = timeout(LAST_WORDS, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
}

/// Carries bytes one way until there are no more.
async fn one_way(
    connection: &Connection,
    way: Way,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Result<(), Verdict> {
    let (send, mut receive) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let take = async move {
        let (mut buffer, mut tail) = (vec![0; CHUNK], Tail::default());
        loop {
            let length = from.read(&mut buffer).await.map_err(|_| Verdict::Broken)?;
            if length == 0 {
                return Ok(());
            }
            if way == Way::Request {
                connection.asked(&buffer[..length], &mut tail);
            }
            let due = Instant::now() + connection.shared.open().latency[way.index()];
            // The receiver stays until the sender leaves, or both are dropped.
            let _ = send.send((due, buffer[..length].to_vec())).await;
        }
    };
    let give = async {
        while let Some((due, chunk)) = receive.recv().await {
            // A timer is as coarse as a millisecond: what has no latency is not to wait for one.
            if due > Instant::now() {
                sleep_until(due).await;
            }
            give(connection, way, &chunk, &mut to).await?;
        }
        // That somebody has left goes on also where bytes are lost, lest a server keep dead connections for ever.
        connection.until(|state| !state.paused[way.index()]).await;
        let _ = to.shutdown().await;
        Ok(())
    };
    tokio::try_join!(take, give).map(|_| ())
}

/// Lets bytes go on, as far as they may.
async fn give(
    connection: &Connection,
    way: Way,
    chunk: &[u8],
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Verdict> {
    let mut rest = chunk;
    while !rest.is_empty() {
        connection.until(|state| !state.paused[way.index()]).await;
        let Pass::Go(length, end) = connection.pass(way, rest.len()) else { return Ok(()) };
        to.write_all(&rest[..length]).await.map_err(|_| Verdict::Broken)?;
        rest = &rest[length..];
        match end {
            None | Some(End::Pause) => {}
            Some(End::Reset) => return Err(Verdict::Reset),
            Some(End::Close) => return Err(Verdict::Close),
            Some(End::Silence) => {
                connection.silence(Way::Request);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn len(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
