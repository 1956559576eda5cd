//! Which server holds which key, as libmemcached decides it for php-memcached (`libmemcached/hosts.cc`,
//! `update_continuum`; `libmemcached/hash.cc`).
//!
//! The key that is hashed is the one without `memcached.sess_prefix`. The lock's key has a name of its own, so that
//! it may well lie on another server than the data.

use md5::{Digest, Md5};

/// Points of each server on the ring.
const POINTS: u32 = 100;
/// The same for `ketama_weighted`, on average.
const POINTS_WEIGHTED: f32 = 160.0;
/// How many points one MD5 gives where they are weighted.
const POINTS_A_HASH: u32 = 4;
/// The port that has no place in the name of a point.
const DEFAULT_PORT: u16 = 11211;

/// How keys are spread over several servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hash {
    /// php-memcached's default: consistent hashing with as many points for each server; weights are not looked at.
    /// In spite of its name it is not libketama's: libmemcached hashes with its own default function here.
    #[default]
    Ketama,
    /// `memcached.sess_consistent_hash_type=ketama_weighted`: libketama's own, with MD5 and points by weight.
    KetamaWeighted,
    /// `memcached.sess_consistent_hash=0`: a hash modulo the number of servers; weights are not looked at.
    Modula,
}

/// A server as the ring sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    /// As it was written; 10.0.0.1 and a name that leads to it are two different servers.
    pub(crate) host: &'a str,
    /// 0 for a socket in the file system.
    pub(crate) port: u16,
    pub(crate) weight: u32,
}

/// The servers' places.
#[derive(Clone, Debug)]
pub(crate) enum Ring {
    One,
    /// Points and the servers they lead to, in order, and what finds a key's place among them.
    Points(Vec<(u32, usize)>, fn(&[u8]) -> u32),
    Modula(usize),
}

impl Ring {
    pub(crate) fn new(hash: Hash, nodes: &[Node<'_>]) -> Ring {
        if nodes.len() < 2 {
            return Ring::One;
        }
        let (mut points, hash): (Vec<_>, fn(&[u8]) -> u32) = match hash {
            Hash::Modula => return Ring::Modula(nodes.len()),
            Hash::Ketama => (even(nodes), one_at_a_time),
            Hash::KetamaWeighted => (weighted(nodes), md5),
        };
        points.sort_unstable();
        Ring::Points(points, hash)
    }

    /// The number of the server that holds `key`.
    pub(crate) fn server(&self, key: &[u8]) -> usize {
        match self {
            Ring::One => 0,
            Ring::Modula(servers) => usize::try_from(one_at_a_time(key)).unwrap_or(0) % servers,
            Ring::Points(points, hash) => {
                let hash = hash(key);
                let at = points.partition_point(|(point, _)| *point < hash);
                points.get(at).or_else(|| points.first()).map_or(0, |(_, server)| *server)
            }
        }
    }
}

fn even(nodes: &[Node<'_>]) -> Vec<(u32, usize)> {
    let points = |(server, node)| (0..POINTS).map(move |n| (one_at_a_time(name(node, n).as_bytes()), server));
    nodes.iter().enumerate().flat_map(points).collect()
}

/// libmemcached counts in single precision here, and so must we, for the last point of a server depends on it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of 160 points for each of a few servers"
)]
fn weighted(nodes: &[Node<'_>]) -> Vec<(u32, usize)> {
    let total: u64 = nodes.iter().map(|node| u64::from(node.weight)).sum();
    let mut points = Vec::new();
    for (server, node) in nodes.iter().enumerate() {
        let share = node.weight as f32 / total as f32;
        let hashes = (share * POINTS_WEIGHTED / POINTS_A_HASH as f32 * nodes.len() as f32 + 0.000_000_000_1).floor();
        for n in 0..hashes as u32 {
            let hash = Md5::digest(name(node, n));
            points.extend((0..4).map(|part| (quarter(&hash, part), server)));
        }
    }
    points
}

/// What is hashed for a server's point.
fn name(node: &Node<'_>, n: u32) -> String {
    match node.port {
        DEFAULT_PORT => format!("{}-{n}", node.host),
        port => format!("{}:{port}-{n}", node.host),
    }
}

fn md5(key: &[u8]) -> u32 {
    quarter(&Md5::digest(key), 0)
}

fn quarter(hash: &[u8], part: usize) -> u32 {
    let bytes = hash.get(part * 4..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(bytes.copied().unwrap_or_default())
}

/// Bob Jenkins' hash, libmemcached's default.
fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = key.iter().fold(0_u32, |hash, byte| {
        let hash = hash.wrapping_add(u32::from(*byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ (hash >> 6)
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(weights: &[u32]) -> Vec<Node<'static>> {
        (11_210_u16..).zip(weights).map(|(port, &weight)| Node { host: "127.0.0.1", port, weight }).collect()
    }

    fn shares(hash: Hash, weights: &[u32]) -> Vec<usize> {
        let ring = Ring::new(hash, &nodes(weights));
        let mut shares = vec![0; weights.len()];
        for n in 0..10_000 {
            shares[ring.server(format!("{n:032x}").as_bytes())] += 1;
        }
        shares
    }

    #[test]
    fn one_server_has_everything() {
        assert_eq!(shares(Hash::Ketama, &[1]), [10_000]);
        assert_eq!(shares(Hash::Modula, &[5]), [10_000]);
    }

    #[test]
    fn the_default_port_has_no_place_in_a_name() {
        assert_eq!(name(&Node { host: "a", port: 11211, weight: 1 }, 7), "a-7");
        assert_eq!(name(&Node { host: "a", port: 11212, weight: 1 }, 7), "a:11212-7");
        assert_eq!(name(&Node { host: "/run/m.sock", port: 0, weight: 1 }, 0), "/run/m.sock:0-0");
    }

    #[test]
    fn every_server_has_its_share() {
        for hash in [Hash::Ketama, Hash::KetamaWeighted, Hash::Modula] {
            assert!(shares(hash, &[1, 1, 1]).iter().all(|share| (2000..4700).contains(share)), "{hash:?}");
        }
        let shares = shares(Hash::KetamaWeighted, &[3, 1]);
        assert!((6500..8500).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn a_server_more_moves_only_what_it_takes() {
        let (three, four) = (Ring::new(Hash::Ketama, &nodes(&[1; 3])), Ring::new(Hash::Ketama, &nodes(&[1; 4])));
        for n in 0..1000 {
            let key = format!("{n}");
            let (before, after) = (three.server(key.as_bytes()), four.server(key.as_bytes()));
            assert!(after == before || after == 3, "{key} moved from {before} to {after}");
        }
    }
}
