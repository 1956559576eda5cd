//! The `scenarios` command.

use std::process::Command;

use cloakroom_testkit::php::{self, Judge};
use cloakroom_testkit::scenario;

fn scenarios(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_scenarios")).args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn play_prints_differences_and_a_summary() {
    if php::skip("php") {
        return;
    }
    let areas = scenario::load_all().unwrap();
    let start = areas.iter().find(|area| area.name == "start").unwrap();
    let judge = Judge::with_settings(&["session.cookie_httponly=1"]);
    let target = judge.addr(&start.scenarios[0]).unwrap().to_string();
    let (text, code) = scenarios(&["play", "--against", &target, "--only", "without_start_nothing_happens"]);
    assert_eq!((text.as_str(), code), ("1 passed, 0 failed\n", Some(0)));
    let (text, code) =
        scenarios(&["play", "--against", &target, "--only", "a_first_visit_creates_a_session", "--golden"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("got      Set-Cookie: PHPSESSID=<id1 32x4>; path=/; HttpOnly")
            && text.ends_with("0 passed, 1 failed\n"),
        "{text}"
    );
}

#[test]
fn compat_lists_every_deliberate_difference() {
    let (text, code) = scenarios(&["compat"]);
    let differing = scenario::load_all()
        .unwrap()
        .iter()
        .flat_map(|area| area.scenarios.clone())
        .filter(|one| one.differs.is_some())
        .count();
    assert_eq!((text.lines().count(), code), (differing + 2, Some(0)));
}

#[test]
fn a_missing_php_is_named() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_scenarios")).arg("check").env("PATH", "/nonexistent").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no `php` on PATH") && output.status.code() == Some(2), "{text}");
}

#[test]
fn a_wrong_command_shows_the_usage() {
    let (text, code) = scenarios(&["dance"]);
    assert!(text.contains("usage: scenarios COMMAND") && code == Some(2), "{text}");
}
