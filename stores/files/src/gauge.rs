//! Where system calls are made: on the thread that asks, or on tokio's blocking pool.
//!
//! A hop to another thread and back costs more than reading a whole small session, so that small things are done at
//! once, until the file system shows that it is slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::{FilesConfig, Io};

/// The largest record that is read or written at once.
pub(crate) const SMALL: u64 = 64 * 1024;
/// A call that took longer was a slow one.
const SLOW: Duration = Duration::from_millis(1);
/// So many of the last 64 calls have to be slow: on a busy machine a single one only shows that the thread had to wait
/// for a processor, and a thread of the pool would have had to wait as well.
const SLOW_CALLS: u32 = 4;
/// For so long everything goes to the pool then.
const PENALTY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Gauge {
    io: Io,
    /// Calls to the file system do not go over a network or to another process.
    local: bool,
    born: Instant,
    /// In nanoseconds since `born`; 0 for never.
    pool_until: AtomicU64,
    /// The last 64 calls, one bit each: 1 for a slow one. A bit that is lost in a race does no harm.
    recent: AtomicU64,
    slow: AtomicU64,
}

impl Gauge {
    pub(crate) fn new(config: &FilesConfig) -> Gauge {
        let local = is_local(config);
        let zero = || AtomicU64::new(0);
        Gauge { io: config.io, local, born: Instant::now(), pool_until: zero(), recent: zero(), slow: zero() }
    }

    /// When an inline call begins; `None` if it has to go to the pool.
    pub(crate) fn inline(&self) -> Option<Instant> {
        match self.io {
            Io::Pool => None,
            Io::Inline => Some(Instant::now()),
            Io::Auto if !self.local => None,
            Io::Auto => {
                let now = Instant::now();
                let until = self.pool_until.load(Ordering::Relaxed);
                (until == 0 || until <= nanos(now - self.born)).then_some(now)
            }
        }
    }

    /// The largest record for an inline call.
    pub(crate) fn largest(&self) -> u64 {
        if self.io == Io::Inline { u64::MAX } else { SMALL }
    }

    /// An inline call has ended.
    pub(crate) fn note(&self, begun: Instant) -> Duration {
        let now = Instant::now();
        let took = now - begun;
        let is_slow = took > SLOW;
        let recent = self.recent.load(Ordering::Relaxed) << 1 | u64::from(is_slow);
        self.recent.store(recent, Ordering::Relaxed);
        if is_slow {
            self.slow.fetch_add(1, Ordering::Relaxed);
            if recent.count_ones() >= SLOW_CALLS {
                tracing::debug!(?took, "the file system is slow; the next calls go to the blocking pool");
                self.recent.store(0, Ordering::Relaxed);
                self.pool_until.store(nanos(now + PENALTY - self.born), Ordering::Relaxed);
            }
        }
        took
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
fn is_local(config: &FilesConfig) -> bool {
    /// linux/magic.h: NFS, SMB, CIFS, SMB2, FUSE (virtiofs too), 9P, AFS, Coda, NCP, Ceph, Lustre, GFS2, OCFS2, VirtualBox.
    const REMOTE: [u32; 14] = [
        0x6969,
        0x517b,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x0102_1997,
        0x5346_414f,
        0x7375_7245,
        0x564c,
        0x00c3_6400,
        0x0bd0_0bd0,
        0x0116_1970,
        0x7461_636f,
        0x786f_4256,
    ];
    // f_type is signed on some machines.
    let kind = rustix::fs::statfs(config.path.as_path()).map_or(0, |stat| i128::from(stat.f_type) & 0xffff_ffff);
    !REMOTE.iter().any(|&remote| i128::from(remote) == kind)
}

#[cfg(not(target_os = "linux"))]
fn is_local(_config: &FilesConfig) -> bool {
    // Not known; the time that calls take will tell.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_calls_move_the_store_to_the_pool() {
        let gauge = Gauge::new(&FilesConfig::new("/"));
        let begun = gauge.inline().unwrap();
        let long_ago = begun.checked_sub(2 * SLOW).unwrap();
        for _ in 1..SLOW_CALLS {
            gauge.note(long_ago);
            gauge.note(Instant::now());
            assert!(gauge.inline().is_some());
        }
        gauge.note(long_ago);
        assert!(gauge.inline().is_none());
        assert_eq!(gauge.slow(), u64::from(SLOW_CALLS));
        gauge.pool_until.store(1, Ordering::Relaxed);
        assert!(gauge.inline().is_some());
        assert!(Gauge::new(&FilesConfig::new("/").io(Io::Pool)).inline().is_none());
        let inline = Gauge::new(&FilesConfig::new("/").io(Io::Inline));
        inline.note(begun.checked_sub(2 * SLOW).unwrap());
        assert!(inline.inline().is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn network_and_user_space_file_systems_are_not_local() {
        assert!(is_local(&FilesConfig::new("/tmp")));
    }
}
