//! The store itself: each call of the contract is one exchange with the server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::line::{Head, Lines};
use cloakroom_core::store::{Capabilities, Claim, Expect, Locked, Outcome, Payload, Put, Record, Swept, Version};
use cloakroom_core::{Deadline, Error, ErrorKind, Key, Result, Store, Tasks};
use redis::{Pipeline, Value};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::config::{RedisConfig, RedisServers};
use crate::dial::Dial;
use crate::error;
use crate::layout::{self, Names};
use crate::link::{Commits, Link, Question, What};
use crate::lock::{self, Found, RedisLease, Tried, Turn, millis};
use crate::reply::{self, Reply};
use crate::script::Scripts;

/// Sessions in Redis or Valkey. All clones share connections and waiting lines.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

/// What the clones share.
pub(crate) struct Inner {
    pub(crate) config: RedisConfig,
    servers: Vec<Server>,
    pub(crate) scripts: Scripts,
    pub(crate) host: String,
    weights: Vec<u32>,
    lines: Lines,
    pub(crate) tasks: Tasks,
}

/// One server, the cluster, or what the sentinels watch.
pub(crate) struct Server {
    pub(crate) link: Link,
    /// For commits that wait for replicas.
    commits: Option<Commits>,
    /// For reads, where replicas may answer them. A cluster's connection finds them by itself.
    replica: Option<Link>,
    pub(crate) names: Names,
}

impl RedisStore {
    /// Opens the store. Servers that cannot be reached now are tried again when they are needed; one that does not take
    /// the user or the password is a [`Config`](ErrorKind::Config) error.
    ///
    /// ```no_run
    /// # async fn open() -> cloakroom_core::Result<()> {
    /// use cloakroom_store_redis::{RedisConfig, RedisStore};
    /// let store = RedisStore::open(RedisConfig::from_url("redis://localhost")?).await?;
    /// # drop(store);
    /// # Ok(()) }
    /// ```
    pub async fn open(config: RedisConfig) -> Result<RedisStore> {
        let config = config.checked()?;
        let mut servers = Vec::new();
        match &config.servers {
            RedisServers::Single(list) => {
                for server in list {
                    let dial = || Dial::server(server, &config);
                    servers.push(Server::new(&dial, None, config.names(Some(server)), config.wait)?);
                }
            }
            RedisServers::Cluster { .. } | RedisServers::Sentinel { .. } => {
                let apart = config.replica && !config.is_cluster();
                let replica = if apart { Some(Dial::group(&config, true)?) } else { None };
                let dial = || Dial::group(&config, false);
                servers.push(Server::new(&dial, replica, config.names(None), config.wait)?);
            }
        }
        let weights = match &config.servers {
            RedisServers::Single(list) => list.iter().map(|server| server.weight).collect(),
            _ => vec![1],
        };
        let (scripts, host, lines, tasks) = (Scripts::new(), lock::host(), Lines::default(), Tasks::default());
        let store = RedisStore { inner: Arc::new(Inner { config, servers, scripts, host, weights, lines, tasks }) };
        store.meet().await?;
        Ok(store)
    }

