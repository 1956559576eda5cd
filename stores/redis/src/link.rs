//! The way to one server, one cluster, or the master that sentinels know: made when it is first needed, shared by all
//! requests, and made anew when it breaks.
//!
//! One request goes out once. It is sent again only where the server said that it did nothing, or where doing it
//! twice is doing it once.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::line::pauses;
use cloakroom_core::{Deadline, Error, Result};
use redis::aio::MultiplexedConnection;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::{AsyncConnectionConfig, Client, Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::dial::{self, Dial, Masters};
use crate::error::{self, Verdict};
use crate::script::Script;

/// After so long without any answer a connection counts as dead when a request runs out of time.
const SILENCE: Duration = Duration::from_millis(100);
/// For how long nobody tries again after connecting has failed.
const REST: Duration = Duration::from_millis(50);
/// How long a node of a cluster may take to tell the map.
const LOOKING: Duration = Duration::from_millis(300);
/// How often one request follows a slot that moves.
const REDIRECTS: usize = 8;

/// How many connections for commits that wait there are at the most, for each server or cluster.
const COMMITS: usize = 16;

/// A shared connection that mends itself.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

struct Shared {
    dial: Arc<Dial>,
    slot: Mutex<Slot>,
}

enum Slot {
    Empty,
    /// Somebody connects, for all who wait.
    Connecting(watch::Receiver<Option<RedisResult<Live>>>),
    Failed(Instant, RedisError),
    Live(Live),
    /// Still in use, while somebody looks whether another one is needed, and makes it.
    Renewing(Live),
}

/// A connection, and what is known of its health.
#[derive(Clone)]
struct Live {
    wire: Wire,
    health: Arc<Health>,
}

#[derive(Clone)]
pub(crate) enum Wire {
    One(MultiplexedConnection),
    /// With the map of its masters, as it was when the connection was made.
    Cluster(ClusterConnection, Arc<Masters>),
}

#[derive(Default)]
struct Health {
    closed: AtomicBool,
    answers: AtomicU64,
}

/// What is asked.
pub(crate) struct Question<'a> {
    /// By this key a cluster finds the node.
    pub(crate) key: &'a [u8],
    pub(crate) what: What<'a>,
    /// Asking twice is as good as asking once, so that it is asked again where the answer was lost.
    pub(crate) repeatable: bool,
    /// A replica may answer.
    pub(crate) replica: bool,
    /// How many replicas have to have the change, and how many milliseconds they may take.
    pub(crate) wait: Option<(u32, u128)>,
    /// Set when it goes out for the first time.
    pub(crate) sent: AtomicBool,
}

