//! A runner that notices nothing would pass everything: PHP with one setting changed must be told from PHP.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use cloakroom_testkit::compare::compare;
use cloakroom_testkit::golden;
use cloakroom_testkit::php::{self, Judge, Options, PhpServer};
use cloakroom_testkit::play::play;
use cloakroom_testkit::scenario::{self, Scenario};

/// What kinds of differences (`status`, `header`, `result`, `store`, `refused`) a PHP with this setting shows in these scenarios.
fn noticed(setting: &str, only: &[&str]) -> BTreeSet<String> {
    let judge = Judge::with_settings(&[setting]);
    noticed_at(&|scenario| judge.addr(scenario).unwrap(), only)
}

fn noticed_at(addr: &dyn Fn(&Scenario) -> SocketAddr, only: &[&str]) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    let mut played = 0;
    for area in scenario::load_all().unwrap() {
        let golden = golden::read(&area.name).unwrap();
        for scenario in area.scenarios.iter().filter(|scenario| only.contains(&scenario.name.as_str())) {
            let recorded = golden.answers(scenario, &php::version().unwrap()).unwrap();
            let played_now = play(scenario, addr(scenario)).unwrap();
            let differences = compare(scenario, &recorded, &played_now);
            kinds.extend(differences.iter().map(|one| one.what.split(' ').next().unwrap_or_default().to_owned()));
            played += 1;
        }
    }
    assert_eq!(played, only.len(), "a scenario of this test is gone: {only:?}");
    kinds
}

fn kinds(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn another_cookie_attribute_is_a_header() {
    if !php::skip("php") {
        let found = noticed("session.cookie_httponly=1", &["a_first_visit_creates_a_session_and_marks_the_browser"]);
        assert_eq!(found, kinds(&["header"]));
    }
}

#[test]
fn another_format_is_other_bytes() {
    if !php::skip("php") {
        let found = noticed("session.serialize_handler=php_binary", &["an_unknown_id_is_adopted_without_strict_mode"]);
        assert_eq!(found, kinds(&["store"]));
    }
}

#[test]
fn strict_mode_is_cookies_results_and_files() {
    if !php::skip("php") {
        let found = noticed("session.use_strict_mode=1", &["an_unknown_id_is_adopted_without_strict_mode"]);
        assert_eq!(found, kinds(&["header", "result", "store"]));
    }
}

#[test]
fn a_file_that_was_not_touched_is_noticed() {
    if !php::skip("php") {
        let script = tempfile::NamedTempFile::new().unwrap();
        let probe = std::fs::read_to_string(php::probe_script()).unwrap();
        let last = "echo $body;";
        assert!(probe.contains(last));
        let aging = "session_write_close(); foreach (glob(session_save_path() . '/sess_*') as $file) { touch($file, time() - 600); }\n";
        std::fs::write(script.path(), probe.replace(last, &format!("{aging}{last}"))).unwrap();
        let forgetful = PhpServer::start(script.path(), &Options::default()).unwrap();
        assert_eq!(noticed_at(&|_| forgetful.addr(), &["unchanged_data_are_only_touched"]), kinds(&["store"]));
    }
}

#[test]
fn another_random_id_of_another_form_is_noticed() {
    if !php::skip("php") {
        let found = noticed("session.sid_length=40", &["create_id_while_active"]);
        assert_eq!(found, kinds(&["result"]));
        let found = noticed("session.sid_bits_per_character=5", &["create_id_while_active"]);
        assert_eq!(found, kinds(&["result"]));
    }
}

#[test]
fn a_warning_that_is_missing_is_noticed() {
    if !php::skip("php") {
        let found = noticed("session.upload_progress.enabled=1", &["settings_change_again_after_close"]);
        assert!(found.contains("refused"), "{found:?}");
    }
}

#[test]
fn a_date_that_is_off_by_more_than_two_seconds_is_noticed() {
    if !php::skip("php") {
        let found = noticed("session.cache_expire=181", &["limiter_names_are_case_insensitive"]);
        assert_eq!(found, kinds(&["header"]));
    }
}
