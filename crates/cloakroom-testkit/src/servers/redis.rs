//! Redis: one server, a master with its replica under sentinels, a cluster of three masters and three replicas.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{Doing, Failure, Result};
use crate::process::{Process, free_addr, give_to_ordinary_user};

/// How long a cluster or the sentinels may take until they have found each other.
const MEETING: Duration = Duration::from_secs(60);

/// `redis-server`, without anything on disk. It can be stopped and started again where it was.
#[derive(Debug)]
pub struct RedisServer {
    addr: SocketAddr,
    options: Vec<String>,
    password: Option<String>,
    /// Where it keeps what has to survive a restart.
    dir: TempDir,
    process: Mutex<Option<Process>>,
}

impl RedisServer {
    /// Starts one; options are those of its command line: `["--maxmemory", "2mb"]`.
    pub fn start(options: &[&str]) -> Result<RedisServer> {
        RedisServer::start_with(options.iter().map(|&option| option.to_owned()).collect())
    }

    fn start_with(options: Vec<String>) -> Result<RedisServer> {
        let dir = tempfile::Builder::new().prefix("cloakroom-redis-").tempdir().doing(|| "a directory".to_owned())?;
        give_to_ordinary_user(dir.path())?;
        let process = Process::start_shared("redis", |addr, _| command(addr, dir.path(), &options))?;
        let password = options.iter().position(|option| option == "--requirepass").map(|at| options[at + 1].clone());
        Ok(RedisServer { addr: process.addr(), options, password, dir, process: Mutex::new(Some(process)) })
    }

    /// Where it listens, whether or not it runs.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it runs, or was stopped.
    pub fn is_running(&self) -> bool {
        self.open().is_some()
    }

    /// Kills it.
    pub fn stop(&self) {
        self.open().take();
    }

    /// Starts it again at the same address, empty.
    pub fn restart(&self) -> Result<()> {
        let mut process = self.open();
        process.take();
        let start =
            || Process::start_shared_at("redis", self.addr, |addr, _| command(addr, self.dir.path(), &self.options));
        *process = Some(start()?);
        Ok(())
    }

    /// Lets it hold its connections and answer nothing.
    pub fn pause(&self) -> Result<()> {
        self.open().as_ref().map_or(Ok(()), Process::pause)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.open().as_ref().map_or(Ok(()), Process::resume)
    }

    /// Waits until a replica has told that it is up to date. Before it has done so once, it answers no `WAIT`.
    pub fn wait_for_replica(&self) -> Result<()> {
        until("a replica", || {
            let info = self.cli(&["info", "replication"])?;
            Ok(info.lines().any(|line| line.contains("state=online,offset=") && !line.contains("offset=0,")))
        })
    }

    /// What `redis-cli` says to a command.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        cli(self.addr, self.password.as_deref(), arguments)
    }

    fn open(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn command(addr: SocketAddr, dir: &Path, options: &[String]) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.arg("--port").arg(addr.port().to_string()).arg("--dir").arg(dir).args(options);
    command
}

fn cli(addr: SocketAddr, password: Option<&str>, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "--no-auth-warning"]);
    if let Some(password) = password {
        command.args(["-a", password]);
    }
    output(command.args(arguments))
}

fn output(command: &mut Command) -> Result<String> {
    let done = command.output().doing(|| format!("running {}", command.get_program().display()))?;
    let text = String::from_utf8_lossy(&done.stdout).trim_end().to_owned();
    if done.status.success() {
        return Ok(text);
    }
    Err(Failure::new(format!("{command:?}: {text}{}", String::from_utf8_lossy(&done.stderr))))
}

