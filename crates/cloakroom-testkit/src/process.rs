//! A server as a child process: own process group, own directory, a free port, and no trace of it afterwards.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::error::{Doing, Failure, Result};

/// How long a server may take until it listens.
const STARTING: Duration = Duration::from_secs(15);
/// A port that looked free can be taken by somebody else before the server binds it.
const PORTS_TRIED: usize = 5;
/// The user `nobody` and its group on Debian, for servers that root starts and that refuse to run as root.
const NOBODY: u32 = 65534;
/// Runs a server for as long as somebody holds the other end of its standard input: a server that belongs to a whole
/// test program lies in a `static`, which is never dropped, and the program may be killed.
const WATCHED: &str = r#"exec 3<&0; "$@" </dev/null 3<&- & server=$!
(read -r _ <&3; kill -KILL 0) & watch=$!
wait "$server"; code=$?; kill -KILL "$watch"; exit "$code""#;

/// A running server. Dropping it kills its whole process group and removes its directory.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    addr: SocketAddr,
    dir: TempDir,
    /// Kept open for [`WATCHED`].
    _alive: Option<ChildStdin>,
}

impl Process {
    /// Starts what `command` makes of an address and a directory, and waits until it listens there.
    ///
    /// The child gets an umask of 022, so that the modes of the files it creates do not depend on who runs the tests.
    pub fn start(name: &str, command: impl Fn(SocketAddr, &Path) -> Command) -> Result<Self> {
        Process::start_any(name, None, command, |command| command.stdin(Stdio::null()).process_group(0))
    }

    /// [`start`](Process::start) of a server that all tests of a program share: it ends with the program, however
    /// that ends. Root starts it as the user `nobody`, to whom its directory then belongs. `command`'s program,
    /// arguments and added variables are taken over.
    pub fn start_shared(name: &str, command: impl Fn(SocketAddr, &Path) -> Command) -> Result<Self> {
        Process::start_any(name, None, watched(command), |command| command.stdin(Stdio::piped()).process_group(0))
    }

    /// [`start_shared`](Process::start_shared) at this very address, for a server that was stopped and comes back.
    pub fn start_shared_at(
        name: &str,
        addr: SocketAddr,
        command: impl Fn(SocketAddr, &Path) -> Command,
    ) -> Result<Self> {
        Process::start_any(name, Some(addr), watched(command), |command| command.stdin(Stdio::piped()).process_group(0))
    }

    fn start_any(
        name: &str,
        at: Option<SocketAddr>,
        command: impl Fn(SocketAddr, &Path) -> Command,
        prepare: impl Fn(&mut Command) -> &mut Command,
    ) -> Result<Self> {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let mut last = String::new();
        for _ in 0..PORTS_TRIED {
            let dir =
                tempfile::Builder::new().prefix("cloakroom-").tempdir().doing(|| format!("a directory for {name}"))?;
            let addr = at.map_or_else(free_addr, Ok)?;
            let mut command = command(addr, dir.path());
            let log = |file: &str| File::create(dir.path().join(file)).doing(|| format!("creating {file} for {name}"));
            prepare(&mut command).stdout(log("stdout")?).stderr(log("stderr")?);
            let program = command.get_program().to_string_lossy().into_owned();
            let mut child = command.spawn().doing(|| format!("starting {name} ({program})"))?;
            let alive = child.stdin.take();
            let mut process = Self { name: name.to_owned(), child, addr, dir, _alive: alive };
            match process.wait_until_it_listens() {
                Ok(()) => return Ok(process),
                Err(failure) => last = format!("{failure}\n{}", process.log_tail()),
            }
            if !last.contains("in use") {
                break;
            }
        }
        Err(Failure::new(last))
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < STARTING {
            if let Some(status) = self.child.try_wait().doing(|| format!("waiting for {}", self.name))? {
                return Err(Failure::new(format!("{} ended before it listened: {status}", self.name)));
            }
            if TcpStream::connect(self.addr).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(Failure::new(format!("{} does not listen on {} after {STARTING:?}", self.name, self.addr)))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its directory, removed when it is dropped.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process id, which is also the id of its process group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops the whole process group in its tracks: it holds its connections and answers nothing.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let group = self.id().to_string();
        for entry in fs::read_dir("/proc").doing(|| format!("looking for the processes of {}", self.name))?.flatten() {
            // `PID (NAME) STATE PPID PGRP …`, and a name may hold anything.
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            if stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(2)) == Some(group.as_str()) {
                until_stopped(&entry.path());
            }
        }
        Ok(())
    }

    /// Lets a paused process group go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process_group(Pid::from_child(&self.child), signal)
            .doing(|| format!("sending {signal:?} to {}", self.name))
    }

    /// The last lines it wrote, for the message of a failing test.
    pub fn log_tail(&self) -> String {
        let tail = |file: &str| {
            let text = fs::read(self.dir.path().join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned();
            format!("--- {} {file} (tail)\n{text}", self.name)
        };
        format!("{}{}", tail("stdout"), tail("stderr"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The child has not been waited for yet, so its id, and with it the group's, still belongs to it. Errors mean: already gone.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Waits until every thread of a process in /proc stands still: a signal is on its way for a moment, and on a busy
/// machine a server answers meanwhile.
pub(crate) fn until_stopped(process: &Path) {
    let begun = Instant::now();
    let runs = || {
        let threads = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        threads.into_iter().any(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
            state.is_some_and(|state| !matches!(state, "T" | "t" | "Z" | "X"))
        })
    };
    while runs() && begun.elapsed() < STARTING {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The command within [`WATCHED`], as an ordinary user.
fn watched(command: impl Fn(SocketAddr, &Path) -> Command) -> impl Fn(SocketAddr, &Path) -> Command {
    move |addr: SocketAddr, dir: &Path| {
        // If that fails, so does the server, and its log says why.
        let _ = give_to_ordinary_user(dir);
        let inner = command(addr, dir);
        let mut outer = Command::new("sh");
        outer.args(["-c", WATCHED, "sh"]).arg(inner.get_program()).args(inner.get_args()).current_dir(dir);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        as_ordinary_user(&mut outer);
        outer
    }
}

/// Root lets the command run as `nobody`; everybody else already is an ordinary user.
pub fn as_ordinary_user(command: &mut Command) {
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
}

/// Gives a file or directory to the user of [`as_ordinary_user`].
pub fn give_to_ordinary_user(path: &Path) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).doing(|| format!("giving {} to nobody", path.display()))?;
    }
    Ok(())
}

/// A free address on this machine, for servers that need more than one.
pub fn free_addr() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing(|| "looking for a free port".to_owned())?;
    listener.local_addr().doing(|| "looking for a free port".to_owned())
}