    /// Connects to all servers at once, and complains only of what will not mend by itself.
    async fn meet(&self) -> Result<()> {
        let meet = |server: &Server| {
            let link = server.link.clone();
            tokio::spawn(async move { link.connect().await })
        };
        let meetings: Vec<_> = self.inner.servers.iter().map(meet).collect();
        for meeting in meetings {
            match meeting.await {
                Ok(Err(refused)) if error::is_setup(&refused) => {
                    return Err(Error::config("the Redis server does not take this user, password or database"));
                }
                Ok(Err(failure)) => {
                    let error = error::connecting(&failure);
                    tracing::warn!(?error, "Redis cannot be reached yet");
                }
                Ok(Ok(())) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Server {
    fn new(dial: &dyn Fn() -> Result<Dial>, replica: Option<Dial>, names: Names, wait: u32) -> Result<Server> {
        let commits = if wait > 0 { Some(Commits::new(dial()?)) } else { None };
        Ok(Server { link: Link::new(dial()?), commits, replica: replica.map(Link::new), names })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = self.inner.servers.iter().map(|server| &server.link);
        f.debug_tuple("RedisStore").field(&self.inner.config.servers).field(&links.collect::<Vec<_>>()).finish()
    }
}

impl Store for RedisStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        // On a cluster php-redis takes no lock.
        capabilities.php_locks = self.inner.config.php_locks && !self.inner.config.is_cluster();
        capabilities.expires_by_itself = true;
        capabilities.persistent = true;
        capabilities.shared = true;
        capabilities.max_payload = u64::try_from(self.inner.config.max_payload).ok();
        capabilities
    }

    async fn load(&self, key: &Key, deadline: &Deadline) -> Result<Option<Record>> {
        let replica = self.inner.config.replica;
        let record = self.inner.read(key, replica, deadline).await?;
        if record.is_none() && replica {
            // A replica that is behind may not know of it yet, and who is told that a session is not there begins a
            // new one.
            return self.inner.read(key, false, deadline).await;
        }
        Ok(record)
    }

    async fn lock(&self, key: &Key, claim: Claim, deadline: &Deadline) -> Result<Option<Locked>> {
        let claim: &[u8] = match claim {
            Claim::Existing => b"existing",
            Claim::New => b"new",
            Claim::Either => b"either",
            _ => return Err(Error::new(ErrorKind::Unsupported, "lock by a claim that is not known")),
        };
        let begun = Instant::now();
        let mut head = self.inner.lines.stand(key, deadline).await?;
        let mut turn = Turn::new(begun);
        loop {
            head = match turn.ask(deadline, |time| self.inner.try_lock(key, claim, head, time)).await? {
                Tried::Done(locked) => return Ok(locked),
                Tried::Locked(head) => head,
            };
            turn.pause(deadline).await?;
        }
    }

    async fn commit(&self, key: &Key, expect: Expect<'_>, put: Put, deadline: &Deadline) -> Result<Outcome> {
        let inner = &self.inner;
        let lock = inner.server(key)?.0.names.lock(key)?;
        let (want, mut lease) = match expect {
            Expect::Absent => (Want::Absent, None),
            Expect::Any => (Want::Any, None),
            Expect::Is(version) => (Want::Is(version.clone()), None),
            Expect::Held(lease) => (Want::Held, Some(RedisLease::recognise(lease, inner, &lock)?)),
            _ => return Err(Error::new(ErrorKind::Unsupported, "commit on a condition that this store does not know")),
        };
        match &put {
            Put::Payload(payload) if payload.bytes.len() > inner.config.max_payload => {
                return Err(Error::new(ErrorKind::TooLarge, "write a session beyond `max_payload`"));
            }
            Put::Touch(ttl) if matches!(want, Want::Any) => return inner.touch(key, *ttl, deadline).await,
            Put::SetAside if inner.config.is_cluster() => {
                let (store, key, deadline) = (Arc::clone(inner), key.clone(), deadline.clone());
                let steps = async move { store.set_aside_in_steps(&key, want, lease, &deadline).await };
                return inner
                    .tasks
                    .spawn(&Handle::current(), steps)
                    .await
                    .unwrap_or_else(|_| Err(Error::unavailable("the runtime is ending")));
            }
            _ => {}
        }
        inner.commit(key, &want, &put, &mut lease, deadline).await
    }

    /// Redis removes what has expired by itself.
    async fn sweep(&self, _: usize) -> Result<Swept> {
        Ok(Swept::new(0, true))
    }

    async fn settle(&self) {
        self.inner.tasks.ended().await;
    }
}

/// [`Expect`] without the lease, for a commit that may have to be tried again.
pub(crate) enum Want {
    Absent,
    Any,
    Is(Version),
    Held,
}

fn version_of(want: &Want) -> Option<Version> {
    if let Want::Is(version) = want { Some(version.clone()) } else { None }
}

impl Inner {
    /// Which server has a session, and what its record is called there.
    pub(crate) fn server(&self, key: &Key) -> Result<(&Server, Vec<u8>)> {
        let server = layout::server(&self.weights, key.route()).and_then(|index| self.servers.get(index));
        let server = server.ok_or_else(|| Error::config("no Redis server has a weight"))?;
        Ok((server, server.names.record(key)))
    }

    /// Reads, from a replica where one may answer.
    pub(crate) async fn read(&self, key: &Key, replica: bool, deadline: &Deadline) -> Result<Option<Record>> {
        let (server, record) = self.server(key)?;
        let mut both = Pipeline::with_capacity(2);
        both.cmd("GET").arg(&record).cmd("PTTL").arg(&record);
        let question = Question { replica, ..Question::again(&record, What::Commands(both)) };
        let answer = match &server.replica {
            Some(link) if replica => match link.ask(&question, deadline).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => server.link.ask(&question, deadline).await,
                answer => answer,
            },
            _ => server.link.ask(&question, deadline).await,
        };
        reply::record(answer?)
    }

    async fn try_lock(
        self: &Arc<Self>,
        key: &Key,
        claim: &[u8],
        head: Head,
        deadline: Deadline,
    ) -> Result<Tried<Option<Locked>, Head>> {
        let (server, record) = self.server(key)?;
        let lock = server.names.lock(key)?;
        let mut lease = RedisLease::prepare(self, &server.link, key, lock.clone(), head)?;
        let (token, life) = (lease.token(), millis(self.config.lock_expire));
        let keys: [&[u8]; 2] = [&record, &lock];
        let arguments: [&[u8]; 3] = [&token, &life, claim];
        let what = What::Script(&self.scripts.lock, &keys, &arguments);
        let question = Question::again(&record, what);
        let answer = match server.link.ask(&question, &deadline).await {
            Ok(answer) => answer,
            Err(error) => {
                // What was never asked for has not to be given back.
                if !question.was_sent() {
                    drop(lease.settle());
                }
                return Err(error);
            }
        };
        match reply::read(answer)? {
            Reply::Locked => {
                let head = lease.settle();
                head.map(Tried::Locked).ok_or_else(|| Error::unavailable("the place in line for a lock is gone"))
            }
            Reply::Refused => {
                drop(lease.settle());
                Ok(Tried::Done(None))
            }
            Reply::Held(found) => {
                lease.keep(match &found {
                    None => Found::Nothing,
                    Some(record) => record.ttl.map_or(Found::ForEver, |ttl| Found::Until(Instant::now() + ttl)),
                });
                Ok(Tried::Done(Some(Locked::new(Box::new(lease), found))))
            }
            _ => Err(reply::strange()),
        }
    }

    /// Commits, in line with those who hold the lock or wait for it.
    pub(crate) async fn commit(
        &self,
        key: &Key,
        want: &Want,
        put: &Put,
        lease: &mut Option<RedisLease>,
        deadline: &Deadline,
    ) -> Result<Outcome> {
        let begun = Instant::now();
        let waits = lease.is_none() && self.lines.is_busy(key);
        let mut head = if waits { Some(self.lines.stand(key, deadline).await?) } else { None };
        let mut turn = Turn::new(begun);
        loop {
            match turn.ask(deadline, |time| self.try_commit(key, want, put, lease, time)).await? {
                Tried::Done(outcome) => return Ok(outcome),
                Tried::Locked(()) if head.is_none() => head = Some(self.lines.stand(key, deadline).await?),
                Tried::Locked(()) => turn.pause(deadline).await?,
            }
        }
    }

    async fn try_commit(
        &self,
        key: &Key,
        want: &Want,
        put: &Put,
        lease: &mut Option<RedisLease>,
        deadline: Deadline,
    ) -> Result<Tried<Outcome, ()>> {
        let (server, record) = self.server(key)?;
        let (lock, aside) = (server.names.lock(key)?, server.names.aside());
        let token = lease.as_ref().map(RedisLease::token).unwrap_or_default();
        let (expect, version): (&[u8], &[u8]) = match want {
            Want::Absent => (b"absent", b""),
            Want::Any => (b"any", b""),
            Want::Is(version) => (b"is", version.as_bytes()),
            Want::Held if lease.as_ref().is_some_and(RedisLease::must_be_there) => (b"found", b""),
            Want::Held => (b"held", b""),
        };
        let seconds = |ttl: &Duration| layout::seconds(*ttl).to_string().into_bytes();
        let most = self.config.max_aside.to_string();
        let (change, fifth, sixth): (&[u8], Vec<u8>, Bytes) = match put {
            Put::Payload(Payload { bytes, ttl, .. }) => (b"write", seconds(ttl), bytes.clone()),
            Put::Touch(ttl) => (b"touch", seconds(ttl), Bytes::new()),
            Put::Remove => (b"remove", Vec::new(), Bytes::new()),
            Put::SetAside => (b"aside", most.into_bytes(), seconds(&self.config.aside_lifetime).into()),
            _ => return Err(Error::new(ErrorKind::Unsupported, "commit what this store does not know")),
        };
        let (keys, count): ([&[u8]; 3], _) = ([&record, &lock, &aside], if change == b"aside" { 3 } else { 2 });
        let arguments: [&[u8]; 6] = [&token, expect, change, version, &fifth, &sixth];
        let what = What::Script(&self.scripts.commit, &keys[..count], &arguments);
        let wait = (self.config.wait > 0).then_some((self.config.wait, self.config.wait_timeout.as_millis()));
        let question = Question { wait, ..Question::once(&record, what) };
        let mut answer = match &server.commits {
            Some(commits) => commits.ask(&question, &deadline).await?,
            None => server.link.ask(&question, &deadline).await?,
        };
        let copies = wait.and_then(|_| answer.pop());
        let outcome = match reply::read(answer)? {
            Reply::Locked => return Ok(Tried::Locked(())),
            Reply::Done => Outcome::Done(match put {
                Put::Payload(payload) => Some(Version::new(payload.bytes.clone())),
                // A touch leaves the version that the script has compared.
                _ => version_of(want),
            }),
            Reply::Removed(record) => Outcome::Removed(record),
            Reply::Conflict(record) => Outcome::Conflict(record),
            Reply::Taken => Outcome::Taken,
            Reply::Gone => Outcome::Gone,
            Reply::Lost(there) => {
                drop(lease.take().and_then(RedisLease::settle));
                if there {
                    return Err(Error::lock_lost());
                }
                Outcome::Gone
            }
            Reply::Refused | Reply::Held(_) => return Err(reply::strange()),
        };
        // The script has given the lock back.
        drop(lease.take().and_then(RedisLease::settle));
        let changed = matches!(outcome, Outcome::Done(_) | Outcome::Removed(_));
        match wait.filter(|_| changed).and_then(|(wanted, _)| reply::too_few(copies.as_ref(), wanted)) {
            Some(told) => Err(Error::unavailable(told).or_maybe_applied()),
            None => Ok(Tried::Done(outcome)),
        }
    }

    /// A record's life needs no script, and waits for nobody.
    async fn touch(&self, key: &Key, ttl: Duration, deadline: &Deadline) -> Result<Outcome> {
        let (server, record) = self.server(key)?;
        let mut expire = Pipeline::with_capacity(1);
        expire.cmd("EXPIRE").arg(&record).arg(layout::seconds(ttl));
        let question = Question::again(&record, What::Commands(expire));
        let answer = server.link.ask(&question, deadline).await;
        // Asking twice did no harm; that the life is as it was is not known all the same.
        let in_doubt = |error: Error| if question.was_sent() { error.or_maybe_applied() } else { error };
        match answer.map_err(in_doubt)?.as_slice() {
            [Value::Int(1)] => Ok(Outcome::Done(None)),
            [Value::Int(0)] => Ok(Outcome::Gone),
            _ => Err(reply::strange()),
        }
    }
}
