//! A proxy between the store and its server: it counts round trips, and can keep answers back or lose them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What sqlx says to see whether a connection is still there, between one use and the next: PostgreSQL's Sync, MySQL's
/// COM_PING. No request waits for these.
pub(crate) const PINGS: [&[u8]; 2] = [b"S\0\0\0\x04", b"\x01\0\0\0\x0e"];

#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    turns: AtomicUsize,
    connections: AtomicUsize,
    keeps_answers: AtomicBool,
    to_lose: AtomicBool,
}

impl Proxy {
    /// In front of the server in `url`; and the URL that leads through it.
    pub(crate) async fn before(url: &str) -> (Proxy, String) {
        let start = url.find('@').unwrap() + 1;
        let end = start + url[start..].find('/').unwrap();
        let server: SocketAddr = url[start..end].parse().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy { addr: listener.local_addr().unwrap(), state: Arc::default() };
        let state = Arc::clone(&proxy.state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                state.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, server, Arc::clone(&state)));
            }
        });
        let through = format!("{}{}{}", &url[..start], proxy.addr, &url[end..]);
        (proxy, through)
    }

    /// How often the store has waited for an answer since the last call.
    pub(crate) fn turns(&self) -> usize {
        self.state.turns.swap(0, Ordering::SeqCst)
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Questions arrive, and answers wait here for the time being; but those to pings.
    pub(crate) fn keep_answers(&self, keep: bool) {
        self.state.keeps_answers.store(keep, Ordering::SeqCst);
    }

    /// The next question arrives, and instead of its answer the connection breaks; pings are none.
    pub(crate) fn lose_next_answer(&self) {
        self.state.to_lose.store(true, Ordering::SeqCst);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (answered, pinged) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (asking, pinging, counting) = (Arc::clone(&answered), Arc::clone(&pinged), Arc::clone(&state));
    let there = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            let ping = PINGS.contains(&&buffer[..length]);
            pinging.store(ping, Ordering::SeqCst);
            if asking.swap(false, Ordering::SeqCst) && !ping {
                counting.turns.fetch_add(1, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        let ping = pinged.load(Ordering::SeqCst);
        if !ping && state.to_lose.swap(false, Ordering::SeqCst) {
            break;
        }
        while state.keeps_answers.load(Ordering::SeqCst) && !ping {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answered.store(true, Ordering::SeqCst);
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    there.abort();
}
