//! What the database servers share: a data directory that outlives a restart, and a script that starts the server again
//! on the same port when it is asked to.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Doing, Failure, Result};
use crate::process::{Process, as_ordinary_user, give_to_ordinary_user, until_stopped};

/// Runs a server again and again, while the file `$1` is there. The directory `$2` goes when this script does, however
/// that ends: the server lies in a `static`, which is never dropped.
const AGAIN: &str = r#"run=$1; root=$2; shift 2
setsid sh -c 'while kill -0 "$1"; do sleep 1; done; rm -rf "$2"' sh "$$" "$root" </dev/null >/dev/null 2>&1 &
while :; do
  [ -e "$run" ] && "$@"
  sleep 0.02
done"#;
/// How long stopping and starting may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database server whose data lie in a directory of their own.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) process: Process,
    root: PathBuf,
    pid_file: PathBuf,
}

impl Database {
    /// Makes the data directory with `install`, and starts `serve` on it, for an address and the root of its files.
    pub(crate) fn start(
        name: &str,
        pid_file: &str,
        install: impl Fn(&Path) -> Command,
        serve: impl Fn(SocketAddr, &Path) -> Command,
    ) -> Result<Database> {
        let root =
            tempfile::Builder::new().prefix("cloakroom-").tempdir().doing(|| format!("a directory for {name}"))?;
        // Removed by the script, which outlives this program.
        let root = root.keep();
        give_to_ordinary_user(&root)?;
        let mut install = install(&root);
        as_ordinary_user(&mut install);
        run(&format!("making the data of {name}"), install.current_dir(&root))?;
        fs::write(root.join("run"), "").doing(|| format!("marking {name} as wanted"))?;
        let process = Process::start_shared(name, |addr, _| {
            let serve = serve(addr, &root);
            let mut again = Command::new("sh");
            again.args(["-c", AGAIN, "sh"]).arg(root.join("run")).arg(&root);
            again.arg(serve.get_program()).args(serve.get_args());
            again
        })?;
        let pid_file = root.join(pid_file);
        Ok(Database { process, root, pid_file })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Ends the server with this signal, and returns when it has gone.
    pub(crate) fn stop(&self, signal: Signal) -> Result<()> {
        fs::remove_file(self.root.join("run")).doing(|| "stopping a server".to_owned())?;
        let pid = self.pid()?;
        kill_process(pid, signal).doing(|| "ending a server".to_owned())?;
        self.until("it has gone", || rustix::process::test_kill_process(pid).is_err())
    }

    /// Kills the server and all processes it has made, and returns when it has gone.
    pub(crate) fn kill(&self) -> Result<()> {
        fs::remove_file(self.root.join("run")).doing(|| "killing a server".to_owned())?;
        let pid = self.pid()?;
        self.signal_all(Signal::KILL)?;
        self.until("it has gone", || rustix::process::test_kill_process(pid).is_err())
    }

    /// Starts it again on the same port, with the same data, and returns when it listens.
    pub(crate) fn start_again(&self) -> Result<()> {
        fs::write(self.root.join("run"), "").doing(|| "starting a server again".to_owned())?;
        self.until("it listens", || TcpStream::connect(self.process.addr()).is_ok())
    }

    /// Stops or continues all of its processes. PostgreSQL's are each in a group of their own.
    pub(crate) fn signal_all(&self, signal: Signal) -> Result<()> {
        let parent = self.pid()?;
        let mut all = vec![parent];
        for entry in fs::read_dir("/proc").doing(|| "looking for a server's processes".to_owned())?.flatten() {
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // `PID (NAME) STATE PPID …`, and a name may hold anything.
            let ppid = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1));
            if ppid == Some(parent.as_raw_nonzero().to_string().as_str()) {
                all.extend(pid);
            }
        }
        for pid in all {
            // One that has ended meanwhile needs no signal.
            let _ = kill_process(pid, signal);
            if signal == Signal::STOP {
                until_stopped(&Path::new("/proc").join(pid.as_raw_nonzero().to_string()));
            }
        }
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        let text = fs::read_to_string(&self.pid_file).doing(|| "reading a server's pid file".to_owned())?;
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        pid.ok_or_else(|| Failure::new("a server's pid file holds no number"))
    }

    fn until(&self, what: &str, reached: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !reached() {
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new(format!("waited {PATIENCE:?} until {what}\n{}", self.process.log_tail())));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Runs a command to its end; its output if it succeeds, and an error with its last words if not.
pub(crate) fn run(doing: &str, command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().doing(|| format!("{doing} ({program})"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::new(format!("{doing} ({program}): {}\n{words}", output.status)));
    }
    Ok(output)
}
