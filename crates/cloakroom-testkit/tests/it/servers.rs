//! Servers end with the value that stands for them, workers and all.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cloakroom_testkit::php::{self, Options, PhpServer};
use cloakroom_testkit::process::Process;
use rustix::process::{Pid, test_kill_process_group};

#[test]
fn a_dropped_server_is_gone_with_its_workers() {
    if php::skip("php") {
        return;
    }
    let server = PhpServer::start(&php::probe_script(), &Options { workers: 4, ..Options::default() }).unwrap();
    let (addr, dir) = (server.addr(), server.process().dir().to_owned());
    assert!(TcpStream::connect(addr).is_ok() && dir.exists());
    let group = Pid::from_raw(server.process().id().try_into().unwrap()).unwrap();
    test_kill_process_group(group).unwrap();
    drop(server);
    // The port may be somebody else's by now; the group is nobody's, once the system has cleared its workers away.
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        test_kill_process_group(group).is_err()
    });
    assert!(gone, "a worker lives on");
    assert!(!dir.exists());
}

#[test]
fn a_server_that_ends_at_once_says_what_it_said() {
    let failure = Process::start("the broken server", |_, _: &Path| {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck today >&2; exit 3"]);
        command
    })
    .unwrap_err()
    .to_string();
    assert!(
        failure.contains("the broken server ended before it listened") && failure.contains("no luck today"),
        "{failure}"
    );
}

#[test]
fn a_program_that_is_missing_is_named() {
    let failure = Process::start("nothing", |_, _: &Path| Command::new("/no/such/program")).unwrap_err().to_string();
    assert!(failure.contains("/no/such/program"), "{failure}");
}
