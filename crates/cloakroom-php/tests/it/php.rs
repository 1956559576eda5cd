//! A resident PHP that answers over a pipe: `judge.php`.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cloakroom_php::Format;

/// What the sessions that PHP makes up have to do with references.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Shares {
    Nothing = 0,
    Values = 1,
    /// And classes are among them that hand out references to what they hold, whether or not anything shares it.
    ValuesAndClasses = 2,
}

pub(crate) struct Php {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Php {
    /// Starts PHP; `None` only where `CLOAKROOM_SKIP` lists `php`.
    pub(crate) fn start() -> Option<Self> {
        if std::env::var("CLOAKROOM_SKIP").is_ok_and(|list| list.split(',').any(|name| name.trim() == "php")) {
            eprintln!("skipped: CLOAKROOM_SKIP lists php");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/judge.php");
        let mut child = Command::new("php")
            .args(["-n", "-d", "session.use_cookies=0", "-d", "session.cache_limiter=", "-d", "memory_limit=512M"])
            .args(["-d", "session.use_strict_mode=0", "-d", "display_errors=0", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("these tests are judged by php, which does not start: {error}"));
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        Some(Self { child, input, output })
    }

    fn ask(&mut self, tag: u8, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut body = Vec::new();
        for part in parts {
            body.extend_from_slice(&u32::try_from(part.len()).expect("short").to_le_bytes());
            body.extend_from_slice(part);
        }
        let mut request = vec![tag];
        request.extend_from_slice(&u32::try_from(body.len()).expect("short").to_le_bytes());
        request.extend_from_slice(&body);
        self.input.write_all(&request).expect("php reads");
        self.input.flush().expect("php reads");
        let mut length = [0; 4];
        self.output.read_exact(&mut length).expect("php answers");
        let mut reply = vec![0; u32::from_le_bytes(length) as usize];
        self.output.read_exact(&mut reply).expect("php answers");
        let mut rest = &reply[..];
        let mut list = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (part, tail) = tail.split_at(u32::from_le_bytes(*length) as usize);
            list.push(part.to_vec());
            rest = tail;
        }
        list
    }

    /// Sessions that PHP makes up: as encoded, `serialize($_SESSION)` before, and after decoding.
    pub(crate) fn generate(
        &mut self,
        format: Format,
        seed: u64,
        sessions: usize,
        keys: usize,
        shares: Shares,
    ) -> Vec<[Vec<u8>; 3]> {
        let numbers =
            [(seed & 0x7fff_ffff).to_string(), sessions.to_string(), keys.to_string(), (shares as u8).to_string()];
        let mut parts = vec![format.name().as_bytes()];
        parts.extend(numbers.iter().map(String::as_bytes));
        triples(self.ask(b'g', &parts))
    }

    /// `session_decode()` of each: `serialize($_SESSION)` and `session_encode()` afterwards, `None` for `false`.
    pub(crate) fn decode(&mut self, format: Format, sessions: &[Vec<u8>]) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
        let mut parts = vec![format.name().as_bytes()];
        parts.extend(sessions.iter().map(Vec::as_slice));
        triples(self.ask(b'd', &parts))
            .into_iter()
            .map(|[ok, all, again]| (ok == b"1").then_some((all, again)))
            .collect()
    }

    /// Makes the edits itself and compares: the dump of its own result, the dump of ours, then `session_encode()` of
    /// its own, `serialize($_SESSION)` of ours, and each key of ours and `serialize($_SESSION[$key])`.
    pub(crate) fn edit(&mut self, format: Format, session: &[u8], ours: &[u8], edits: &[[Vec<u8>; 3]]) -> Vec<Vec<u8>> {
        let mut parts = vec![format.name().as_bytes(), session, ours];
        parts.extend(edits.iter().flatten().map(Vec::as_slice));
        self.ask(b'e', &parts)
    }

    /// `serialize(unserialize($bytes))` of each, empty for `false`.
    pub(crate) fn unserialize(&mut self, precision: i32, values: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let precision = precision.to_string();
        let mut parts = vec![precision.as_bytes()];
        parts.extend(values.iter().map(Vec::as_slice));
        self.ask(b'u', &parts)
    }
}

fn triples(list: Vec<Vec<u8>>) -> Vec<[Vec<u8>; 3]> {
    let mut list = list.into_iter();
    let mut out = Vec::new();
    while let (Some(a), Some(b), Some(c)) = (list.next(), list.next(), list.next()) {
        out.push([a, b, c]);
    }
    out
}

impl Drop for Php {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
