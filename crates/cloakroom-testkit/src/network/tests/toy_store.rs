//! A store on the toy server that does everything right, unless it has a [`Flaw`].

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::line::{Head, Lines, pauses};
use cloakroom_core::store::{
    BoxFuture, Capabilities, Claim, Expect, Lease, Locked, Outcome, Payload, Put, Record, Swept, Version,
};
use cloakroom_core::{Deadline, Error, Key, Result, Store};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// For how long a lock lives that nobody gives back.
pub(super) const LOCK_LIFE: Duration = Duration::from_millis(1500);
/// How many connections there are at the most.
const MOST: usize = 32;

/// What can be wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Sends a commit again whose reply was lost.
    RetriesBlindly,
    /// Uses a connection again whose reply nobody has read.
    MixesReplies,
    /// The same, but only where a call was dropped.
    MixesDroppedReplies,
    TakesErrorsForAbsent,
    /// Says of no error that a change may have been applied.
    ForgetsDoubt,
    /// Says it of every error of a commit.
    DoubtsEverything,
    /// Says it of reads, too.
    DoubtsReads,
    NeverRecovers,
    /// Waits for some seconds after each failure before it connects again.
    RecoversLate,
    /// Waits for replies without a limit.
    Hangs,
    /// Waits for its turn without a limit.
    OneAtATime,
    /// Does not give back a lock whose reply was lost, and has asked for it for very long.
    KeepsLocks,
    /// Keeps its place in line when taking a lock fails.
    KeepsPlaces,
    /// Does not give back the lock of a lease that is dropped or released, and has asked for it for very long.
    KeepsLeases,
    /// Takes a reply that breaks off for the whole of it.
    BelievesPieces,
    /// Loses a place in its pool with each call that is dropped.
    LosesPlaces,
    /// Asks whether a connection is well after each call, without a limit, and keeps its place meanwhile.
    LooksBack,
    /// Asks whether the server is there before each call.
    AsksTwice,
    /// Does not tell how long records live.
    TellsNoLife,
    /// Lets who lost its lock write.
    WritesWithoutItsLock,
    /// Gives an empty record under a lock whose reply could not be read.
    BeginsAnew,
    /// Panics at a reply that breaks off.
    Panics,
    /// An outage is a wrong setup.
    BlamesTheSetup,
}

#[derive(Clone)]
pub(super) struct ToyStore(Arc<Inner>);

struct Inner {
    addr: SocketAddr,
    flaw: Option<Flaw>,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
    lines: Lines,
    tokens: AtomicU64,
    places: Arc<Semaphore>,
    turn: tokio::sync::Mutex<()>,
    broken: AtomicBool,
    failed: Mutex<Option<Instant>>,
}

/// A reply: its words, without the length, and its bytes.
struct Reply(Vec<String>, Bytes);

/// Whether the request may have reached the server.
struct Failure(Error, bool);

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        failure.0
    }
}

/// A connection in use. It is closed when it is dropped, but for the flaws.
struct Line<'a> {
    stream: Option<BufReader<TcpStream>>,
    inner: &'a Inner,
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if let (true, Some(stream)) = (self.inner.has(Flaw::MixesDroppedReplies), self.stream.take()) {
            self.inner.idle.lock().unwrap().push(stream);
        }
    }
}

impl Inner {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// An idle connection that is alive, or a new one.
    async fn connect(&self) -> std::io::Result<BufReader<TcpStream>> {
        loop {
            let idle = self.idle.lock().unwrap().pop();
            let Some(stream) = idle else { break };
            let careless = [Flaw::MixesReplies, Flaw::MixesDroppedReplies].map(|flaw| self.has(flaw)).contains(&true);
            // Bytes that nobody asked for are as bad as an end.
            let silent = stream
                .get_ref()
                .try_read(&mut [0; 1])
                .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            if silent || careless {
                return Ok(stream);
            }
        }
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        Ok(BufReader::new(stream))
    }

