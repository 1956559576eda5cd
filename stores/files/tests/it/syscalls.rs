//! How many system calls each operation makes, so that none creeps in.

use std::collections::BTreeMap;
use std::process::Command;

use crate::child;
use crate::util::Room;

#[test]
fn no_more_than_needed() {
    let room = Room::new();
    let child = child::command("calls", room.dir(), 0);
    let log = room.dir().join("log");
    if cloakroom_testkit::php::skip("strace") {
        return;
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log);
    strace.arg("-e").arg("trace=file,desc,flock,ftruncate,fchmod,fallocate");
    strace.arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        strace.env(name, value.unwrap());
    }
    let done = strace.output();
    assert!(done.as_ref().is_ok_and(|done| done.status.success()), "strace does not work: {done:?}");
    let log = std::fs::read_to_string(log).unwrap();
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut at = None;
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some((_, mark)) = call.split_once("/mark-") {
            at = Some((thread, mark.split('"').next().unwrap().to_owned()));
        } else if let (Some((of, at)), Some((name, _))) = (&at, call.split_once('('))
            && *of == thread
        {
            // In debug builds each descriptor is checked before it is closed. Memory is another matter.
            if !name.starts_with('<') && !matches!(name, "fcntl" | "mmap" | "munmap") {
                calls.entry(at.clone()).or_default().push(name.to_owned());
            }
        }
    }
    for (mark, calls) in &calls {
        println!("{mark}: {} {}", calls.len(), calls.join(" "));
    }
    let check = |mark: &str, expect: &str| assert_eq!(calls[mark].join(" "), expect, "{mark}");
    check("load", "open flock fstat pread64 close");
    check("absent", "open newfstatat");
    check("update", "open flock fstat pread64 pwrite64 close");
    check("touch", "open flock fstat utimensat fstat close");
    check("start", "open flock fstat pread64 fstat pwrite64 close");
    check("create", "open flock fstat pwrite64 close");
    assert!(calls["shrink"].len() <= 19, "{:?}", calls["shrink"]);
}
