//! How a connection is made: to one server, to the master that the sentinels name, to a cluster.

use std::path::Path;
use std::time::Duration;

use cloakroom_core::{Error, Result};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::cluster_read_routing::RandomReplicaStrategy;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::config::{Login, RedisAddress, RedisConfig, RedisServer, RedisServers};
use crate::link::{self, Wire};

/// Asking the sentinels, or a cluster for its map, takes a few exchanges more than connecting. It is also what a node of
/// a cluster may take for one answer: the client asks nodes whether they live, and answers nobody until they have.
const STEPS: u32 = 4;

/// Where to, and how.
pub(crate) struct Dial {
    to: To,
    connect_timeout: Duration,
}

enum To {
    One(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(Box<(ClusterClient, Node)>),
}

/// Which master serves which slots of a cluster: first slot, last slot, where.
pub(crate) type Masters = Vec<(i64, i64, String)>;

/// What it takes to connect to one node of a cluster.
struct Node {
    tls: bool,
    login: Login,
    certificates: Option<TlsCertificates>,
}

impl Dial {
    /// A server of several.
    pub(crate) fn server(server: &RedisServer, config: &RedisConfig) -> Result<Dial> {
        let certificates = certificates(config, [&server.address])?;
        let client = client(&server.address, &server.login, server.database, certificates.as_ref())?;
        Ok(Dial { to: To::One(Box::new(client)), connect_timeout: config.connect_timeout })
    }

