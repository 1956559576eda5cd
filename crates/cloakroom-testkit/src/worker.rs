//! A PHP that stays, for tests that ask it thousands of times: some ten thousand questions a second instead of forty.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::error::{Doing, Failure, Result};
use crate::latin1;
use crate::php;

/// `php worker.php`, ended when it is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    // Where its sessions lie.
    _dir: TempDir,
}

/// What PHP made of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// PHP accepted them, and this is what `serialize()` makes of the value or of all values of the session.
    pub bytes: Option<Vec<u8>>,
    /// For a session: what `session_encode()` makes of it; none for an empty one in the formats php and php_binary.
    pub encoded: Option<Vec<u8>>,
    /// A warning, a notice or an exception was raised.
    pub warned: bool,
    /// What PHP said.
    pub said: Vec<String>,
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    bytes: Option<String>,
    encoded: Option<String>,
    warned: bool,
    said: Vec<String>,
}

impl Worker {
    /// Starts one, with no php.ini but these settings (`name=value`).
    pub fn start(settings: &[&str]) -> Result<Self> {
        php::version()?;
        let doing = || "starting php worker.php".to_owned();
        let dir = tempfile::Builder::new().prefix("cloakroom-worker-").tempdir().doing(doing)?;
        let mut command = Command::new("php");
        let sessions = format!("session.save_path={}", dir.path().display());
        let own = [
            "display_errors=0",
            "session.use_cookies=0",
            "session.cache_limiter=",
            "session.gc_probability=0",
            &sessions,
        ];
        for setting in own.iter().chain(settings) {
            command.arg("-d").arg(setting);
        }
        command.arg("-n").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("php/worker.php"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().doing(doing)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| Failure::new("the worker has no stdout"))?;
        Ok(Self { child, stdin, stdout: BufReader::new(stdout), _dir: dir })
    }

    /// `serialize(unserialize(bytes))`.
    pub fn unserialize(&mut self, bytes: &[u8]) -> Result<Verdict> {
        self.ask(&json!({ "op": "unserialize", "bytes": latin1::text(bytes) }))
    }

    /// What a session in the format `php`, `php_binary` or `php_serialize` holds.
    pub fn decode(&mut self, handler: &str, bytes: &[u8]) -> Result<Verdict> {
        self.ask(&json!({ "op": "decode", "handler": handler, "bytes": latin1::text(bytes) }))
    }

    fn ask(&mut self, question: &Value) -> Result<Verdict> {
        let doing = || format!("asking php: {question}");
        let stdin = self.stdin.as_mut().ok_or_else(|| Failure::new("the worker has no stdin"))?;
        stdin.write_all(format!("{question}\n").as_bytes()).doing(doing)?;
        let mut line = String::new();
        if self.stdout.read_line(&mut line).doing(doing)? == 0 {
            return Err(Failure::new(format!("php ended at {question}")));
        }
        let answer: Answer = serde_json::from_str(&line).doing(doing)?;
        Ok(Verdict {
            bytes: answer.bytes.filter(|_| answer.ok).map(|text| latin1::bytes(&text)),
            encoded: answer.encoded.map(|text| latin1::bytes(&text)),
            warned: answer.warned,
            said: answer.said,
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
