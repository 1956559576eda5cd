//! Masters that die under load, slots that move under load, replicas that answer reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom_core::store::{Claim, Expect, Outcome, Record};
use cloakroom_core::{Deadline, ErrorKind, Key, Result, Store};
use cloakroom_store_redis::{RedisConfig, RedisStore};
use cloakroom_testkit::php::skip;
use cloakroom_testkit::servers::redis::{RedisCluster, RedisSentinels, RedisServer};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::util::{key, payload, prefix, request, server, wait};

const TASKS: usize = 8;

async fn open(url: &str) -> RedisStore {
    RedisStore::open(RedisConfig::from_url(url).unwrap()).await.unwrap()
}

/// How many increments the load makes; `cargo xtask torture` makes more.
fn increments() -> usize {
    std::env::var("CLOAKROOM_INCREMENTS").map_or(1000, |text| text.parse().unwrap())
}

fn number(record: &Record) -> usize {
    std::str::from_utf8(&record.payload).unwrap().parse().unwrap()
}

/// What became of the increments of one session.
#[derive(Clone, Copy, Default)]
struct Tally {
    acknowledged: usize,
    /// The answer was lost.
    doubtful: usize,
}

/// Many increments on many sessions at once: by version and under the lock in turns, as `update` and `start` do.
struct Load {
    store: RedisStore,
    sessions: Vec<Key>,
    tallies: Mutex<BTreeMap<usize, Tally>>,
    left: AtomicUsize,
    refused: AtomicUsize,
    /// The longest time that a session could not be changed.
    gap: Mutex<Duration>,
}

impl Load {
    async fn new(store: RedisStore, increments: usize) -> Arc<Load> {
        let sessions: Vec<_> = (0..(increments / 20).max(10)).map(|n| key(&format!("session{n}"))).collect();
        for session in &sessions {
            let made = store.commit(session, Expect::Absent, payload("0"), &wait(5_000)).await.unwrap();
            assert!(matches!(made, Outcome::Done(_)));
        }
        let (left, refused) = (AtomicUsize::new(increments), AtomicUsize::new(0));
        Arc::new(Load { store, sessions, tallies: Mutex::default(), left, refused, gap: Mutex::default() })
    }

    fn start(self: &Arc<Load>) -> Vec<tokio::task::JoinHandle<()>> {
        (0..TASKS).map(|task| tokio::spawn(Arc::clone(self).work(task))).collect()
    }

    async fn work(self: Arc<Load>, task: usize) {
        let mut turn = task;
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            turn = turn.wrapping_mul(31).wrapping_add(17 + task);
            let session = turn % self.sessions.len();
            let (begun, mut tries) = (Instant::now(), 0);
            // A visitor tries again for as long as it takes, but not what may have been done.
            loop {
                tries += 1;
                match self.increment(&self.sessions[session], tries + task).await {
                    Ok(true) => {
                        self.tallies.lock().await.entry(session).or_default().acknowledged += 1;
                        break;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict), "{error:?}");
                        self.refused.fetch_add(1, Ordering::Relaxed);
                        if error.may_have_been_applied() {
                            self.tallies.lock().await.entry(session).or_default().doubtful += 1;
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "the service does not resume by itself");
            }
            let mut gap = self.gap.lock().await;
            *gap = begun.elapsed().max(*gap);
        }
    }

    /// One try; false if somebody else was faster.
    async fn increment(&self, key: &Key, turn: usize) -> Result<bool> {
        // The service's own limits, with more patience for the lock of somebody who died.
        let deadline = Deadline::new(Duration::from_millis(250), Duration::from_secs(20));
        if turn.is_multiple_of(2) {
            let locked = self.store.lock(key, Claim::Existing, &deadline).await?;
            let locked = locked.expect("a session was lost whole");
            let next = (number(&locked.record.unwrap()) + 1).to_string();
            return match self.store.commit(key, Expect::Held(locked.lease), payload(next), &deadline).await? {
                Outcome::Done(_) => Ok(true),
                outcome => panic!("{outcome:?}"),
            };
        }
        let record = self.store.load(key, &deadline).await?.expect("a session was lost whole");
        let next = (number(&record) + 1).to_string();
        match self.store.commit(key, Expect::Is(&record.version), payload(next), &deadline).await? {
            Outcome::Done(_) => Ok(true),
            Outcome::Conflict(_) => Ok(false),
            outcome => panic!("{outcome:?}"),
        }
    }

    /// Waits for the end, and compares what was acknowledged with what is there.
    async fn check(&self, tasks: Vec<tokio::task::JoinHandle<()>>) {
        for task in tasks {
            task.await.unwrap();
        }
        let (mut acknowledged, mut doubtful) = (0, 0);
        let tallies = self.tallies.lock().await;
        for (index, session) in self.sessions.iter().enumerate() {
            let tally = tallies.get(&index).copied().unwrap_or_default();
            let record = self.store.load(session, &wait(5_000)).await.unwrap().expect("the session");
            let there = number(&record);
            assert!(there >= tally.acknowledged, "{} were acknowledged, {there} are there", tally.acknowledged);
            assert!(there <= tally.acknowledged + tally.doubtful, "something was applied twice: {there}");
            acknowledged += tally.acknowledged;
            doubtful += tally.doubtful;
        }
        println!(
            "{acknowledged} increments acknowledged and there, {doubtful} in doubt, {} refusals, the longest took {:?}",
            self.refused.load(Ordering::Relaxed),
            *self.gap.lock().await
        );
        assert!(acknowledged > 0);
    }

    /// Waits until a part of the work is done.
    async fn until(&self, share: f64, increments: usize) {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        while self.left.load(Ordering::Relaxed) as f64 > (1.0 - share) * increments as f64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_master_dies_under_load() {
    if server().is_none() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start().unwrap()).await.unwrap();
    let increments = increments();
    let prefix = prefix();
    // Acknowledged is what the replica has: without it, nobody could promise anything.
    let store =
        open(&format!("redis+cluster://{}?prefix={prefix}&wait=1&wait_timeout=0.2&lock_expire=2", cluster.hosts()))
            .await;
    let load = Load::new(store, increments).await;
    let tasks = load.start();
    load.until(0.3, increments).await;
    let session = format!("{prefix}session0");
    let master = cluster.master_of(&session).unwrap();
    master.stop();
    let others = tokio::task::spawn_blocking(move || {
        // Nothing is acknowledged while the new master has no replica; the old one becomes that.
        let old = cluster.nodes().iter().find(|node| !node.is_running()).unwrap();
        while cluster.master_of(&session).unwrap().addr() == old.addr() {}
        old.restart().unwrap();
        cluster.wait_until_whole().unwrap();
        cluster
    });
    load.check(tasks).await;
    let _cluster = others.await.unwrap();
    load.store.load(&load.sessions[0], &wait(5_000)).await.unwrap().unwrap();
}

