//! Each session, and each lock, lies on the server on which php-memcached looks for it.

use std::net::{Ipv4Addr, SocketAddr};

use cloakroom_core::Settings;
use cloakroom_store_memcached::{MemcachedConfig, MemcachedStore};
use cloakroom_testkit::php::skip;
use cloakroom_testkit::servers::memcached::Memcached;

use crate::php::{php, run, three_beside_php};
use crate::util::{key, prefix};

/// Opens sessions and tells where their lock and, after closing, their data turn out to be.
const WHERE: &str = r#"
    $servers = explode(',', $argv[1]);
    $sockets = array_map(fn ($server) => stream_socket_client("tcp://$server"), $servers);
    $where = function (string $key) use ($sockets, $servers): string {
        foreach ($sockets as $n => $socket) {
            fwrite($socket, "mg $key\r\n");
            if (trim(fgets($socket)) === 'HD') {
                return $servers[$n];
            }
        }
        return 'nowhere';
    };
    $prefix = ini_get('memcached.sess_prefix');
    for ($n = 0; $n < $argv[2]; $n++) {
        $id = md5("session $n");
        session_id($id);
        session_start();
        $_SESSION['n'] = $n;
        $lock = $where("{$prefix}lock.$id");
        session_write_close();
        echo $id, ' ', $where("$prefix$id"), " $lock\n";
    }
"#;

const SESSIONS: usize = 300;

/// Lets PHP spread sessions over servers with these weights and settings, and looks where cloakroom, given the same
/// settings, would have put them.
async fn agrees(servers: &[Memcached], weights: &[&str], settings: &[&str]) {
    let addresses: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    let path: Vec<_> = addresses.iter().zip(weights).map(|(address, weight)| format!("{address}{weight}")).collect();
    let (path, prefix) = (path.join(","), prefix());
    let mut command = php(&path, &prefix, settings, WHERE);
    let found = run({
        command.arg("--").arg(addresses.join(",")).arg(SESSIONS.to_string());
        command
    });
    let mut ini = Settings::php_defaults();
    ini.set("session.save_path", &path).unwrap();
    ini.set("memcached.sess_prefix", &prefix).unwrap();
    for (name, value) in settings.iter().filter_map(|setting| setting.split_once('=')) {
        ini.set(name, value).unwrap();
    }
    let store = MemcachedStore::open(MemcachedConfig::from_settings(&ini).unwrap()).await.unwrap();
    let (mut split, mut shares) = (0, vec![0; servers.len()]);
    for line in found.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let [id, data, lock] = words[..] else { panic!("{line}") };
        let ours = store.servers_of(&key(id)).map(|(data, lock)| (data.to_string(), lock.to_string()));
        assert_eq!(ours, Some((data.to_owned(), lock.to_owned())), "{id}, {path}, {settings:?}");
        split += usize::from(data != lock);
        shares[addresses.iter().position(|address| address == data).unwrap()] += 1;
    }
    assert_eq!(shares.iter().sum::<usize>(), SESSIONS, "{found}");
    assert!(shares.iter().all(|share| *share > SESSIONS / 20), "{shares:?}");
    assert!(split > SESSIONS / 4, "lock and data lie on two servers as a rule, not {split} times of {SESSIONS}");
}

#[tokio::test]
async fn php_and_cloakroom_agree_on_the_server_by_default() {
    let Some(servers) = three_beside_php() else { return };
    agrees(servers, &["", "", ""], &[]).await;
    agrees(servers, &["", "", ""], &["memcached.sess_binary_protocol=0"]).await;
    agrees(&servers[..2], &["", ""], &[]).await;
}

#[tokio::test]
async fn php_and_cloakroom_agree_on_the_server_by_weight() {
    let Some(servers) = three_beside_php() else { return };
    let weighted = "memcached.sess_consistent_hash_type=ketama_weighted";
    agrees(servers, &["", "", ""], &[weighted]).await;
    agrees(servers, &[":1", ":2", ":3"], &[weighted]).await;
    agrees(servers, &[":5", ":3", ":3"], &[weighted]).await;
    agrees(servers, &[":1", ":2", ":3"], &[]).await;
    agrees(servers, &[":0", ":1", ":1"], &[weighted]).await;
}

#[tokio::test]
async fn php_and_cloakroom_agree_on_the_server_without_a_ring() {
    let Some(servers) = three_beside_php() else { return };
    agrees(servers, &["", "", ""], &["memcached.sess_consistent_hash=0"]).await;
    agrees(servers, &[":1", ":2", ":3"], &["memcached.sess_consistent_hash=0"]).await;
}

/// libmemcached leaves it out of what it hashes.
#[tokio::test]
async fn php_and_cloakroom_agree_on_servers_at_the_default_port() {
    if skip("memcached") || skip("php") {
        return;
    }
    let [_, high, low, _] = std::process::id().to_be_bytes();
    let servers = [1, 2, 3].map(|n| {
        let addr = SocketAddr::from((Ipv4Addr::new(127, high | 1, low, n), 11211));
        Memcached::start_at(addr, &["-m", "64"]).expect("memcached is needed")
    });
    agrees(&servers, &["", "", ""], &[]).await;
    agrees(&servers, &[":1", ":2", ":3"], &[]).await;
}
