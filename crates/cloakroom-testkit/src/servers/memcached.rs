//! Memcached.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Doing, Result};
use crate::process::Process;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// `memcached`. It can be stopped and started again where it was.
#[derive(Debug)]
pub struct Memcached {
    addr: SocketAddr,
    process: Mutex<Option<Process>>,
}

impl Memcached {
    /// Starts one; options are those of its command line: `["-m", "64"]`.
    pub fn start(options: &[&str]) -> Result<Memcached> {
        let process = Process::start_shared("memcached", |addr, _: &Path| command(addr, options))?;
        Ok(Memcached { addr: process.addr(), process: Mutex::new(Some(process)) })
    }

    /// [`start`](Memcached::start) at this very address.
    pub fn start_at(addr: SocketAddr, options: &[&str]) -> Result<Memcached> {
        let process = Process::start_shared_at("memcached", addr, |addr, _: &Path| command(addr, options))?;
        Ok(Memcached { addr, process: Mutex::new(Some(process)) })
    }

    /// Where it listens, whether or not it runs.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Kills it.
    pub fn stop(&self) {
        self.open().take();
    }

    /// Starts it again at the same address, empty, with these options.
    pub fn restart(&self, options: &[&str]) -> Result<()> {
        let mut process = self.open();
        process.take();
        *process = Some(Process::start_shared_at("memcached", self.addr, |addr, _: &Path| command(addr, options))?);
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

    /// Sends a command (and its data, where it has some) and gives the first line of the answer.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut line = String::new();
        self.connect(command)?.read_line(&mut line).doing(|| format!("asking memcached: {command}"))?;
        Ok(line.trim_end().to_owned())
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let doing = || format!("reading {key} from memcached");
        let mut answer = self.connect(&format!("mg {key} v"))?;
        let mut line = String::new();
        answer.read_line(&mut line).doing(doing)?;
        let Some(length) = line.strip_prefix("VA ").and_then(|rest| rest.split_whitespace().next()) else {
            return Ok(None);
        };
        let mut value = vec![0; length.parse().doing(doing)?];
        answer.read_exact(&mut value).doing(doing)?;
        Ok(Some(value))
    }

    /// What is left of a key's life in seconds: -1 for one without end, `None` for a key that is not there.
    pub fn ttl(&self, key: &str) -> Result<Option<i64>> {
        let line = self.ask(&format!("mg {key} t"))?;
        Ok(line.strip_prefix("HD t").and_then(|ttl| ttl.parse().ok()))
    }

    /// One of the numbers of `stats`.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let doing = || "asking memcached for stats".to_owned();
        for line in self.connect("stats")?.lines() {
            let line = line.doing(doing)?;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["END"] => break,
                ["STAT", stat, value] if stat == name => return value.parse().doing(doing),
                _ => {}
            }
        }
        Ok(0)
    }

    /// The keys of all items.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for line in self.connect("lru_crawler metadump all")?.lines() {
            let line = line.doing(|| "asking memcached for its keys".to_owned())?;
            if line.starts_with("END") {
                break;
            }
            if let Some(key) = line.strip_prefix("key=").and_then(|rest| rest.split_whitespace().next()) {
                keys.push(key.replace("%3A", ":").replace("%2C", ","));
            }
        }
        Ok(keys)
    }

    fn connect(&self, command: &str) -> Result<BufReader<TcpStream>> {
        let doing = || format!("asking memcached: {command}");
        let mut stream = TcpStream::connect(self.addr).doing(doing)?;
        stream.set_read_timeout(Some(PATIENCE)).doing(doing)?;
        stream.write_all(format!("{command}\r\n").as_bytes()).doing(doing)?;
        Ok(BufReader::new(stream))
    }

    fn open(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn command(addr: SocketAddr, options: &[&str]) -> Command {
    let mut command = Command::new("memcached");
    command.arg("-l").arg(addr.ip().to_string()).arg("-p").arg(addr.port().to_string());
    command.args(["-U", "0", "-t", "2"]).args(options);
    command
}

/// For the [suite of failures](crate::network).
#[expect(clippy::expect_used, reason = "this crate is made of tests")]
impl crate::network::Server for Memcached {
    fn stop(&self) {
        Memcached::stop(self);
    }

    fn restart(&self) {
        Memcached::restart(self, &[]).expect("memcached comes back");
    }

    fn pause(&self) {
        Memcached::pause(self).expect("memcached can be paused");
    }

    fn resume(&self) {
        Memcached::resume(self).expect("memcached can go on");
    }

    fn keeps_records(&self) -> bool {
        false
    }
}
