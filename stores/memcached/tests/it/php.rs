//! Running real php-memcached.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use cloakroom_testkit::php::skip;
use cloakroom_testkit::servers::memcached::Memcached;

use crate::util::{Room, one, three};

/// What PHP needs to wait for a lock until it gets it.
pub(crate) const PATIENT: &[&str] = &[
    "memcached.sess_lock_retries=20000",
    "memcached.sess_lock_wait_min=2",
    "memcached.sess_lock_wait_max=5",
    "memcached.sess_lock_expire=30",
];

/// The servers, where there is a PHP to be beside.
pub(crate) fn one_beside_php() -> Option<&'static [Memcached]> {
    one().filter(|_| !skip("php"))
}

pub(crate) fn three_beside_php() -> Option<&'static [Memcached]> {
    three().filter(|_| !skip("php"))
}

/// PHP without a php.ini, with sessions at `path`.
pub(crate) fn php(path: &str, prefix: &str, settings: &[&str], code: &str) -> Command {
    let mut command = Command::new("php");
    command.args(["-n", "-d", "extension=igbinary", "-d", "extension=msgpack", "-d", "extension=memcached"]);
    let (path, prefix) = (format!("session.save_path=\"{path}\""), format!("memcached.sess_prefix={prefix}"));
    let own = [
        "session.save_handler=memcached",
        &path,
        &prefix,
        "session.use_cookies=0",
        "session.cache_limiter=",
        "session.gc_probability=0",
    ];
    for setting in own.iter().chain(settings) {
        command.arg("-d").arg(setting);
    }
    command.arg("-r").arg(code).stdin(Stdio::null());
    command
}

/// What it prints.
pub(crate) fn run(mut command: Command) -> String {
    let output = command.output().expect("run php");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("Warning"), "{text}");
    text
}

impl Room {
    /// PHP on the sessions of this room.
    pub(crate) fn php(&self, settings: &[&str], code: &str) -> Command {
        php(&crate::util::save_path(self.servers), &self.prefix, settings, code)
    }
}

/// A PHP that says a line when it has come so far; killed and reaped at the end.
pub(crate) struct Talking {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Talking {
    pub(crate) fn new(mut command: Command) -> Talking {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Talking { child, lines }
    }

    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("php has ended").unwrap()
    }

    /// Lets it go on behind `fgets(STDIN)`.
    pub(crate) fn go_on(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