    /// One exchange. The connection is kept only if the reply was read to its end.
    async fn exchange(&self, message: &[u8], sent: &AtomicBool) -> std::io::Result<Reply> {
        let mut line = Line { stream: Some(self.connect().await?), inner: self };
        sent.store(true, Ordering::SeqCst);
        let stream = line.stream.as_mut().unwrap();
        let talk = async {
            stream.get_mut().write_all(message).await?;
            let (mut head, mut body) = (String::new(), Vec::new());
            stream.read_line(&mut head).await?;
            let broken = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            if self.has(Flaw::Panics) {
                assert!(head.ends_with('\n'), "a toy that panics");
            }
            let mut words: Vec<String> = head.split_whitespace().map(str::to_owned).collect();
            if self.has(Flaw::BelievesPieces) && head.ends_with('\n') {
                let length: u64 = words.pop().and_then(|word| word.parse().ok()).unwrap_or(0);
                let _ = stream.take(length).read_to_end(&mut body).await;
                return Ok(Reply(words, body.into()));
            }
            if !head.ends_with('\n') {
                return Err(broken());
            }
            let length = words.pop().and_then(|word| word.parse().ok()).ok_or_else(broken)?;
            body.resize(length, 0);
            stream.read_exact(&mut body).await?;
            Ok(Reply(words, body.into()))
        };
        let reply = talk.await;
        let stream = line.stream.take().unwrap();
        if reply.is_ok() {
            self.idle.lock().unwrap().push(stream);
        }
        reply
    }

    /// One exchange within the deadline.
    async fn ask(self: &Arc<Self>, message: Vec<u8>, deadline: &Deadline) -> Result<Reply, Failure> {
        if self.has(Flaw::NeverRecovers) && self.broken.load(Ordering::SeqCst) {
            return Err(Failure(Error::unavailable("the connection is broken"), false));
        }
        if self.has(Flaw::RecoversLate)
            && self.failed.lock().unwrap().is_some_and(|failed| failed.elapsed() < Duration::from_secs(2))
        {
            return Err(Failure(Error::unavailable("it failed a moment ago"), false));
        }
        let _turn = if self.has(Flaw::OneAtATime) { Some(self.turn.lock().await) } else { None };
        let sent = AtomicBool::new(false);
        let answer = if self.has(Flaw::Hangs) {
            Ok(self.exchange(&message, &sent).await)
        } else if self.has(Flaw::MixesReplies) {
            self.mixed(message, deadline, &sent).await
        } else {
            deadline
                .io(async {
                    let place = self.places.acquire().await.unwrap();
                    let place = if self.has(Flaw::LosesPlaces) {
                        place.forget();
                        None
                    } else {
                        Some(place)
                    };
                    if self.has(Flaw::AsksTwice) {
                        self.exchange(b"GET ping 0\n", &AtomicBool::new(false)).await?;
                    }
                    let reply = self.exchange(&message, &sent).await;
                    if place.is_none() {
                        self.places.add_permits(1);
                    }
                    if self.has(Flaw::LooksBack) {
                        let inner = Arc::clone(self);
                        tokio::spawn(async move {
                            let _place = inner.places.acquire().await;
                            inner.exchange(b"GET ping 0\n", &AtomicBool::new(false)).await.map(drop)
                        });
                    }
                    reply
                })
                .await
        };
        let answer = match answer {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => Error::unavailable("talk to the toy").with_source(error),
            Err(late) => late,
        };
        self.broken.store(true, Ordering::SeqCst);
        *self.failed.lock().unwrap() = Some(Instant::now());
        let answer = if self.has(Flaw::BlamesTheSetup) { Error::config("the toy is not there") } else { answer };
        Err(Failure(answer, sent.load(Ordering::SeqCst)))
    }

