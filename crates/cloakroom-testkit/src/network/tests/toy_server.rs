//! A small server for sessions: lines and bytes over TCP, records and locks in memory.
//!
//! A message is a line of words, the last of which is the length of the bytes that follow it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::network::Server;

#[derive(Default)]
struct Table {
    records: HashMap<String, Entry>,
    locks: HashMap<String, (String, Instant)>,
    versions: u64,
}

#[derive(Clone)]
struct Entry {
    payload: Vec<u8>,
    version: u64,
    ends: Instant,
}

/// A server that can be stopped and paused.
pub(super) struct ToyServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    paused: bool,
    open: Vec<TcpStream>,
}

impl ToyServer {
    pub(super) fn start() -> ToyServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut state = accepting.state.lock().unwrap();
                // A stopped server is one that hangs up at once: behind a proxy that looks the same.
                if !state.stopped {
                    state.open.push(stream.try_clone().unwrap());
                    let shared = Arc::clone(&accepting);
                    thread::spawn(move || serve(stream, &shared));
                }
            }
        });
        ToyServer { addr, shared }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Makes a record older.
    pub(super) fn age(&self, key: &str, by: Duration) {
        if let Some(entry) = self.shared.table.lock().unwrap().records.get_mut(key) {
            entry.ends -= by;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

impl Server for ToyServer {
    fn stop(&self) {
        self.change(|state| {
            state.stopped = true;
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
        *self.shared.table.lock().unwrap() = Table::default();
    }

    fn restart(&self) {
        self.change(|state| state.stopped = false);
    }

    fn pause(&self) {
        self.change(|state| state.paused = true);
    }

    fn resume(&self) {
        self.change(|state| state.paused = false);
    }

    fn keeps_records(&self) -> bool {
        false
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 0) && line.ends_with('\n') {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut body = vec![0; words.last().unwrap().parse().unwrap()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        drop(shared.changed.wait_while(shared.state.lock().unwrap(), |state| state.paused).unwrap());
        let (reply, body) = shared.table.lock().unwrap().answer(&words, body);
        let message = [format!("{reply} {}\n", body.len()).into_bytes(), body].concat();
        if writer.write_all(&message).is_err() {
            return;
        }
        line.clear();
    }
}

impl Table {
    fn answer(&mut self, words: &[&str], body: Vec<u8>) -> (String, Vec<u8>) {
        let now = Instant::now();
        self.records.retain(|_, entry| entry.ends > now);
        self.locks.retain(|_, (_, ends)| *ends > now);
        let key = words[1].to_owned();
        let found = self.records.get(&key).cloned();
        match words {
            ["GET", ..] => tell("SOME", found, now),
            ["LOCK", _, claim, token, life, _] => {
                if self.locks.contains_key(&key) {
                    return plain("BUSY");
                }
                if (*claim == "existing" && found.is_none()) || (*claim == "new" && found.is_some()) {
                    return plain("UNMET");
                }
                self.locks.insert(key, ((*token).to_owned(), now + millis(life)));
                tell("SOME", found, now)
            }
            ["FREE", _, token, _] => {
                if self.locks.get(&key).is_some_and(|(held, _)| held == token) {
                    self.locks.remove(&key);
                }
                plain("DONE 0")
            }
            ["PUT", _, expect, what, life, _] => {
                let holder = self.locks.get(&key).map(|(token, _)| token.as_str());
                match expect.split_once(':') {
                    Some(("held", token)) if holder != Some(token) => {
                        return plain(if found.is_some() { "LOST" } else { "GONE" });
                    }
                    Some(("held", _)) => _ = self.locks.remove(&key),
                    _ if holder.is_some() && *what != "touch" => return plain("BUSY"),
                    _ => {}
                }
                match (expect.split_once(':'), &found) {
                    (None, Some(_)) if *expect == "absent" => return plain("TAKEN"),
                    (None, None) if *expect == "any" => return plain("GONE"),
                    (Some(("is", _)), None) => return plain("GONE"),
                    (Some(("is", version)), Some(entry)) if entry.version.to_string() != version => {
                        return tell("CONFLICT", found, now);
                    }
                    _ => {}
                }
                self.put(key, found, what, millis(life), body, now)
            }
            _ => plain("WHAT"),
        }
    }

    fn put(
        &mut self,
        key: String,
        found: Option<Entry>,
        what: &str,
        life: Duration,
        payload: Vec<u8>,
        now: Instant,
    ) -> (String, Vec<u8>) {
        match (what, found) {
            ("payload", _) => {
                self.versions += 1;
                let version = self.versions;
                self.records.insert(key, Entry { payload, version, ends: now + life });
                plain(&format!("DONE {version}"))
            }
            (_, None) => plain("GONE"),
            ("touch", Some(entry)) => {
                let version = entry.version;
                self.records.insert(key, Entry { ends: now + life, ..entry });
                plain(&format!("DONE {version}"))
            }
            (_, found) => {
                self.records.remove(&key);
                tell("REMOVED", found, now)
            }
        }
    }
}

fn plain(word: &str) -> (String, Vec<u8>) {
    (word.to_owned(), Vec::new())
}

fn tell(word: &str, entry: Option<Entry>, now: Instant) -> (String, Vec<u8>) {
    let Some(Entry { payload, version, ends }) = entry else { return plain("NONE") };
    (format!("{word} {version} {}", (ends - now).as_millis()), payload)
}

fn millis(word: &str) -> Duration {
    Duration::from_millis(word.parse().unwrap())
}
