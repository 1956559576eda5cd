//! An example, started as the program that it is.

use std::process::Command;

use cloakroom_testkit::process::Process;

/// Starts an example of this package, which cargo has built beside this test.
pub(crate) fn start(name: &str, arguments: &[&str]) -> Process {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.extend(["examples", name]);
    Process::start(name, |addr, _| {
        let mut command = Command::new(&path);
        command.arg("--listen").arg(addr.to_string()).args(arguments);
        command
    })
    .unwrap()
}