    /// An exchange that goes on when nobody waits for it, on a connection that is given back before.
    async fn mixed(
        self: &Arc<Self>,
        message: Vec<u8>,
        deadline: &Deadline,
        sent: &AtomicBool,
    ) -> Result<std::io::Result<Reply>> {
        let mut stream = match deadline.io(self.connect()).await? {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        sent.store(true, Ordering::SeqCst);
        let mut line = String::new();
        let talk = async {
            stream.get_mut().write_all(&message).await?;
            stream.read_line(&mut line).await
        };
        let read = deadline.io(talk).await;
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let length = words.pop().and_then(|word| word.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        let result = match read {
            Ok(Ok(0)) => Ok(Err(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(stream.read_exact(&mut body).await.map(|_| Reply(words, body.into()))),
            Ok(Err(error)) => Ok(Err(error)),
            Err(late) => Err(late),
        };
        if !matches!(result, Ok(Err(_))) {
            self.idle.lock().unwrap().push(stream);
        }
        result
    }

    /// Gives a lock back, again and again until it is free anyhow. The place in line goes with it.
    fn free(self: &Arc<Self>, key: &Key, token: u64, head: Option<Head>) -> impl Future<Output = ()> + Send + 'static {
        let (inner, message) = (Arc::clone(self), format!("FREE {} {token} 0\n", name(key)).into_bytes());
        async move {
            let ends = Instant::now() + LOCK_LIFE;
            while Instant::now() < ends {
                let deadline = Deadline::new(Duration::from_millis(250), Duration::ZERO);
                if inner.ask(message.clone(), &deadline).await.is_ok() {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
            drop(head);
        }
    }
}

impl ToyStore {
    pub(super) fn new(addr: SocketAddr, flaw: Option<Flaw>) -> ToyStore {
        ToyStore(Arc::new(Inner {
            addr,
            flaw,
            idle: Mutex::default(),
            lines: Lines::default(),
            // Tokens of different stores differ by where they begin.
            tokens: AtomicU64::new(
                u64::from(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()) << 32 | next(),
            ),
            places: Arc::new(Semaphore::new(MOST)),
            turn: tokio::sync::Mutex::default(),
            broken: AtomicBool::new(false),
            failed: Mutex::default(),
        }))
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.0.has(flaw)
    }

    fn record(&self, words: &[String], body: Bytes) -> Record {
        let life = words[2].parse().map(Duration::from_millis).unwrap();
        let ttl = (!self.has(Flaw::TellsNoLife)).then_some(life);
        Record::new(body, Version::new(words[1].clone().into_bytes()), ttl)
    }

    async fn take(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        let head = self.0.lines.stand(key, deadline).await?;
        let token = self.0.tokens.fetch_add(1, Ordering::SeqCst);
        let claim = match claim {
            Claim::Existing => "existing",
            Claim::New => "new",
            _ => "either",
        };
        let life = if self.has(Flaw::KeepsLocks) || self.has(Flaw::KeepsLeases) {
            Duration::from_secs(600)
        } else {
            LOCK_LIFE
        };
        let begun = Instant::now();
        for pause in pauses() {
            let message = format!("LOCK {} {claim} {token} {} 0\n", name(key), life.as_millis());
            let Reply(words, body) = match self.0.ask(message.into_bytes(), deadline).await {
                Ok(reply) => reply,
                Err(Failure(error, sent)) => {
                    if self.has(Flaw::KeepsPlaces) {
                        std::mem::forget(head);
                    } else if sent && !self.has(Flaw::KeepsLocks) {
                        tokio::spawn(self.0.free(key, token, Some(head)));
                    }
                    if self.has(Flaw::BeginsAnew) && sent {
                        return Ok(Some(Locked::new(Box::new(self.lease(key, token, None)), None)));
                    }
                    return Err(error);
                }
            };
            match words[0].as_str() {
                "BUSY" => {
                    if Instant::now() + pause > deadline.wait_until() {
                        return Err(Error::locked(begun.elapsed()));
                    }
                    sleep(pause).await;
                }
                "UNMET" => return Ok(None),
                word => {
                    let record = (word == "SOME").then(|| self.record(&words, body));
                    return Ok(Some(Locked::new(Box::new(self.lease(key, token, Some(head))), record)));
                }
            }
        }
        unreachable!("there is always another pause")
    }

    fn lease(&self, key: &Key, token: u64, head: Option<Head>) -> ToyLease {
        ToyLease { store: self.clone(), key: key.clone(), token, head, held: true }
    }

    async fn put(&self, message: Vec<u8>, deadline: &Deadline) -> Result<Reply> {
        let begun = Instant::now();
        for pause in pauses() {
            let mut answer = self.0.ask(message.clone(), deadline).await;
            if self.has(Flaw::RetriesBlindly) && answer.is_err() {
                answer = self.0.ask(message.clone(), deadline).await;
            }
            let reply = answer.map_err(|Failure(error, sent)| {
                let doubtful = (sent || self.has(Flaw::DoubtsEverything)) && !self.has(Flaw::ForgetsDoubt);
                if doubtful { error.or_maybe_applied() } else { error }
            })?;
            if reply.0[0] != "BUSY" {
                return Ok(reply);
            }
            if Instant::now() + pause > deadline.wait_until() {
                return Err(Error::locked(begun.elapsed()));
            }
            sleep(pause).await;
        }
        unreachable!("there is always another pause")
    }
}

/// A number for each store of this program.
fn next() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::SeqCst) << 20
}

fn name(key: &Key) -> String {
    String::from_utf8(key.record().to_vec()).unwrap()
}

impl fmt::Debug for ToyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ToyStore({:?})", self.0.flaw)
    }
}

impl Store for ToyStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        (capabilities.shared, capabilities.expires_by_itself) = (true, true);
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        let answer = self.0.ask(format!("GET {} 0\n", name(key)).into_bytes(), deadline).await;
        let Reply(words, body) = match answer {
            Err(_) if self.has(Flaw::TakesErrorsForAbsent) => return Ok(None),
            Err(failure) if self.has(Flaw::DoubtsReads) => return Err(failure.0.or_maybe_applied()),
            answer => answer?,
        };
        Ok((words[0] == "SOME").then(|| self.record(&words, body)))
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        // Taken by a task, so that a lock that arrives after its waiter left is given back.
        let (store, key, deadline) = (self.clone(), key.clone(), deadline.clone());
        tokio::spawn(async move { store.take(&key, claim, &deadline).await }).await.unwrap()
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let (what, life, body) = match put {
            Put::Payload(Payload { bytes, ttl, .. }) => ("payload", ttl, bytes),
            Put::Touch(ttl) => ("touch", ttl, Bytes::new()),
            Put::Remove => ("remove", Duration::ZERO, Bytes::new()),
            _ => ("aside", Duration::ZERO, Bytes::new()),
        };
        let (expect, lease) = match expect {
            Expect::Absent => ("absent".to_owned(), None),
            Expect::Any => ("any".to_owned(), None),
            Expect::Is(version) => (format!("is:{}", String::from_utf8_lossy(version.as_bytes())), None),
            Expect::Held(lease) => {
                let lease = lease.into_any().downcast::<ToyLease>().unwrap();
                (format!("held:{}", lease.token), Some(lease))
            }
            _ => unreachable!("the suite knows no other"),
        };
        let expect = if self.has(Flaw::WritesWithoutItsLock) && lease.is_some() { "any".to_owned() } else { expect };
        let mut message =
            format!("PUT {} {expect} {what} {} {}\n", name(key), life.as_millis(), body.len()).into_bytes();
        message.extend_from_slice(&body);
        // A lease that is dropped gives its lock back, also where that has been done.
        let Reply(words, body) = self.put(message, deadline).await?;
        if let Some(mut lease) = lease {
            lease.held = self.has(Flaw::WritesWithoutItsLock);
        }
        let version = || Version::new(words[1].clone().into_bytes());
        Ok(match words[0].as_str() {
            "DONE" => Outcome::Done(Some(version())),
            "REMOVED" => Outcome::Removed(self.record(&words, body)),
            "CONFLICT" => Outcome::Conflict(self.record(&words, body)),
            "TAKEN" => Outcome::Taken,
            "LOST" => return Err(Error::lock_lost()),
            _ => Outcome::Gone,
        })
    }

    async fn sweep(&self, _: usize) -> Result<Swept> {
        Ok(Swept::new(0, true))
    }
}

#[derive(Debug)]
struct ToyLease {
    store: ToyStore,
    key: Key,
    token: u64,
    head: Option<Head>,
    held: bool,
}

impl Lease for ToyLease {
    fn release(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        let kept = std::mem::replace(&mut self.held, false) && self.store.has(Flaw::KeepsLeases);
        let free = self.store.0.free(&self.key, self.token, self.head.take());
        Box::pin(async move {
            if !kept {
                // It ends in the background where it takes long.
                let free = tokio::spawn(free);
                let _ = tokio::time::timeout(Duration::from_millis(250), free).await;
            }
        })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Drop for ToyLease {
    fn drop(&mut self) {
        if self.held
            && !self.store.has(Flaw::KeepsLeases)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(self.store.0.free(&self.key, self.token, self.head.take()));
        }
    }
}
