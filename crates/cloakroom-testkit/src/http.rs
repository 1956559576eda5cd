//! A blocking HTTP/1.1 client of one request per connection: it shows every header line as it came, in order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Doing, Failure, Result};
use crate::latin1;

const TIMEOUT: Duration = Duration::from_secs(30);

/// What is sent. Header values are Latin-1 text, so any byte can be sent.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Header lines beside `Host`, `Connection` and `Content-Length`.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Every header line in order, names as sent, values as Latin-1 text.
    pub headers: Vec<(String, String)>,
    /// The body, with chunks put together.
    pub body: Vec<u8>,
}

impl Reply {
    /// The values of all headers of this name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// Sends one request on a connection of its own and reads until the server closes it.
pub fn send(addr: SocketAddr, ask: &Ask<'_>) -> Result<Reply> {
    let doing = || format!("{} {} at {addr}", ask.method, ask.target);
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT).doing(doing)?;
    stream.set_read_timeout(Some(TIMEOUT)).doing(doing)?;
    stream.set_nodelay(true).doing(doing)?;
    let mut out =
        format!("{} {} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n", ask.method, ask.target).into_bytes();
    for (name, value) in ask.headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(&latin1::bytes(value));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", ask.body.len()).as_bytes());
    out.extend_from_slice(ask.body);
    stream.write_all(&out).doing(doing)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).doing(doing)?;
    parse(&answer).doing(doing)
}

fn parse(answer: &[u8]) -> Result<Reply> {
    let mut rest = answer;
    loop {
        let end = find(rest, b"\r\n\r\n").ok_or_else(|| Failure::new("the reply has no end of head"))?;
        let head = latin1::text(&rest[..end]);
        let body = &rest[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| Failure::new("the reply has no status line"))?;
        if (100..200).contains(&status) {
            rest = body;
            continue;
        }
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) =
                line.split_once(':').ok_or_else(|| Failure::new(format!("not a header line: {line}")))?;
            headers.push((name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()));
        }
        let mut reply = Reply { status, headers, body: Vec::new() };
        let chunked = reply.all("transfer-encoding").any(|v| v.eq_ignore_ascii_case("chunked"));
        let length = reply.all("content-length").next().and_then(|v| v.trim().parse::<usize>().ok());
        reply.body = match length {
            _ if chunked => unchunk(body)?,
            Some(length) => body.get(..length).ok_or_else(|| Failure::new("the body ends early"))?.to_vec(),
            None => body.to_vec(),
        };
        return Ok(reply);
    }
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let bad = || Failure::new("bad chunk");
    let mut out = Vec::new();
    loop {
        let end = find(rest, b"\r\n").ok_or_else(bad)?;
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok()).ok_or_else(bad)?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(out);
        }
        out.extend_from_slice(rest.get(..size).ok_or_else(bad)?);
        rest = rest.get(size + 2..).ok_or_else(bad)?;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_every_kind_of_body() {
        let body = |raw: &[u8]| super::parse(raw).unwrap().body;
        assert_eq!(body(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), b"ab");
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n"),
            b"abcd"
        );
        assert_eq!(body(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: \xe4\r\n\r\nrest"), b"rest");
        assert!(super::parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab").is_err());
    }
}