    /// The cluster, or what the sentinels watch: its master, or `replica` of it.
    pub(crate) fn group(config: &RedisConfig, replica: bool) -> Result<Dial> {
        let to = match &config.servers {
            RedisServers::Cluster { seeds, login } => {
                let certificates = certificates(config, seeds)?;
                let node = Node { tls: seeds.iter().any(is_tls), login: login.clone(), certificates };
                To::Cluster(Box::new((node.cluster(seeds, config)?, node)))
            }
            RedisServers::Sentinel { sentinels, service, sentinel_login, login, database } => {
                let certificates = certificates(config, sentinels)?;
                let kind = if replica { SentinelServerType::Replica } else { SentinelServerType::Master };
                let addresses = sentinels.iter().map(connection_address);
                let mut builder = SentinelClientBuilder::new(addresses, service, kind)
                    .map_err(|error| wrong(&error))?
                    .set_client_to_redis_db((*database).into())
                    .set_client_to_redis_protocol(ProtocolVersion::RESP3)
                    .set_client_to_redis_tcp_settings(tcp(config.connect_timeout))
                    .set_client_to_sentinel_tcp_settings(tcp(config.connect_timeout));
                if sentinels.iter().any(is_tls) {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                }
                if let Some(certificates) = certificates {
                    builder = builder
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_certificates(certificates);
                }
                if let Some(password) = &login.password {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(user) = &login.user {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = &sentinel_login.password {
                    builder = builder.set_client_to_sentinel_password(password);
                }
                if let Some(user) = &sentinel_login.user {
                    builder = builder.set_client_to_sentinel_username(user);
                }
                To::Sentinel(Box::new(Mutex::new(builder.build().map_err(|error| wrong(&error))?)))
            }
            RedisServers::Single(_) => return Err(Error::config("several Redis servers are not a group")),
        };
        Ok(Dial { to, connect_timeout: config.connect_timeout })
    }

    /// Connects; `closed` is told when the connection breaks.
    pub(crate) async fn connect(
        &self,
        closed: impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static,
    ) -> RedisResult<Wire> {
        let config = link::setup(self.connect_timeout, closed);
        match &self.to {
            To::One(client) => client.get_multiplexed_async_connection_with_config(&config).await.map(Wire::One),
            To::Sentinel(client) => {
                let limit = self.connect_timeout * STEPS;
                let connect = async { client.lock().await.get_async_connection_with_config(&config).await };
                tokio::time::timeout(limit, connect).await.unwrap_or_else(|_| Err(late())).map(Wire::One)
            }
            To::Cluster(cluster) => {
                let limit = self.connect_timeout * STEPS;
                let connect = async {
                    let connection = cluster.0.get_async_connection().await?;
                    let masters = masters(&connection, self.connect_timeout).await?;
                    Ok(Wire::Cluster(connection, masters.into()))
                };
                tokio::time::timeout(limit, connect).await.unwrap_or_else(|_| Err(late()))
            }
        }
    }

    /// Asks a node that a cluster's `ASK` has named. It may be one of which the cluster's map knows nothing yet; while
    /// a slot moves, that is the case for few requests, so that a connection for each is good enough.
    pub(crate) async fn ask_once(&self, host: &str, port: u16, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let To::Cluster(cluster) = &self.to else { return Err(late()) };
        let node = &cluster.1;
        let address = if node.tls { RedisAddress::Tls } else { RedisAddress::Tcp };
        let client = client(&address(host.to_owned(), port), &node.login, 0, node.certificates.as_ref());
        let client = client.map_err(|_| late())?;
        // Each command of a pipeline wants its own permission.
        let (mut asking, mut answers) = (Pipeline::with_capacity(pipeline.len() * 2), Vec::new());
        for command in pipeline.cmd_iter() {
            asking.cmd("ASKING").add_command(command.clone());
        }
        let config = link::setup(self.connect_timeout, |_| Ok(()));
        let all = link::once(&client, &config, &asking).await?;
        answers.extend(all.into_iter().skip(1).step_by(2));
        Ok(answers)
    }
}

impl Node {
    fn cluster(&self, seeds: &[RedisAddress], config: &RedisConfig) -> Result<ClusterClient> {
        let infos = seeds.iter().map(|seed| information(seed, &Login::default(), 0));
        let infos = infos.collect::<RedisResult<Vec<_>>>().map_err(|error| wrong(&error))?;
        let mut builder = ClusterClientBuilder::new(infos)
            // What may be sent again is decided in `Link::ask`.
            .retries(0)
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(config.connect_timeout)
            .response_timeout(config.connect_timeout * STEPS)
            .overall_response_timeout(None)
            .tcp_settings(tcp(config.connect_timeout));
        if let Some(password) = &self.login.password {
            builder = builder.password(password);
        }
        if let Some(user) = &self.login.user {
            builder = builder.username(user);
        }
        if self.tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        if config.replica {
            builder = builder.read_routing_strategy(RandomReplicaStrategy);
        }
        builder.build().map_err(|error| wrong(&error))
    }
}

/// Asks any node for the map of the cluster; another one where that one does not answer.
pub(crate) async fn masters(connection: &ClusterConnection, limit: Duration) -> RedisResult<Masters> {
    const NODES: usize = 3;
    let ask = || {
        let (mut connection, mut slots) = (connection.clone(), redis::cmd("CLUSTER"));
        slots.arg("SLOTS");
        let anywhere = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
        tokio::time::timeout(limit, async move { connection.route_command(slots, anywhere).await })
    };
    for _ in 1..NODES {
        if let Ok(Ok(map)) = ask().await {
            return read_masters(map);
        }
    }
    ask().await.unwrap_or_else(|_| Err(late())).and_then(read_masters)
}

/// `CLUSTER SLOTS`: for each range its ends, its master, its replicas; for each node its host, its port, and more.
fn read_masters(map: Value) -> RedisResult<Masters> {
    let mut masters = Masters::new();
    for range in redis::from_redis_value::<Vec<Vec<Value>>>(map)? {
        let mut range = range.into_iter();
        let (Some(first), Some(last), Some(master)) = (range.next(), range.next(), range.next()) else { continue };
        let mut master = redis::from_redis_value::<Vec<Value>>(master)?.into_iter();
        let (Some(host), Some(port)) = (master.next(), master.next()) else { continue };
        // A node that does not know its own host says nothing.
        let host = redis::from_redis_value::<Option<String>>(host)?.unwrap_or_default();
        let port = redis::from_redis_value::<i64>(port)?;
        masters.push((redis::from_redis_value(first)?, redis::from_redis_value(last)?, format!("{host}:{port}")));
    }
    masters.sort();
    Ok(masters)
}

fn client(address: &RedisAddress, login: &Login, database: u16, tls: Option<&TlsCertificates>) -> Result<Client> {
    let info = information(address, login, database).map_err(|error| wrong(&error))?;
    match tls.filter(|_| is_tls(address)) {
        Some(tls) => Client::build_with_tls(info, tls.clone()),
        None => Client::open(info),
    }
    .map_err(|error| wrong(&error))
}

fn information(address: &RedisAddress, login: &Login, database: u16) -> RedisResult<ConnectionInfo> {
    let mut redis = RedisConnectionInfo::default().set_db(database.into()).set_protocol(ProtocolVersion::RESP3);
    if let Some(password) = &login.password {
        redis = redis.set_password(password);
    }
    if let Some(user) = &login.user {
        redis = redis.set_username(user);
    }
    let info = connection_address(address).into_connection_info()?;
    Ok(info.set_redis_settings(redis).set_tcp_settings(tcp(Duration::from_secs(1))))
}

fn connection_address(address: &RedisAddress) -> ConnectionAddr {
    match address {
        RedisAddress::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
        RedisAddress::Tls(host, port) => {
            ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
        }
        RedisAddress::Unix(path) => ConnectionAddr::Unix(path.clone()),
    }
}

/// Small requests go out at once, and a dead peer is found out soon.
fn tcp(timeout: Duration) -> TcpSettings {
    let settings = TcpSettings::default().set_nodelay(true);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(timeout.max(Duration::from_millis(500)));
    #[cfg(not(target_os = "linux"))]
    let _ = timeout;
    settings
}

fn is_tls(address: &RedisAddress) -> bool {
    matches!(address, RedisAddress::Tls(..))
}

/// The certificates of the files that are named, where TLS is spoken at all.
fn certificates<'a>(
    config: &RedisConfig,
    addresses: impl IntoIterator<Item = &'a RedisAddress>,
) -> Result<Option<TlsCertificates>> {
    if !addresses.into_iter().any(is_tls) {
        return Ok(None);
    }
    // redis-rs takes the process's provider of cryptography, and rustls would rather panic than choose one of two.
    // Where the application has chosen, it stays with that.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = |path: &Path| {
        let told = || Error::config(format!("the certificate file {} cannot be read", path.display()));
        std::fs::read(path).map_err(|error| told().with_source(error))
    };
    let client_tls = match (&config.cert, &config.key) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        _ => None,
    };
    let root_cert = config.ca.as_deref().map(read).transpose()?;
    Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}

/// An address or a certificate that the client does not take. Its words may repeat what it was given.
fn wrong(_: &RedisError) -> Error {
    Error::config("the Redis client does not take this address or these certificates")
}

fn late() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}