/// Asks until the answer is right.
fn until(what: &str, mut right: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < MEETING {
        if right().unwrap_or(false) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(Failure::new(format!("{what}: not within {MEETING:?}")))
}

/// Three masters with a replica each.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts six servers, makes a cluster of them and waits until all of them agree.
    pub fn start() -> Result<RedisCluster> {
        let mut nodes = Vec::new();
        let mut addresses = Vec::new();
        for _ in 0..6 {
            let (node, address) = RedisCluster::node()?;
            nodes.push(node);
            addresses.push(address);
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
        output(&mut create)?;
        let cluster = RedisCluster { nodes };
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// One node that belongs to no cluster yet, and how `redis-cli` is told of it: with its bus, whose port would
    /// be out of range by Redis' own rule.
    fn node() -> Result<(RedisServer, String)> {
        let bus = free_addr()?.port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
        let node = RedisServer::start(&options)?;
        let address = format!("{}@{bus}", node.addr());
        Ok((node, address))
    }

    /// All nodes, in no order that means anything.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes as `a:1,b:2,…`, for a URL.
    pub fn hosts(&self) -> String {
        self.nodes.iter().map(|node| node.addr().to_string()).collect::<Vec<_>>().join(",")
    }

    /// Adds a node without slots.
    pub fn add_node(&mut self) -> Result<()> {
        let (node, address) = RedisCluster::node()?;
        let first = self.nodes[0].addr().to_string();
        output(Command::new("redis-cli").args(["--cluster", "add-node", &address, &first]))?;
        self.nodes.push(node);
        self.wait_until_whole()
    }

    /// Waits until every node that runs knows all slots served and every replica in touch with its master.
    pub fn wait_until_whole(&self) -> Result<()> {
        until("the cluster is whole", || {
            let mut whole = true;
            for node in &self.nodes {
                let info = node.cli(&["cluster", "info"])?;
                let replication = node.cli(&["info", "replication"])?;
                let known = format!("cluster_known_nodes:{}", self.nodes.len());
                whole &= info.contains("cluster_state:ok") && info.contains(&known);
                whole &= !replication.contains("master_link_status:down");
                let members = node.cli(&["cluster", "nodes"])?;
                whole &= members.lines().count() == self.nodes.len() && !members.contains("fail");
            }
            Ok(whole)
        })
    }

    /// The master that serves a key.
    pub fn master_of(&self, key: &str) -> Result<&RedisServer> {
        let mut found = None;
        until("a master for the key", || {
            for node in self.nodes.iter().filter(|node| node.is_running()) {
                if node.cli(&["exists", key]).is_ok_and(|answer| answer == "0" || answer == "1")
                    && node.cli(&["info", "replication"])?.contains("role:master")
                {
                    found = Some(node);
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        found.ok_or_else(|| Failure::new("no node serves the key"))
    }

    /// Moves the slot of a key from one master to another, one key after the other, with a pause in the midst.
    pub fn move_slot(&self, key: &str, from: &RedisServer, to: &RedisServer, pause: Duration) -> Result<()> {
        let slot = from.cli(&["cluster", "keyslot", key])?;
        let (source, target) = (from.cli(&["cluster", "myid"])?, to.cli(&["cluster", "myid"])?);
        to.cli(&["cluster", "setslot", &slot, "importing", &source])?;
        from.cli(&["cluster", "setslot", &slot, "migrating", &target])?;
        thread::sleep(pause);
        let port = to.addr().port().to_string();
        loop {
            let keys = from.cli(&["cluster", "getkeysinslot", &slot, "10"])?;
            let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
            if keys.is_empty() {
                break;
            }
            let command = ["migrate", "127.0.0.1", &port, "", "0", "5000", "keys"];
            from.cli(&[&command[..], &keys].concat())?;
        }
        // The key is there, and the map still says here.
        thread::sleep(pause);
        let masters = self
            .nodes
            .iter()
            .filter(|node| node.cli(&["info", "replication"]).is_ok_and(|info| info.contains("role:master")));
        for node in [to, from].into_iter().chain(masters) {
            node.cli(&["cluster", "setslot", &slot, "node", &target])?;
        }
        Ok(())
    }

    /// The master that a replica of this master's has become, or will be.
    pub fn replica_of(&self, master: &RedisServer) -> Result<&RedisServer> {
        let port = format!("master_port:{}", master.addr().port());
        let replica = self.nodes.iter().find(|node| {
            node.open().is_some()
                && node.cli(&["info", "replication"]).is_ok_and(|info| info.lines().any(|line| line.trim() == port))
        });
        replica.ok_or_else(|| Failure::new("the master has no replica"))
    }
}

/// A master with one replica, and three sentinels of which two decide.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: [RedisServer; 2],
    sentinels: Vec<Process>,
}

impl RedisSentinels {
    /// What the sentinels call the master.
    pub const SERVICE: &str = "themaster";

    /// Starts them and waits until they know each other.
    pub fn start() -> Result<RedisSentinels> {
        let options = ["--repl-diskless-sync-delay", "0"];
        let master = RedisServer::start(&options)?;
        let port = master.addr().port().to_string();
        let replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {port}"), options[0], options[1]])?;
        let service = RedisSentinels::SERVICE;
        let sentinel = |_| {
            Process::start_shared("redis-sentinel", |addr, own| {
                let file = own.join("sentinel.conf");
                let text = format!(
                    "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor {service} 127.0.0.1 {port} 2\n\
                     sentinel down-after-milliseconds {service} 600\nsentinel failover-timeout {service} 3000\n",
                    addr.port(),
                    own.display()
                );
                // A file that cannot be written makes a sentinel that does not start.
                let _ = std::fs::write(&file, text).map(|()| give_to_ordinary_user(&file));
                let mut command = Command::new("redis-server");
                command.arg(file).arg("--sentinel");
                command
            })
        };
        let sentinels = (0..3).map(sentinel).collect::<Result<Vec<_>>>()?;
        let all = RedisSentinels { servers: [master, replica], sentinels };
        until("the sentinels know each other and the replica", || {
            for sentinel in &all.sentinels {
                let told = cli(sentinel.addr(), None, &["sentinel", "master", service])?;
                let told: Vec<&str> = told.lines().collect();
                let value = |name: &str| told.iter().position(|line| *line == name).map(|at| told[at + 1]);
                if value("num-slaves") != Some("1")
                    || value("num-other-sentinels") != Some("2")
                    || value("flags") != Some("master")
                {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        all.servers[0].wait_for_replica()?;
        Ok(all)
    }

    /// The master and its replica, as they were at the start.
    pub fn servers(&self) -> &[RedisServer; 2] {
        &self.servers
    }

    /// Waits until all sentinels agree on a master.
    pub fn wait_for_master(&self, master: &RedisServer) -> Result<()> {
        let port = master.addr().port().to_string();
        until("the sentinels agree on another master", || {
            for sentinel in &self.sentinels {
                let told =
                    cli(sentinel.addr(), None, &["sentinel", "get-master-addr-by-name", RedisSentinels::SERVICE])?;
                if told.lines().last() != Some(&port) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// The sentinels as `a:1,b:2,c:3`, for a URL.
    pub fn hosts(&self) -> String {
        self.sentinels.iter().map(|one| one.addr().to_string()).collect::<Vec<_>>().join(",")
    }
}

/// Makes a certificate authority and a certificate for `localhost` in a directory: the files `ca.pem`, `server.pem` and
/// `server.key`.
pub fn certificates(dir: &Path) -> Result<[PathBuf; 3]> {
    let path = |name: &str| dir.join(name);
    let openssl = |arguments: &[&str]| output(Command::new("openssl").args(arguments).current_dir(dir)).map(drop);
    let name = [
        "-subj",
        "/CN=cloakroom tests",
        "-days",
        "30",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ];
    openssl(&[&["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem"], &name[..]].concat())?;
    openssl(&[
        "req",
        "-subj",
        "/CN=localhost",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ])?;
    std::fs::write(path("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        .doing(|| "writing names".to_owned())?;
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-days",
        "30",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    ])?;
    for file in ["server.key", "server.pem", "ca.pem"] {
        give_to_ordinary_user(&path(file))?;
    }
    Ok([path("ca.pem"), path("server.pem"), path("server.key")])
}

/// For the [suite of failures](crate::network).
#[expect(clippy::expect_used, reason = "this crate is made of tests")]
impl crate::network::Server for RedisServer {
    fn stop(&self) {
        RedisServer::stop(self);
    }

    fn restart(&self) {
        RedisServer::restart(self).expect("redis comes back");
    }

    fn pause(&self) {
        RedisServer::pause(self).expect("redis can be paused");
    }

    fn resume(&self) {
        RedisServer::resume(self).expect("redis can go on");
    }

    /// It is started without anything on disk.
    fn keeps_records(&self) -> bool {
        false
    }
}
