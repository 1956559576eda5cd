//! Memcached's meta commands (`doc/protocol.txt`) on one connection: what is asked in one flight, and the answers.
//!
//! Nothing here decides anything about sessions. A connection whose answers were not read to their end is of no use
//! any more; whoever holds it drops it, which closes it.

use std::io::{Error, ErrorKind, Result};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::config::Address;

/// A line is an answer's head; Memcached's own are far shorter.
const LONGEST_LINE: usize = 8 << 10;
/// Larger values than any server keeps are not waited for, whatever it says of its largest item.
const LARGEST_VALUE: u64 = 1 << 30;
/// How much room is made ahead of what has arrived: a length alone is only a word.
const AHEAD: usize = 64 << 10;
/// Values below this are copied out of the connection's buffer.
const SMALL: usize = 4 << 10;

/// Commands that are sent together. The server carries those of one connection out in their order.
#[derive(Default)]
pub(crate) struct Flight {
    out: BytesMut,
    answers: usize,
}

impl Flight {
    /// `mg`: flags such as `v` (the value), `c` (its number for compare-and-swap), `t` (its remaining life) and
    /// `T60` (a new one).
    pub(crate) fn get(mut self, key: &[u8], flags: &str) -> Flight {
        self.command("mg", key, flags);
        self
    }

    /// `ms`: flags such as `ME` (only if there is none), `C17` (only if it is number 17), `T60` and `c`.
    pub(crate) fn set(mut self, key: &[u8], value: &[u8], flags: &str) -> Flight {
        self.out.reserve(key.len() + value.len() + flags.len() + 32);
        self.command("ms", key, &format!("{} {flags}", value.len()));
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// `md`: with `C17`, only if it is number 17.
    pub(crate) fn delete(mut self, key: &[u8], flags: &str) -> Flight {
        self.command("md", key, flags);
        self
    }

    /// `ma`: counts up.
    pub(crate) fn count(mut self, key: &[u8], flags: &str) -> Flight {
        self.command("ma", key, flags);
        self
    }

    fn command(&mut self, name: &str, key: &[u8], flags: &str) {
        for part in [name.as_bytes(), b" ", key, b" ", flags.as_bytes(), b"\r\n"] {
            self.out.extend_from_slice(part);
        }
        self.answers += 1;
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// `HD`, `VA`: done, or found.
    Done,
    /// `EN`, `NF`: there is no such item.
    Missing,
    /// `EX`: the item has another number.
    Exists,
    /// `NS`: not stored, since there is one already.
    NotStored,
    /// The item would be larger than the server allows. It has dropped the old one.
    TooLarge,
    /// The server has no room and may not make any. It has dropped the old item.
    NoRoom,
    /// Anything else: the server does not know the command, or has failed.
    Refused,
}

/// The answer to one command.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: Code,
    pub(crate) value: Bytes,
    pub(crate) cas: u64,
    /// Remaining life in seconds; `None` for one without end.
    pub(crate) ttl: Option<u64>,
}

/// What a server tells of itself when a connection is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Which life of the server this is: its items and their numbers do not outlast it.
    pub(crate) life: u64,
    pub(crate) item_size_max: u64,
    /// Its time, and when it was so.
    time: (u64, Instant),
}

impl Facts {
    /// The server's time now, in seconds since 1970.
    pub(crate) fn time(&self) -> u64 {
        self.time.0.saturating_add(self.time.1.elapsed().as_secs())
    }
}

/// A connection.
pub(crate) struct Conn {
    stream: Stream,
    buffer: BytesMut,
    pub(crate) facts: Facts,
}

enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Conn {
    pub(crate) async fn open(address: &Address) -> Result<Conn> {
        let stream = match address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            #[cfg(unix)]
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(ErrorKind::Unsupported.into()),
        };
        let mut conn = Conn::new(stream);
        conn.learn().await?;
        Ok(conn)
    }

    fn new(stream: Stream) -> Conn {
        let facts = Facts { life: 0, item_size_max: 1 << 20, time: (0, Instant::now()) };
        Conn { stream, buffer: BytesMut::new(), facts }
    }

    /// Whether the server has not closed it meanwhile. Asks nobody.
    pub(crate) fn is_alive(&self) -> bool {
        let mut byte = [0];
        let read = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut byte),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a flight and reads its answers, one for each command.
    pub(crate) async fn exchange(&mut self, flight: &Flight) -> Result<Vec<Answer>> {
        self.stream.write_all(&flight.out).await?;
        let mut answers = Vec::with_capacity(flight.answers);
        while answers.len() < flight.answers {
            answers.push(self.answer().await?);
        }
        if self.buffer.is_empty() { Ok(answers) } else { Err(garbled()) }
    }

    async fn answer(&mut self) -> Result<Answer> {
        let line = self.line().await?;
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let head = words.next().unwrap_or_default();
        let mut answer = Answer { code: Code::Done, value: Bytes::new(), cas: 0, ttl: None };
        let mut length = None;
        answer.code = match head {
            b"HD" => Code::Done,
            b"VA" => {
                length = Some(words.next().and_then(number).and_then(|n| usize::try_from(n).ok()).ok_or_else(garbled)?);
                Code::Done
            }
            b"EN" | b"NF" => Code::Missing,
            b"EX" => Code::Exists,
            b"NS" => Code::NotStored,
            b"SERVER_ERROR" if line.ends_with(b"too large for cache") => Code::TooLarge,
            b"SERVER_ERROR" if line.ends_with(b"out of memory storing object") => Code::NoRoom,
            b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => Code::Refused,
            _ => return Err(garbled()),
        };
        for word in words {
            match word.split_first() {
                Some((b'c', cas)) if answer.code == Code::Done => answer.cas = number(cas).ok_or_else(garbled)?,
                // -1 is a life without end.
                Some((b't', ttl)) if answer.code == Code::Done => answer.ttl = number(ttl),
                _ => {}
            }
        }
        if let Some(length) = length {
            answer.value = self.value(length).await?;
        }
        Ok(answer)
    }

    async fn line(&mut self) -> Result<Bytes> {
        let mut seen = 0;
        loop {
            if let Some(end) = self.buffer[seen..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(seen + end + 1).freeze();
                line.truncate(line.len() - if line.ends_with(b"\r\n") { 2 } else { 1 });
                return Ok(line);
            }
            seen = self.buffer.len();
            if seen > LONGEST_LINE {
                return Err(garbled());
            }
            self.more(1024).await?;
        }
    }

    async fn value(&mut self, length: usize) -> Result<Bytes> {
        if u64::try_from(length).map_or(true, |length| length > self.facts.item_size_max.min(LARGEST_VALUE)) {
            return Err(garbled());
        }
        let whole = length + 2;
        while self.buffer.len() < whole {
            self.more(whole - self.buffer.len()).await?;
        }
        // A small value is not to keep a large buffer alive.
        let value = if length < SMALL {
            let value = Bytes::copy_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            value
        } else {
            self.buffer.split_to(length).freeze()
        };
        if !self.buffer.starts_with(b"\r\n") {
            return Err(garbled());
        }
        self.buffer.advance(2);
        Ok(value)
    }

    async fn more(&mut self, room: usize) -> Result<()> {
        // As much again as there is, so that a large value is not moved too often.
        self.buffer.reserve(room.min(AHEAD.max(self.buffer.len())));
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Asks for what is told by no other answer: the server's clock, since when it lives, its largest item.
    async fn learn(&mut self) -> Result<()> {
        let (mut pid, mut time, mut uptime) = (0, 0, 0);
        self.stream.write_all(b"stats\r\nstats settings\r\n").await?;
        let mut ends = 0;
        while ends < 2 {
            let line = self.line().await?;
            let mut words = line.split(|byte| *byte == b' ');
            let (kind, name, value) = (words.next(), words.next(), words.next().unwrap_or_default());
            match (kind, name) {
                (Some(b"END"), _) => ends += 1,
                (Some(b"STAT"), Some(b"pid")) => pid = number(value).unwrap_or(0),
                (Some(b"STAT"), Some(b"time")) => time = number(value).unwrap_or(0),
                (Some(b"STAT"), Some(b"uptime")) => uptime = number(value).unwrap_or(0),
                (Some(b"STAT"), Some(b"item_size_max")) => {
                    self.facts.item_size_max = number(value).unwrap_or(self.facts.item_size_max);
                }
                (Some(b"STAT"), Some(b"cas_enabled")) if value != b"yes" => {
                    return Err(Error::new(ErrorKind::Unsupported, "it runs without compare-and-swap (-C)"));
                }
                (Some(b"STAT"), _) => {}
                (Some(b"CLIENT_ERROR" | b"ERROR"), _) => {
                    return Err(Error::new(ErrorKind::PermissionDenied, "it wants a login, which is not supported"));
                }
                _ => return Err(garbled()),
            }
        }
        self.facts.time = (time, Instant::now());
        self.facts.life = (time.wrapping_sub(uptime) << 32) ^ pid;
        if self.buffer.is_empty() { Ok(()) } else { Err(garbled()) }
    }
}

impl Stream {
    async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Stream::Tcp(stream) => write_all(stream, bytes).await,
            #[cfg(unix)]
            Stream::Unix(stream) => write_all(stream, bytes).await,
        }
    }

    async fn read_buf(&mut self, buffer: &mut BytesMut) -> Result<usize> {
        match self {
            Stream::Tcp(stream) => read_buf(stream, buffer).await,
            #[cfg(unix)]
            Stream::Unix(stream) => read_buf(stream, buffer).await,
        }
    }
}

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await
}