/// To a node that is there, and to one that the cluster's map does not know before the first slot has moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load() {
    if server().is_none() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| {
        let mut cluster = RedisCluster::start().unwrap();
        cluster.add_node().unwrap();
        cluster
    });
    let cluster = cluster.await.unwrap();
    let prefix = prefix();
    let store = open(&format!("redis+cluster://{}?prefix={prefix}", cluster.hosts())).await;
    let sessions: Vec<_> = (0..8).map(|n| format!("moving{n}")).collect();
    for session in &sessions {
        store.commit(&key(session), Expect::Absent, payload("0"), &wait(5_000)).await.unwrap();
    }
    let end = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = sessions
        .iter()
        .cloned()
        .map(|session| {
            let (store, end) = (store.clone(), Arc::clone(&end));
            tokio::spawn(async move {
                let (mut done, mut refused) = (0, 0);
                while !end.load(Ordering::Relaxed) {
                    let name = key(&session);
                    let step = async {
                        let locked = store.lock(&name, Claim::Existing, &request()).await?.expect("the session");
                        let next = (number(&locked.record.unwrap()) + 1).to_string();
                        store.commit(&name, Expect::Held(locked.lease), payload(next), &request()).await
                    };
                    match step.await {
                        Ok(outcome) => {
                            assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
                            done += 1;
                        }
                        Err(error) => {
                            assert!(matches!(error.kind(), ErrorKind::Unavailable), "{error:?}");
                            assert!(!error.may_have_been_applied(), "{error:?}");
                            refused += 1;
                        }
                    }
                    // Reading goes on in the midst of a move.
                    store.load(&name, &request()).await.unwrap().expect("the session");
                }
                (session, done, refused)
            })
        })
        .collect();
    let moved = tokio::task::spawn_blocking(move || {
        let new = &cluster.nodes()[6];
        for (n, session) in sessions.iter().enumerate() {
            let key = format!("{prefix}{session}");
            let source = cluster.master_of(&key).unwrap();
            let target = if n % 2 == 0 { new } else { other_master(&cluster, source) };
            cluster.move_slot(&key, source, target, Duration::from_millis(150)).unwrap();
        }
        cluster
    });
    let _cluster = moved.await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    end.store(true, Ordering::Relaxed);
    let (mut all, mut refusals) = (0, 0);
    for task in tasks {
        let (session, done, refused) = task.await.unwrap();
        let record = store.load(&key(&session), &wait(5_000)).await.unwrap().unwrap();
        assert_eq!(number(&record), done, "{session}");
        (all, refusals) = (all + done, refusals + refused);
    }
    println!("{all} changes while 8 slots moved, {refusals} refused meanwhile");
    assert!(all > 100);
}