pub(crate) enum What<'a> {
    Commands(Pipeline),
    Script(&'a Script, &'a [&'a [u8]], &'a [&'a [u8]]),
}

impl Link {
    pub(crate) fn new(dial: impl Into<Arc<Dial>>) -> Link {
        Link(Arc::new(Shared { dial: dial.into(), slot: Mutex::new(Slot::Empty) }))
    }

    /// Connects, if need be, and tells whether that worked.
    pub(crate) async fn connect(&self) -> RedisResult<()> {
        self.connection().await.map(drop)
    }

    /// Asks and gives the answers, none of which is an error but that of `WAIT`, which comes after the change. An error
    /// says whether the change may have been made.
    pub(crate) async fn ask(&self, question: &Question<'_>, deadline: &Deadline) -> Result<Vec<Value>> {
        let (mut whole, mut repeated, mut detour) = (false, false, None::<(String, u16)>);
        let mut pauses = pauses().take(REDIRECTS);
        loop {
            let live = deadline.io(self.connection()).await?.map_err(|error| error::connecting(&error))?;
            let (heard, begun) = (live.health.answers.load(Ordering::Relaxed), Instant::now());
            let pipeline = question.pipeline(whole);
            question.sent.store(true, Ordering::Relaxed);
            let exchange = async {
                match &detour {
                    Some((host, port)) => self.0.dial.ask_once(host, *port, &pipeline).await,
                    None => live.send(question, &pipeline).await,
                }
            };
            let (failure, unclear) = match deadline.io(exchange).await {
                Ok(answer) => {
                    // A cluster's client can answer all commands with one error, and does not say which of them failed.
                    let unclear = answer.is_err() && question.wait.is_some();
                    match answer.and_then(|values| question.no_errors(values)) {
                        Ok(values) => {
                            live.health.answers.fetch_add(1, Ordering::Relaxed);
                            return Ok(values);
                        }
                        Err(failure) => (failure, unclear),
                    }
                }
                Err(late) => {
                    if begun.elapsed() >= SILENCE && live.may_be_dead(heard) {
                        self.give_up(&live);
                    }
                    return Err(question.unanswered(late));
                }
            };
            let asked_by_detour = detour.take().is_some();
            match error::judge(&failure) {
                Verdict::UnknownScript if !whole => whole = true,
                Verdict::Ask(host, port) if !asked_by_detour => detour = Some((host, port)),
                Verdict::Moved | Verdict::NotYet | Verdict::Ask(..) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Err(Error::unavailable("this session's slot of the Redis cluster is being moved")),
                },
                Verdict::NotMaster => {
                    self.give_up(&live);
                    if std::mem::replace(&mut repeated, true) {
                        return Err(Error::unavailable("the Redis server is a replica and takes no changes"));
                    }
                }
                Verdict::UnknownScript => return Err(Error::unavailable("the Redis server runs no scripts")),
                Verdict::Refused(refusal) => return Err(if unclear { refusal.or_maybe_applied() } else { refusal }),
                Verdict::NotSent(failure) => {
                    self.give_up(&live);
                    return Err(failure);
                }
                Verdict::Lost(failure) => {
                    self.give_up(&live);
                    if !question.repeatable || std::mem::replace(&mut repeated, true) {
                        return Err(question.unanswered(failure));
                    }
                }
            }
        }
    }

    /// The connection that there is, or a new one. Who waits for it may leave; the others still get it.
    async fn connection(&self) -> RedisResult<Live> {
        let mut coming = {
            let mut slot = self.0.open();
            match &*slot {
                Slot::Live(live) | Slot::Renewing(live) if !live.is_closed() => return Ok(live.clone()),
                Slot::Failed(when, error) if when.elapsed() < REST => return Err(error.clone()),
                Slot::Connecting(coming) => coming.clone(),
                _ => {
                    let coming = self.begin();
                    *slot = Slot::Connecting(coming.clone());
                    coming
                }
            }
        };
        if let Ok(Some(made)) = coming.wait_for(Option::is_some).await.map(|made| made.clone()) {
            return made;
        }
        // Only if the runtime of the task that connects has ended.
        let mut slot = self.0.open();
        if matches!(&*slot, Slot::Connecting(other) if other.same_channel(&coming)) {
            *slot = Slot::Empty;
        }
        Err(RedisError::from(io::Error::from(io::ErrorKind::Interrupted)))
    }

    /// Connects in a task of its own.
    fn begin(&self) -> watch::Receiver<Option<RedisResult<Live>>> {
        let (tell, coming) = watch::channel(None);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let health = Arc::new(Health::default());
            let watched = Arc::clone(&health);
            let closed = move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    watched.closed.store(true, Ordering::Relaxed);
                }
                Ok::<(), ()>(())
            };
            let made = shared.dial.connect(closed).await.map(|wire| Live { wire, health });
            // What was to be replaced goes as well where nothing can be reached: a cluster's connection would look for
            // its nodes without a pause.
            *shared.open() = match &made {
                Ok(live) => Slot::Live(live.clone()),
                Err(error) => Slot::Failed(Instant::now(), error.clone()),
            };
            tell.send_replace(Some(made));
        });
        coming
    }

    /// Lets this connection go, unless another has taken its place already. Requests that still wait for an answer
    /// on it may get it.
    ///
    /// A cluster's connection mends itself node by node. It stays in use while somebody looks whether its map is still
    /// right, so that the requests to other nodes need not wait: the client itself asks for a new map only where a node
    /// tells it to, which one that hangs does not.
    fn give_up(&self, live: &Live) {
        let mut slot = self.0.open();
        let Slot::Live(current) = &*slot else { return };
        if !Arc::ptr_eq(&current.health, &live.health) {
            return;
        }
        let Wire::Cluster(connection, known) = &live.wire else {
            *slot = Slot::Empty;
            return;
        };
        *slot = Slot::Renewing(live.clone());
        let (link, live, connection, known) = (self.clone(), live.clone(), connection.clone(), Arc::clone(known));
        tokio::spawn(async move {
            let now = dial::masters(&connection, LOOKING).await;
            if now.is_ok_and(|now| now == *known) {
                tokio::time::sleep(REST).await;
                let mut slot = link.0.open();
                if matches!(&*slot, Slot::Renewing(current) if Arc::ptr_eq(&current.health, &live.health)) {
                    *slot = Slot::Live(live);
                }
                return;
            }
            link.begin();
        });
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Whether a request that ran out of time speaks for a dead connection: nobody got an answer meanwhile. On a
    /// cluster the others may have got theirs from other nodes.
    fn may_be_dead(&self, heard: u64) -> bool {
        matches!(self.wire, Wire::Cluster(..)) || self.health.answers.load(Ordering::Relaxed) == heard
    }

    fn is_closed(&self) -> bool {
        self.health.closed.load(Ordering::Relaxed)
    }

    async fn send(&self, question: &Question<'_>, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        match &self.wire {
            Wire::One(connection) => connection.clone().send_packed_commands(pipeline, 0, pipeline.len()).await,
            Wire::Cluster(connection, _) => {
                let node = if question.replica { SlotAddr::ReplicaOptional } else { SlotAddr::Master };
                let route = SingleNodeRoutingInfo::SpecificNode(Route::with_key(question.key, node));
                connection.clone().route_pipeline(pipeline.clone(), 0, pipeline.len(), route).await
            }
        }
    }
}