async fn read_buf(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Result<usize> {
    stream.read_buf(buffer).await
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn garbled() -> Error {
    Error::new(ErrorKind::InvalidData, "not an answer that Memcached gives")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// Asks one flight of a server that gives these bytes, in pieces of so many, and then hangs up.
    async fn ask(flight: Flight, answer: &[u8], piece: usize) -> Result<Vec<Answer>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut there, _) = listener.accept().await.unwrap();
        there.set_nodelay(true).unwrap();
        let answer = answer.to_vec();
        let server = tokio::spawn(async move {
            for piece in answer.chunks(piece) {
                let _ = there.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        });
        let answers = Conn::new(Stream::Tcp(here)).exchange(&flight).await;
        server.abort();
        answers
    }

    fn two() -> Flight {
        Flight::default().set(b"lock", b"mine", "ME T10 c").get(b"data", "v c t")
    }

    #[test]
    fn a_flight_is_one_text() {
        let flight = two().delete(b"lock", "C7").count(b"n", "N0 J0 v");
        assert_eq!(
            flight.out,
            "ms lock 4 ME T10 c\r\nmine\r\nmg data v c t\r\nmd lock C7\r\nma n N0 J0 v\r\n".as_bytes()
        );
        assert_eq!(flight.answers, 4);
    }

    #[tokio::test]
    async fn answers_come_in_any_pieces() {
        let value = "END\r\nEN\r\n".repeat(1000);
        let text = format!("HD c12\r\nVA {} c13 t-1\r\n{value}\r\n", value.len());
        for piece in [1, 2, 3, 7, 4096, usize::MAX] {
            let answers = ask(two(), text.as_bytes(), piece).await.unwrap();
            assert_eq!((answers[0].code, answers[0].cas), (Code::Done, 12));
            assert_eq!((answers[1].code, answers[1].cas, answers[1].ttl), (Code::Done, 13, None));
            assert_eq!(answers[1].value, value);
        }
        let answers = ask(two(), b"NS c0\r\nVA 0 c1 t59\r\n\r\n", 1).await.unwrap();
        assert_eq!((answers[0].code, answers[1].ttl, answers[1].value.len()), (Code::NotStored, Some(59), 0));
    }

    #[tokio::test]
    async fn every_end_of_a_command_is_told_apart() {
        for (line, code) in [
            ("HD", Code::Done),
            ("EN", Code::Missing),
            ("NF c0", Code::Missing),
            ("EX c0", Code::Exists),
            ("NS", Code::NotStored),
            ("SERVER_ERROR object too large for cache", Code::TooLarge),
            ("SERVER_ERROR out of memory storing object", Code::NoRoom),
            ("SERVER_ERROR something else", Code::Refused),
            ("CLIENT_ERROR bad command line format", Code::Refused),
            ("ERROR", Code::Refused),
        ] {
            let answers = ask(Flight::default().delete(b"k", ""), format!("{line}\r\n").as_bytes(), 5).await.unwrap();
            assert_eq!(answers[0].code, code, "{line}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_or_not_whole_is_an_error() {
        let long = "HD ".repeat(10_000);
        for text in [
            "",
            "HD",
            "HD c1\r\n",
            "HD c1\r\nVA 5 c1 t1\r\nabc",
            "HD c1\r\nVA 5 c1 t1\r\nabcdefgh\r\n",
            "HD c1\r\nVA x c1\r\nabc\r\n",
            "HD c1\r\nVA 99999999999999999999 c1\r\n",
            "HD c1\r\nVA 4294967296 c1\r\n",
            "HD cx\r\nEN\r\n",
            "STORED\r\nEN\r\n",
            "HD c1\r\nEN\r\nEN\r\n",
            "\r\n\r\n",
            &long,
        ] {
            assert!(ask(two(), text.as_bytes(), usize::MAX).await.is_err(), "{text:.60?}");
        }
    }

    /// It is refused by its length, before it has come or the connection has ended.
    #[tokio::test]
    async fn a_value_above_the_servers_largest_item_is_no_answer() {
        let error = ask(two(), b"HD c1\r\nVA 1048577 c1\r\n", usize::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_server_of_the_far_future_has_a_time() {
        let begun = Instant::now().checked_sub(std::time::Duration::from_secs(2)).unwrap();
        let facts = Facts { life: 0, item_size_max: 0, time: (u64::MAX, begun) };
        assert_eq!(facts.time(), u64::MAX);
    }

    /// What a server says of a value's length makes no room for it before it has come.
    #[tokio::test]
    async fn a_length_alone_takes_no_memory() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut there, _) = listener.accept().await.unwrap();
        there.write_all(b"VA 1000000000 c1\r\nabc").await.unwrap();
        drop(there);
        let mut conn = Conn::new(Stream::Tcp(here));
        conn.facts.item_size_max = u64::MAX;
        assert!(conn.exchange(&Flight::default().get(b"data", "v c")).await.is_err());
        assert!(conn.buffer.capacity() <= 4 * AHEAD, "{}", conn.buffer.capacity());
    }
}
