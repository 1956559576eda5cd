//! The scenarios as data: names, coverage of ops and settings, and patches that point at something.

use std::collections::BTreeSet;

use cloakroom_testkit::compare::{compare, expected_of_cloakroom, patched};
use cloakroom_testkit::golden;
use cloakroom_testkit::scenario::{self, Patch, Request, Scenario};
use serde_json::Value;

fn all() -> Vec<Scenario> {
    scenario::load_all().unwrap().into_iter().flat_map(|area| area.scenarios).collect()
}

fn requests(scenario: &Scenario) -> impl Iterator<Item = &Request> {
    scenario.requests.iter().flat_map(|request| std::iter::once(request).chain(&request.meanwhile))
}

#[test]
fn names_are_unique_sentences_in_snake_case() {
    let mut seen = BTreeSet::new();
    for scenario in all() {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(scenario.name.chars().all(fine) && scenario.name.contains('_'), "{}", scenario.name);
        assert!(!scenario.shows.is_empty() && !scenario.requests.is_empty(), "{}", scenario.name);
        assert!(seen.insert(scenario.name.clone()), "{} stands twice", scenario.name);
    }
    assert!(seen.len() >= 200, "{} scenarios", seen.len());
}

#[test]
fn every_op_is_played() {
    let ops = "start status id set_id name set_name get set unset incr all clear write_close abort reset destroy regenerate create_id gc \
               encode decode cookie_params set_cookie_params cache_limiter cache_expire save_path module_name sleep output";
    let scenarios = all();
    let played: BTreeSet<&str> = scenarios
        .iter()
        .flat_map(requests)
        .flat_map(|request| &request.ops)
        .filter_map(|op| op.get(0)?.as_str())
        .collect();
    let known: BTreeSet<&str> = ops.split_whitespace().collect();
    assert_eq!(played, known);
}

#[test]
fn every_setting_that_a_request_can_see_is_played() {
    let settings = "save_handler save_path name auto_start serialize_handler gc_probability gc_divisor gc_maxlifetime lazy_write \
                    use_strict_mode use_cookies use_only_cookies use_trans_sid referer_check cookie_lifetime cookie_path cookie_domain \
                    cookie_secure cookie_httponly cookie_samesite cache_limiter cache_expire sid_length sid_bits_per_character \
                    upload_progress.enabled upload_progress.cleanup upload_progress.prefix upload_progress.name upload_progress.freq \
                    upload_progress.min_freq";
    let scenarios = all();
    let played: BTreeSet<&str> = scenarios
        .iter()
        .flat_map(requests)
        .flat_map(|request| request.ini.keys())
        .filter_map(|name| name.strip_prefix("session."))
        .collect();
    let missing: Vec<&str> = settings.split_whitespace().filter(|setting| !played.contains(setting)).collect();
    assert!(missing.is_empty(), "no scenario uses {missing:?}");
}

#[test]
fn patches_point_at_something_and_change_it() {
    for area in scenario::load_all().unwrap() {
        let golden = golden::read(&area.name).unwrap();
        for scenario in &area.scenarios {
            let recorded = &golden.transcripts[&scenario.name];
            let answers: Vec<usize> = requests(scenario).map(|request| request.ops.len()).collect();
            let check = |patches: &[Patch]| {
                for patch in patches {
                    let ops = *answers
                        .get(patch.answer)
                        .unwrap_or_else(|| panic!("{}: answer {}", scenario.name, patch.answer));
                    assert!(patch.results.keys().all(|&op| op < ops), "{}: no such op", scenario.name);
                    assert!(
                        patch.results.values().all(|result| result.get("value").is_some()),
                        "{}: no value",
                        scenario.name
                    );
                    let before = patched(recorded, &[]);
                    let after = patched(recorded, std::slice::from_ref(patch));
                    assert!(
                        !compare(scenario, &after, &before).is_empty() || after != before,
                        "{}: changes nothing",
                        scenario.name
                    );
                }
            };
            check(scenario.differs.as_ref().map_or(&[], |differs| &differs.expect));
            check(scenario.php84.as_deref().unwrap_or_default());
            let expected = expected_of_cloakroom(scenario, recorded);
            let patches = scenario.differs.as_ref().is_some_and(|differs| !differs.expect.is_empty());
            assert_eq!(
                compare(scenario, &expected, recorded).is_empty(),
                !patches,
                "{}: the patch is PHP's answer",
                scenario.name
            );
        }
    }
}

#[test]
fn the_record_holds_every_scenario_and_no_other() {
    for area in scenario::load_all().unwrap() {
        let golden = golden::read(&area.name).unwrap();
        let recorded: BTreeSet<&str> = golden.transcripts.keys().map(String::as_str).collect();
        let named: BTreeSet<&str> = area.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(recorded, named, "{}: run `scenarios record`", area.name);
        for (name, transcript) in &golden.transcripts {
            let bodies = transcript
                .answers
                .iter()
                .filter(|answer| answer.body.is_some() || answer.results.iter().any(Value::is_null))
                .count();
            assert_eq!(bodies, 0, "{name}: an answer that is not what the contract says");
        }
    }
}
