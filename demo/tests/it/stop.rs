//! How the demo begins and ends: clear words, and nothing left behind.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::program::Program;

#[test]
fn a_port_in_use_is_a_clear_message() {
    let demo = Program::start();
    let address = demo.address.to_string();
    let output = Program::command().args(["--no-php", "--listen", &address]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains(&format!("{address} is already in use")) && text.contains("--listen"), "{text}");
}

#[test]
fn unknown_options_are_refused_with_the_list_of_those_there_are() {
    let output = Program::command().arg("--port=1").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.contains("unknown option --port=1") && text.contains("--sessions DIR"), "{text}");
}

#[test]
fn it_ends_cleanly_on_each_signal_and_keeps_the_sessions() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut demo = Program::start();
        let mut browser = demo.browser();
        browser.get("/");
        assert!(demo.signal(signal).success());
        assert!(demo.file(browser.mark()).exists());
    }
}

#[test]
fn php_ends_with_the_demo() {
    for (signal, is_asked) in [(Signal::TERM, true), (Signal::INT, true), (Signal::KILL, false)] {
        let Some(mut demo) = Program::with_php() else { return };
        let children = demo.children();
        assert_eq!(children.len(), 1, "PHP runs");
        assert_eq!(demo.signal(signal).success(), is_asked);
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_running(children[0]) {
            assert!(Instant::now() < deadline, "PHP is left behind after {signal:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        if is_asked {
            let own = std::fs::read_dir(demo.temporary()).unwrap().flatten();
            let own = own.map(|entry| entry.path()).find(|path| *path != demo.sessions()).unwrap();
            assert_eq!(std::fs::read_dir(own).unwrap().count(), 0, "its pages are removed");
        }
    }
}

/// A zombie does not run: who reaps an orphan, the machine decides.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