fn other_master<'a>(cluster: &'a RedisCluster, not: &RedisServer) -> &'a RedisServer {
    let is_master = |node: &&RedisServer| node.cli(&["info", "replication"]).unwrap().contains("role:master");
    cluster.nodes().iter().filter(is_master).find(|node| node.addr() != not.addr()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_name_another_master_under_load() {
    if server().is_none() || skip("sentinel") {
        return;
    }
    let all = tokio::task::spawn_blocking(|| RedisSentinels::start().unwrap()).await.unwrap();
    let (increments, prefix) = (increments(), prefix());
    let (hosts, service) = (all.hosts(), RedisSentinels::SERVICE);
    let store =
        open(&format!("redis+sentinel://{hosts}/{service}?prefix={prefix}&wait=1&wait_timeout=0.2&lock_expire=2"))
            .await;
    let load = Load::new(store, increments).await;
    let [master, replica] = all.servers();
    let tasks = load.start();
    load.until(0.3, increments).await;
    master.stop();
    // The new master has no replica, so that nothing is acknowledged before the old one is that. It must not come back
    // while anybody still takes it for the master: it is empty.
    all.wait_for_master(replica).unwrap();
    master.restart().unwrap();
    load.check(tasks).await;
}

#[tokio::test]
async fn replicas_answer_reads_where_that_is_asked_for() {
    if server().is_none() || skip("sentinel") {
        return;
    }
    let all = tokio::task::spawn_blocking(|| RedisSentinels::start().unwrap()).await.unwrap();
    let (hosts, service, prefix) = (all.hosts(), RedisSentinels::SERVICE, prefix());
    let url = format!("redis+sentinel://{hosts}/{service}?prefix={prefix}&wait=1");
    let (plain, replica) = (open(&url).await, open(&format!("{url}&replica=yes")).await);
    plain.commit(&key("a"), Expect::Absent, payload("1"), &wait(0)).await.unwrap();
    let gets = |server: &RedisServer| {
        let info = server.cli(&["info", "commandstats"]).unwrap();
        let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_pttl:calls=")?.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u32>().unwrap())
    };
    let before = all.servers().each_ref().map(gets);
    for store in [&plain, &replica, &replica, &replica] {
        assert!(store.load(&key("a"), &wait(0)).await.unwrap().is_some());
    }
    let after = all.servers().each_ref().map(gets);
    assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 3]);
    // Without a replica the master answers.
    all.servers()[1].stop();
    let begun = Instant::now();
    while replica.load(&key("a"), &request()).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

/// The others go on, and so do its sessions once a replica has taken over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_which_a_master_hangs() {
    if server().is_none() {
        return;
    }
    let cluster = tokio::task::spawn_blocking(|| RedisCluster::start().unwrap()).await.unwrap();
    let prefix = prefix();
    let store = open(&format!("redis+cluster://{}?prefix={prefix}", cluster.hosts())).await;
    let ids: Vec<_> = (0..60).map(|n| format!("id{n}")).collect();
    for id in &ids {
        store.commit(&key(id), Expect::Absent, payload("0"), &wait(5_000)).await.unwrap();
    }
    let master_of = |id: &str| cluster.master_of(&format!("{prefix}{id}")).unwrap().addr();
    let hung = cluster.master_of(&format!("{prefix}{}", ids[0])).unwrap();
    let (its, others): (Vec<&String>, Vec<&String>) = ids.iter().partition(|id| master_of(id) == hung.addr());
    hung.pause().unwrap();
    let begun = Instant::now();
    let (mut answered, mut late, mut back) = (0, 0, None);
    while begun.elapsed() < Duration::from_secs(30) {
        for (n, other) in others.iter().enumerate() {
            let asked = Instant::now();
            let (mine, theirs) = (key(its[n % its.len()]), key(other));
            let (a, b) = (request(), request());
            let (mine, theirs) = tokio::join!(store.load(&mine, &a), store.load(&theirs, &b));
            assert!(asked.elapsed() < Duration::from_millis(1500), "{:?}", asked.elapsed());
            match mine {
                Ok(record) => back = back.or(record.map(|_| begun.elapsed())),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
            }
            match theirs {
                Ok(record) => answered += u32::from(record.is_some()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    late += 1;
                }
            }
        }
        if back.is_some_and(|back| begun.elapsed() > back + Duration::from_secs(1)) {
            break;
        }
    }
    println!(
        "its sessions were back after {back:?}; of the others' requests {answered} were answered, {late} were not"
    );
    assert!(back.is_some() && answered > 5 * late);
    hung.resume().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in &ids {
        assert!(store.load(&key(id), &wait(0)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_clusters_replicas_answer_reads_where_that_is_asked_for() {
    let Some(cluster) = crate::util::cluster() else { return };
    let prefix = prefix();
    let url = format!("redis+cluster://{}?prefix={prefix}&wait=1", cluster.hosts());
    let replica = open(&format!("{url}&replica=yes")).await;
    for n in 0..20 {
        let name = key(&format!("id{n}"));
        let outcome = replica.commit(&name, Expect::Absent, payload("1"), &wait(0)).await.unwrap();
        let Outcome::Done(Some(version)) = outcome else { panic!("{outcome:?}") };
        assert!(replica.load(&name, &wait(0)).await.unwrap().is_some());
        let outcome = replica.commit(&name, Expect::Is(&version), payload("2"), &wait(0)).await.unwrap();
        assert!(matches!(outcome, Outcome::Done(_)));
    }
}
