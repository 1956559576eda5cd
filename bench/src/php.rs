//! PHP as a contender: one child process that measures itself, so that neither its start nor the pipe is counted.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Result;

/// A running `php -n`: no php.ini, so neither OPcache nor JIT.
pub struct Php {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    directory: tempfile::TempDir,
    /// The version.
    pub version: String,
}

impl Php {
    /// Starts PHP; `None` if there is none on this machine.
    pub fn start() -> Result<Option<Php>> {
        let Ok(version) = Command::new("php").args(["-n", "-r", "echo PHP_VERSION;"]).output() else { return Ok(None) };
        let directory = tempfile::tempdir()?;
        let script = directory.path().join("bench.php");
        std::fs::write(&script, include_str!("php.php"))?;
        let mut command = Command::new("php");
        command.arg("-n");
        for setting in ["use_cookies=0", "cache_limiter=", "use_strict_mode=0"] {
            command.arg("-d").arg(format!("session.{setting}"));
        }
        command.arg("-d").arg(format!("session.save_path={}", directory.path().display()));
        command.args(["-d", "memory_limit=-1"]);
        let mut child = command.arg(&script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { return Err("no pipe".into()) };
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        Ok(Some(Php { child, to, from: BufReader::new(from), directory, version }))
    }

    /// Puts a session where PHP finds it.
    pub fn file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Lets PHP do something so many times; `format` is a `serialize_handler`, or `unserialize`.
    pub fn run(&mut self, operation: &str, format: &str, file: &Path, times: u64) -> Result<Duration> {
        writeln!(self.to, "{operation}\t{format}\t{}\t{times}", file.display())?;
        let mut answer = String::new();
        self.from.read_line(&mut answer)?;
        match answer.trim_end().parse() {
            Ok(nanoseconds) => Ok(Duration::from_nanos(nanoseconds)),
            Err(_) => Err(format!("PHP: {}", answer.trim_end()).into()),
        }
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
