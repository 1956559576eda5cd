//! One server and the connections to it.
//!
//! A connection is lent to one exchange at a time. It comes back when every answer has been read; an exchange that is
//! dropped, fails or takes too long drops its connection, which closes it.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cloakroom_core::{Deadline, Error, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Address;
use crate::wire::{Answer, Conn, Facts, Flight};

/// What `item_size_max` is until the server has told.
const ITEM_SIZE_MAX: u64 = 1 << 20;

/// A server.
pub(crate) struct Server {
    address: Address,
    idle: Mutex<Vec<Conn>>,
    room: Semaphore,
    item_size_max: AtomicU64,
}

/// Answers, and which life of the server they come from.
pub(crate) struct Reply {
    pub(crate) answers: Vec<Answer>,
    pub(crate) life: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Error,
    /// Whether the server may have carried the commands out all the same.
    pub(crate) sent: bool,
    /// The server is not the one any more for which they were meant.
    pub(crate) restarted: bool,
}

impl Failure {
    /// The error of an exchange that changes nothing.
    pub(crate) fn of_read(self) -> Error {
        self.error
    }

    /// The error of one that does.
    pub(crate) fn of_write(self) -> Error {
        if self.sent { self.error.or_maybe_applied() } else { self.error }
    }
}

impl Server {
    pub(crate) fn new(address: Address, connections: usize) -> Server {
        let room = Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS));
        Server { address, idle: Mutex::default(), room, item_size_max: AtomicU64::new(ITEM_SIZE_MAX) }
    }

    /// What the server last said about its largest item.
    pub(crate) fn item_size_max(&self) -> u64 {
        self.item_size_max.load(Ordering::Relaxed)
    }

    /// Asks what changes nothing. Where a connection turns out to be dead, another one is asked once more.
    pub(crate) async fn read(&self, flight: impl Fn() -> Flight, deadline: &Deadline) -> Result<Reply> {
        match self.write(|_| Some(flight()), deadline).await {
            Err(failure) if failure.sent && !deadline.io_left().is_zero() => {
                self.disconnect();
                self.write(|_| Some(flight()), deadline).await
            }
            answered => answered,
        }
        .map_err(Failure::of_read)
    }

    /// Asks what may change something, once. `flight` is made for the server as the connection found it; `None` says
    /// that it must not be sent to this life of the server.
    pub(crate) async fn write(
        &self,
        flight: impl FnOnce(&Facts) -> Option<Flight>,
        deadline: &Deadline,
    ) -> Result<Reply, Failure> {
        let (mut sent, mut restarted) = (false, false);
        let exchange = async {
            let (mut conn, permit) = self.lend().await?;
            let Some(flight) = flight(&conn.facts) else {
                restarted = true;
                self.open().push(conn);
                return Err(io::Error::other("it was restarted meanwhile"));
            };
            sent = true;
            let answers = conn.exchange(&flight).await?;
            let life = conn.facts.life;
            self.open().push(conn);
            drop(permit);
            Ok(Reply { answers, life })
        };
        let error = match deadline.io(exchange).await {
            Ok(Ok(reply)) => return Ok(reply),
            // An error of the operating system holds no secrets: neither keys nor values get there.
            Ok(Err(source)) => {
                Error::unavailable(format!("talk to the Memcached server {}", self.address)).with_source(source)
            }
            Err(error) => error,
        };
        Err(Failure { error, sent, restarted })
    }

    /// Gives up the connections that nobody uses right now.
    pub(crate) fn disconnect(&self) {
        self.open().clear();
    }

    /// Makes sure that the server is there, and learns what it says of itself.
    pub(crate) async fn greet(&self, deadline: &Deadline) -> Result<(), Failure> {
        self.write(|_| Some(Flight::default()), deadline).await.map(|_| ())
    }

    async fn lend(&self) -> io::Result<(Conn, SemaphorePermit<'_>)> {
        let permit = self.room.acquire().await.map_err(io::Error::other)?;
        // Those that died while they lay idle are closed here.
        while let Some(conn) = self.take_idle() {
            if conn.is_alive() {
                return Ok((conn, permit));
            }
        }
        let conn = Conn::open(&self.address).await?;
        self.item_size_max.store(conn.facts.item_size_max, Ordering::Relaxed);
        Ok((conn, permit))
    }

    fn take_idle(&self) -> Option<Conn> {
        self.open().pop()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.address)
    }
}
