//! The load: keep-alive connections, each with a session of its own, sending one request after another.

use std::time::{Duration, Instant};

use cloakroom_bench::Result;
use cloakroom_bench::timing::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many connections there are.
pub(crate) const CONNECTIONS: usize = 32;

/// All connections to one server.
pub(crate) struct Load {
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
    sent: u32,
}

impl Load {
    /// Connects, and begins a session on each connection.
    pub(crate) async fn connect(port: u16) -> Result<Load> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let request = request("/seed", "none=1");
            let mut connection = Connection { stream, request, buffer: vec![0; 4096], sent: 0 };
            let answer = connection.exchange().await?;
            let head = std::str::from_utf8(&connection.buffer[..answer.body])?;
            let cookie = header(head, "set-cookie").and_then(|cookie| cookie.split(';').next());
            // Where there are no sessions, the request is as long.
            let cookie = cookie.unwrap_or("PHPSESSID=0123456789abcdef0123456789abcdef");
            connection.request = request_with(cookie);
            connections.push(connection);
        }
        Ok(Load { connections })
    }

    /// Sends requests on all connections for so long; how many were answered in which time.
    pub(crate) async fn run(&mut self, time: Duration) -> Result<(u32, Duration)> {
        let begin = now();
        let running: Vec<_> =
            self.connections.drain(..).map(|connection| tokio::spawn(connection.run(begin + time))).collect();
        let mut requests = 0;
        for one in running {
            let (connection, sent) = one.await??;
            requests += sent;
            self.connections.push(connection);
        }
        Ok((requests, begin.elapsed()))
    }

    /// Each session has counted each of its requests, if it was to count any.
    pub(crate) async fn check(&mut self, changes: bool) -> Result<()> {
        for connection in &mut self.connections {
            let expect = if changes { 7 + connection.sent + 1 } else { 7 };
            let answer = connection.exchange().await?;
            let found = std::str::from_utf8(&connection.buffer[answer.body..answer.end])?;
            if found != expect.to_string() {
                return Err(format!("a session has counted {found} instead of {expect}").into());
            }
        }
        Ok(())
    }
}

struct Answer {
    body: usize,
    end: usize,
}

impl Connection {
    async fn run(mut self, until: Instant) -> Result<(Connection, u32)> {
        let mut sent = 0;
        while now() < until {
            self.exchange().await?;
            sent += 1;
        }
        self.sent += sent;
        Ok((self, sent))
    }

    async fn exchange(&mut self) -> Result<Answer> {
        self.stream.write_all(&self.request).await?;
        let mut have = 0;
        loop {
            let more = self.stream.read(&mut self.buffer[have..]).await?;
            if more == 0 {
                return Err("the server closed a connection".into());
            }
            have += more;
            let Some(body) = end_of_head(&self.buffer[..have]) else { continue };
            let head = std::str::from_utf8(&self.buffer[..body])?;
            if !head.starts_with("HTTP/1.1 200 ") {
                return Err(format!("the server answered {head}").into());
            }
            let length: usize = header(head, "content-length").ok_or("an answer without content-length")?.parse()?;
            if have == body + length {
                return Ok(Answer { body, end: have });
            }
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    // Bodies are a few bytes, so that this looks at next to nothing.
    let at = bytes.windows(4).rposition(|four| four == b"\r\n\r\n")?;
    Some(at + 4)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn request_with(cookie: &str) -> Vec<u8> {
    request("/", cookie)
}

/// About what a browser sends.
fn request(path: &str, cookie: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: text/html\r\n\
         Accept-Encoding: gzip\r\nCookie: {cookie}\r\n\r\n"
    )
    .into_bytes()
}