impl<'a> Question<'a> {
    /// What may be asked again where the answer was lost.
    pub(crate) fn again(key: &'a [u8], what: What<'a>) -> Question<'a> {
        Question { repeatable: true, ..Question::once(key, what) }
    }

    /// What may go out once.
    pub(crate) fn once(key: &'a [u8], what: What<'a>) -> Question<'a> {
        Question { key, what, repeatable: false, replica: false, wait: None, sent: AtomicBool::new(false) }
    }

    /// Whether the server may know of it. What an answer said is another matter.
    pub(crate) fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    fn pipeline(&self, whole: bool) -> Pipeline {
        let mut pipeline = match &self.what {
            What::Commands(pipeline) => pipeline.clone(),
            What::Script(script, keys, arguments) => script.call(whole, keys, arguments),
        };
        if let Some((replicas, millis)) = self.wait {
            pipeline.cmd("WAIT").arg(replicas).arg(millis.to_string());
        }
        pipeline
    }

    /// The first answer that is an error. Where `WAIT` alone fails, the change is made, so that its error is an answer.
    fn no_errors(&self, mut values: Vec<Value>) -> RedisResult<Vec<Value>> {
        let copies = if self.wait.is_some() { values.pop() } else { None };
        let mut values = values.into_iter().map(Value::extract_error).collect::<RedisResult<Vec<_>>>()?;
        values.extend(copies);
        Ok(values)
    }

    /// No answer came. What can be repeated leaves nobody in doubt.
    fn unanswered(&self, error: Error) -> Error {
        if self.repeatable { error } else { error.or_maybe_applied() }
    }
}

/// Connections for commits that wait for replicas, made when they are needed, and kept. One that waits answers nobody, so
/// that each commit has one to itself while it lasts.
pub(crate) struct Commits {
    dial: Arc<Dial>,
    idle: Mutex<Vec<Link>>,
    free: Semaphore,
}

/// A connection in use. It is kept unless an answer may still come on it: that would stand before the next one's.
struct Lent<'a> {
    commits: &'a Commits,
    link: Link,
    question: &'a Question<'a>,
    answered: bool,
}

impl Commits {
    pub(crate) fn new(dial: Dial) -> Commits {
        Commits { dial: Arc::new(dial), idle: Mutex::default(), free: Semaphore::new(COMMITS) }
    }

    /// [`Link::ask`] on a connection that nobody else uses meanwhile. Waiting for one counts as talking to the server.
    pub(crate) async fn ask(&self, question: &Question<'_>, deadline: &Deadline) -> Result<Vec<Value>> {
        let free = deadline.io(self.free.acquire()).await?;
        let _free = free.map_err(|_| Error::unavailable("the store is being closed"))?;
        let idle = self.idle().pop();
        let link = idle.unwrap_or_else(|| Link::new(Arc::clone(&self.dial)));
        let mut lent = Lent { commits: self, link, question, answered: false };
        let answer = lent.link.ask(question, deadline).await;
        lent.answered = !answer.as_ref().is_err_and(Error::may_have_been_applied);
        if !lent.answered {
            // What has broken one has most likely broken the others, and nobody is to find that out again.
            self.idle().clear();
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Link>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.answered || !self.question.was_sent() {
            self.commits.idle().push(self.link.clone());
        }
    }
}

/// How all connections are set up: no limit but that of the request, and word when they break.
pub(crate) fn setup(
    connect_timeout: Duration,
    closed: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect_timeout))
        .set_response_timeout(None)
        .set_push_sender(closed)
}

/// A connection for one question.
pub(crate) async fn once(
    client: &Client,
    config: &AsyncConnectionConfig,
    pipeline: &Pipeline,
) -> RedisResult<Vec<Value>> {
    let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
    connection.send_packed_commands(pipeline, 0, pipeline.len()).await
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0.open() {
            Slot::Empty => "Link(idle)",
            Slot::Connecting(_) => "Link(connecting)",
            Slot::Failed(..) => "Link(failed)",
            Slot::Live(_) | Slot::Renewing(_) => "Link(live)",
        })
    }
}
