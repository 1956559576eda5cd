//! The demo as a child process, with directories of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::browser::Browser;

/// A name that is taken literally, or not at all.
const SESSIONS: &str = "its sessions; \"all\" ${of} them";

pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it said about PHP.
    php: String,
    temporary: TempDir,
}

impl Program {
    /// Starts the demo without PHP.
    pub(crate) fn start() -> Program {
        Program::with(&["--no-php"])
    }

    /// Starts the demo with PHP, or says that PHP tests are not wanted here.
    pub(crate) fn with_php() -> Option<Program> {
        let skipped = std::env::var("CLOAKROOM_SKIP").unwrap_or_default();
        if skipped.split(',').any(|name| name.trim() == "php") {
            return None;
        }
        let program = Program::with(&[]);
        let runs = program.php.contains("runs the same shop");
        assert!(runs, "{}\ninstall php-cli, or leave these tests out with CLOAKROOM_SKIP=php", program.php);
        Some(program)
    }

    fn with(options: &[&str]) -> Program {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let mut command = Program::command();
        command.args(options).args(["--listen", "127.0.0.1:0", "--sessions"]).arg(temporary.path().join(SESSIONS));
        let mut child =
            command.env("TMPDIR", temporary.path()).stdout(Stdio::piped()).spawn().expect("the demo starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let mut line = || lines.next().expect("the demo says three lines").expect("a line");
        let address = line();
        let address = address.strip_prefix("listening on http://").expect("the address comes first");
        let address = address.parse().expect("an address");
        assert!(line().contains("the session files lie in "));
        Program { child, address, php: line(), temporary }
    }

    pub(crate) fn command() -> Command {
        Command::new(env!("CARGO_BIN_EXE_cloakroom-demo"))
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.address)
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.temporary.path().to_owned()
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.temporary.path().join(SESSIONS)
    }

    /// The file of a session.
    pub(crate) fn file(&self, mark: &str) -> PathBuf {
        self.sessions().join(format!("sess_{mark}"))
    }

    pub(crate) fn text(&self, mark: &str) -> String {
        std::fs::read_to_string(self.file(mark)).expect("the session has a file")
    }

    /// The processes that the demo has started.
    pub(crate) fn children(&self) -> Vec<u32> {
        let own = self.child.id().to_string();
        let is_child = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&own))
        };
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the demo runs");
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.child.try_wait().expect("the demo can be waited for") {
                Some(status) => return status,
                None => assert!(Instant::now() < deadline, "the demo does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
