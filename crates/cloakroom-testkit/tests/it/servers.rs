//! Servers end with the value that stands for them, workers and all.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use cloakroom_testkit::php::{self, Options, PhpServer};
use cloakroom_testkit::process::Process;

#[test]
fn a_dropped_server_is_gone_with_its_workers() {
    if php::skip("php") {
        return;
    }
    let server = PhpServer::start(&php::probe_script(), &Options { workers: 4, ..Options::default() }).unwrap();
    let (addr, dir) = (server.addr(), server.process().dir().to_owned());
    assert!(TcpStream::connect(addr).is_ok() && dir.exists());
    drop(server);
    assert!(TcpStream::connect(addr).is_err(), "somebody still listens on {addr}");
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
